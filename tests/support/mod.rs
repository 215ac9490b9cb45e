//! A real server process, a database for it, and a client that speaks raw WebSocket.
//!
//! Nothing here waits for time to pass: everything waits for an answer, with a generous deadline
//! that only a failing test ever meets.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_debug_implementations)]

pub mod client;
pub mod http;
pub mod postgres;
pub mod server;
pub mod token;
pub mod websocket;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything; a loaded machine may be slow, a broken server is slower.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until a condition holds that nobody announces, such as the value of a metric.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder that is removed when the test ends.
#[derive(Debug)]
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("roomcast-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(name: &str, pid: u32) {
    let status =
        std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "signal {name} to {pid}");
}
