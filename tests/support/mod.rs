//! A real server process, a database for it, and a client that speaks raw WebSocket.
//!
//! Nothing here waits for time to pass: everything waits for an answer, with a generous deadline
//! that only a failing test ever meets.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_debug_implementations)]

pub mod client;
pub mod http;
#[allow(dead_code, reason = "shared with the tests of the store")]
pub mod postgres;
pub mod server;
pub mod temp;
pub mod token;
pub mod websocket;

use std::time::{Duration, Instant};

pub use temp::{PATIENCE, TempDir};

/// Waits until a condition holds that nobody announces, such as the value of a metric.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(name: &str, pid: u32) {
    let status =
        std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "signal {name} to {pid}");
}
