//! The floors that the server's costs are divided by: what the same work costs without a server.
//!
//! Sending: one thread that calls `send` in a loop. Storing: a bare transaction that inserts the rows
//! of a commit. Run by Criterion like the other benches, or once, within a minute, by
//! `cargo bench --bench floors -- --json [NAME]`, where the name is that of a floor or some parts of it,
//! such as `send` or `send/sockets=1000/coalesced=1`. Either way one JSON line per floor goes to
//! standard output at the end. `--with-postgres COMMAND…` runs a command while a throw-away PostgreSQL
//! runs; `{url}` in its arguments becomes that of an empty database.

#![allow(clippy::unwrap_used, reason = "a bench that cannot measure fails by panic")]

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
    groups.push(sqlite::paced_group());
    groups.push(postgres::group());
    groups
}

fn main() {
    if common::sockets::serve_as_reader() {
        return;
    }
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("--with-postgres") => postgres::run_beside(&arguments[1..]),
        Some("--json") => {
            let wanted = arguments.get(1).map_or("", String::as_str);
            measure::print(&measure::quickly(groups(), |case| case.matches(wanted)));
        }
        _ => measure::print(&measure::with_criterion(groups())),
    }
}
