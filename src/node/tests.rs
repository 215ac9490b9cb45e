//! The door by itself: what each kind of caller may do and is told, without a socket, on both databases.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail by panic, as the tests do")]

/// Two tests of the same body: the node keeps its messages in SQLite, and in PostgreSQL.
macro_rules! on_both_databases {
    ($(#[doc = $words:literal])* $name:ident($rig:ident, $settings:expr) $body:block) => {
        $(#[doc = $words])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::node::tests::rig::{Backend, Rig};

            fn run($rig: &Rig) $body

            #[test]
            fn on_sqlite() {
                run(&Rig::new(Backend::Sqlite, $settings));
            }

            #[test]
            fn on_postgres() {
                run(&Rig::new(Backend::Postgres, $settings));
            }
        }
    };
}

mod access;
mod people;
mod publish;
mod read;
pub(crate) mod rig;
mod rooms;
mod subscribe;
