//! The floors that the server's costs are divided by: what the same work costs without a server.
//!
//! Sending: one thread that calls `send` in a loop. Storing: a bare transaction that inserts the rows
//! of a commit. Run by Criterion like the other benches, or once, within a minute, by
//! `cargo bench --bench floors -- --json [send|sqlite|postgres]`. Either way one JSON line per floor
//! goes to standard output at the end.

#![allow(clippy::unwrap_used, reason = "a bench that can not measure fails by panic")]

mod common;
#[path = "floors/log.rs"]
mod log;
#[path = "floors/measure.rs"]
mod measure;
#[path = "floors/postgres.rs"]
mod postgres;
#[path = "floors/send.rs"]
mod send;
#[path = "floors/sqlite.rs"]
mod sqlite;

use std::env;

use measure::Group;

fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> = send::SOCKETS.iter().map(|count| send::group(*count)).collect();
    groups.push(sqlite::group());
    groups.push(postgres::group());
    groups
}

fn main() {
    if common::sockets::serve_as_reader() {
        return;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--json") {
        let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
        let wanted = |group: &Group| wanted.is_none_or(|wanted| group.floor() == wanted);
        measure::print(&measure::quickly(groups().into_iter().filter(wanted)));
    } else {
        measure::print(&measure::with_criterion(groups()));
    }
}
