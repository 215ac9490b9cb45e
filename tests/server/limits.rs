//! What a connection takes of the system's limits.

use std::fs;

use crate::support::server::TestServer;

/// The number that stands behind `name` in the status of the server's process.
fn status(server: &TestServer, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
#[cfg(target_os = "linux")]
fn a_silent_connection_owns_no_thread() {
    let server = TestServer::start();
    let connect = |name: usize| {
        let mut client = server.connect(&format!("client{name}"));
        client.join("room");
        client
    };
    let mut clients: Vec<_> = (0..50).map(connect).collect();
    let before = status(&server, "Threads");
    clients.extend((50..250).map(connect));
    let now = status(&server, "Threads");
    // Readers come and go with the work, never with the connections.
    assert!(now < before + 20, "{before} threads with 50 connections, {now} with 250");
    assert!(server.metric("readers") < 20);
}
