//! A WebSocket that blocks: one socket, and the frames that came through it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::frames::{BINARY, Received, TEXT, frame, upgrade_request};
use super::http::read_head;

/// Where clients connect.
pub const PATH: &str = "/connection/websocket";

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Came {
    /// More bytes, maybe of a part of a frame only.
    Bytes,
    /// Nothing for as long as the socket's read timeout.
    Nothing,
    /// The server hung up.
    End,
}

/// A socket that became a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    pub socket: TcpStream,
    pub received: Received,
}

impl WebSocket {
    pub fn open(address: SocketAddr) -> Self {
        let (head, socket) = Self::try_open(address, "");
        let (socket, received) = socket.unwrap_or_else(|| panic!("no upgrade: {head}"));
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Self::resume(socket, received)
    }

    /// The same while the server may be going away, or be gone: `None` then.
    pub fn reach(address: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(address).ok()?;
        let mut websocket = Self::resume(patient(socket), Vec::new());
        websocket.send_bytes(upgrade_request(address, PATH, "").as_bytes());
        loop {
            if let Some(head) = websocket.received.next_head() {
                return head.starts_with("HTTP/1.1 101 ").then_some(websocket);
            }
            if websocket.fill() != Came::Bytes {
                return None;
            }
        }
    }

    /// A socket that was upgraded by hand, and what it had received behind the answer.
    pub fn resume(socket: TcpStream, received: Vec<u8>) -> Self {
        Self { socket, received: Received::new(received) }
    }

    /// Asks for the upgrade with more headers; the head of the answer, and the socket if it was 101.
    pub fn try_open(address: SocketAddr, headers: &str) -> (String, Option<(TcpStream, Vec<u8>)>) {
        Self::try_open_at(address, PATH, headers)
    }

    pub fn try_open_at(
        address: SocketAddr,
        path: &str,
        headers: &str,
    ) -> (String, Option<(TcpStream, Vec<u8>)>) {
        Self::try_upgrade(TcpStream::connect(address).unwrap(), address, path, headers)
    }

    /// The same on a socket that is connected already.
    pub fn try_upgrade(
        socket: TcpStream,
        address: SocketAddr,
        path: &str,
        headers: &str,
    ) -> (String, Option<(TcpStream, Vec<u8>)>) {
        let mut socket = patient(socket);
        socket.write_all(upgrade_request(address, path, headers).as_bytes()).unwrap();
        let (head, rest) = read_head(&mut socket);
        let upgraded = head.starts_with("HTTP/1.1 101 ");
        (head, upgraded.then_some((socket, rest)))
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_bytes(&frame(TEXT, true, true, text.as_bytes()));
    }

    pub fn send_binary(&mut self, payload: &[u8]) {
        self.send_bytes(&frame(BINARY, true, true, payload));
    }

    /// The server may have hung up in the meantime; the next read shows it.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        match self.socket.write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            sent => sent.unwrap(),
        }
    }

    /// The next frame, or `None` when the server closed the socket.
    #[track_caller]
    pub fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some((opcode, payload)) = self.received.next_frame() {
                return Some(Frame { opcode, payload: payload.to_vec() });
            }
            match self.fill() {
                Came::Bytes => {}
                Came::Nothing => panic!("the server is silent, without even a ping"),
                Came::End => return None,
            }
        }
    }

    /// Reads once.
    #[track_caller]
    pub fn fill(&mut self) -> Came {
        let mut chunk = [0; 64 * 1024];
        match self.socket.read(&mut chunk) {
            Ok(0) => Came::End,
            Ok(count) => {
                self.received.add(&chunk[..count]);
                Came::Bytes
            }
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset => Came::End,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Came::Nothing,
                ErrorKind::Interrupted => Came::Bytes,
                _ => panic!("the socket failed: {error}"),
            },
        }
    }
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}
