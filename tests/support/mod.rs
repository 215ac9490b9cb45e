//! A real server process, a database for it, and a client that speaks raw WebSocket.
//!
//! Nothing here waits for time to pass: everything waits for an answer, with a generous deadline
//! that only a failing test ever meets.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_debug_implementations)]

pub mod client;
pub mod frames;
pub mod http;
pub mod in_time;
#[allow(dead_code, reason = "shared with the tests of the store")]
pub mod postgres;
pub mod protobuf;
pub mod random;
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

/// Tells a body of a test how often to ping, ever more slowly, until it says that this machine can
/// answer pings that fast. What it judges must hold at every pace.
#[track_caller]
pub fn at_a_pace_it_can_answer(mut body: impl FnMut(&str) -> bool) {
    let paces = [("60ms", "40ms"), ("600ms", "500ms"), ("6s", "5s"), ("20s", "19s")];
    let kept = paces.iter().any(|(ping, pong)| {
        body(&format!(
            "[client]\nping_interval = \"{ping}\"\npong_timeout = \"{pong}\"\nstall_timeout = \"10m\"\n"
        ))
    });
    assert!(kept, "a client that answers pings is taken for dead, however much time it has");
}

/// Sends a signal to a process that a test started.
pub fn signal(name: &str, pid: u32) {
    let status =
        std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "signal {name} to {pid}");
}
