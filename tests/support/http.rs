//! HTTP requests byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One connection that may carry several requests.
#[derive(Debug)]
pub struct HttpConnection {
    pub socket: TcpStream,
    received: Vec<u8>,
}

impl HttpConnection {
    pub fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, received: Vec::new() }
    }

    pub fn send(&mut self, request: &str) {
        self.socket.write_all(request.as_bytes()).unwrap();
    }

    /// Reads one answer; `has_body` is false after HEAD.
    pub fn read(&mut self, has_body: bool) -> Answer {
        let (head, rest) = read_head_after(&mut self.socket, std::mem::take(&mut self.received));
        self.received = rest;
        let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
        let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let length = length.map_or(0, |(length, _)| length.parse().unwrap());
        let length = if has_body { length } else { 0 };
        while self.received.len() < length {
            let mut chunk = [0; 16 * 1024];
            let count = match self.socket.read(&mut chunk) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.unwrap(),
            };
            assert!(count > 0, "the body ended early");
            self.received.extend_from_slice(&chunk[..count]);
        }
        let rest = self.received.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap();
        Answer { status, head, body }
    }

    /// True when the server has closed the connection and sent nothing more.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && matches!(self.socket.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut connection = HttpConnection::open(address);
    connection.send(&format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    ));
    connection.read(method != "HEAD")
}

/// The head of an answer, and what came behind it.
pub fn read_head(socket: &mut TcpStream) -> (String, Vec<u8>) {
    read_head_after(socket, Vec::new())
}

fn read_head_after(socket: &mut TcpStream, mut bytes: Vec<u8>) -> (String, Vec<u8>) {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).unwrap(), rest);
        }
        let mut chunk = [0; 4096];
        let count = match socket.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.expect("an answer"),
        };
        assert!(count > 0, "the server closed instead of answering: {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..count]);
    }
}
