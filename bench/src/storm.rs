//! What a server tells of a reconnect storm: how often it had to ask its database.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Of the metrics of `GET /metrics`.
const PAGES: &str = "roomcast_catch_up_pages_total ";

const TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of missed messages the server read from its database since it started; `None` when it does not
/// tell, as another server does not.
pub(crate) fn pages_read(server: SocketAddr) -> Option<u64> {
    let mut socket = TcpStream::connect_timeout(&server, TIMEOUT).ok()?;
    socket.set_read_timeout(Some(TIMEOUT)).ok()?;
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(PAGES)?.trim().parse().ok())
}
