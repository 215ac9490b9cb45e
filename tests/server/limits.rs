//! What a connection takes of the system's limits.

use std::fs;

use crate::support::server::TestServer;

/// With more than two maps each, the usual `vm.max_map_count` would end at 16,000 connections.
#[test]
#[cfg(target_os = "linux")]
fn a_connection_takes_two_memory_maps() {
    let server = TestServer::start();
    let maps = || fs::read_to_string(format!("/proc/{}/maps", server.pid())).unwrap().lines().count();
    let connect = |name: usize| {
        let mut client = server.connect(&format!("client{name}"));
        client.join("room");
        client
    };
    // The first ones bring what all share, like the parts of the allocator.
    let mut clients: Vec<_> = (0..50).map(connect).collect();
    let before = maps();
    clients.extend((50..250).map(connect));
    let each = (maps() - before) as f64 / 200.0;
    assert!(each < 2.5, "{each} maps a connection");
}
