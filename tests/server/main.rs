//! The server as its clients see it: every promise of the protocol and the API, tested against the
//! real process over real sockets, on both databases where the database matters.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the torture")]
mod support;

/// Three tests of the same body: the server keeps its messages in SQLite, and in PostgreSQL; and its clients
/// speak Protobuf.
macro_rules! on_both_databases {
    ($(#[doc = $words:literal])* $name:ident($server:ident $(, $extras:expr)?) $body:block) => {
        $(#[doc = $words])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[allow(unused_mut)]
            fn run(mut $server: crate::support::server::TestServer) $body

            #[test]
            fn on_sqlite() {
                let extras = concat!($($extras)?);
                run(crate::support::server::TestServer::on(crate::support::server::Backend::Sqlite, extras));
            }

            #[test]
            fn on_postgres() {
                let extras = concat!($($extras)?);
                run(crate::support::server::TestServer::on(crate::support::server::Backend::Postgres, extras));
            }

            #[test]
            fn in_protobuf() {
                use crate::support::server::{Backend, TestServer};
                let mut server = TestServer::on(Backend::Sqlite, concat!($($extras)?));
                server.speaks_protobuf = true;
                run(server);
            }
        }
    };
}

mod binary;
mod closes;
mod commits;
mod deadlines;
mod errors;
mod failures;
mod forks;
mod fuzz;
mod http;
mod input;
mod limits;
mod logs;
mod names;
mod pages;
mod peers;
mod people;
mod rates;
mod recovery;
mod rooms;
mod sdks;
mod slow;
mod tokens;
mod wire;
