//! The promises under attack, against the real process, real databases and real sockets.
//!
//! Every attack has two lengths. `cargo test --test torture` runs the short ones, as the whole suite
//! does; `ROOMCAST_TORTURE=long cargo test --release --test torture -- --nocapture --test-threads 1`
//! runs the long ones and prints their figures, which `docs/reliability.md` keeps.
//! `ROOMCAST_TEST_SEED=N` replays the random choices of an earlier run.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the server")]
mod support;

mod broadcast;
mod crowd;
mod durable;
mod form;
mod frozen;
mod library;
mod order;
mod power;
mod readers;
mod resume;
mod slow;
mod storm;
mod swarm;
