//! WebSocket frames, right ones and wrong ones.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::http::read_head;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A socket that became a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    pub socket: TcpStream,
    received: Vec<u8>,
}

impl WebSocket {
    pub fn open(address: SocketAddr) -> Self {
        let (head, socket) = Self::try_open(address, "");
        let (socket, received) = socket.unwrap_or_else(|| panic!("no upgrade: {head}"));
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        Self { socket, received }
    }

    /// A socket that was upgraded by hand, and what it had received behind the answer.
    pub fn resume(socket: TcpStream, received: Vec<u8>) -> Self {
        Self { socket, received }
    }

    /// Asks for the upgrade with more headers; the head of the answer, and the socket if it was 101.
    pub fn try_open(address: SocketAddr, headers: &str) -> (String, Option<(TcpStream, Vec<u8>)>) {
        Self::try_open_at(address, "/connection/websocket", headers)
    }

    pub fn try_open_at(
        address: SocketAddr,
        path: &str,
        headers: &str,
    ) -> (String, Option<(TcpStream, Vec<u8>)>) {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let (head, rest) = read_head(&mut socket);
        let upgraded = head.starts_with("HTTP/1.1 101 ");
        (head, upgraded.then_some((socket, rest)))
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_bytes(&frame(TEXT, true, true, text.as_bytes()));
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
            if let Some((frame, length)) = parse(&self.received) {
                self.received.drain(..length);
                return Some(frame);
            }
            let mut chunk = [0; 64 * 1024];
            match self.socket.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("the server sent nothing: {error}"),
            }
        }
    }
}

/// A client's frame; an honest one is final and masked.
pub fn frame(opcode: u8, is_final: bool, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(is_final) << 7 | opcode];
    let mask_bit = u8::from(masked) << 7;
    match payload.len() {
        length @ 0..126 => bytes.push(mask_bit | length as u8),
        length @ 126..65536 => {
            bytes.push(mask_bit | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = if masked { [0x17, 0x2a, 0x9c, 0xf3] } else { [0; 4] };
    if masked {
        bytes.extend(mask);
    }
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert!(first & 0xF0 == 0x80 && second & 0x80 == 0, "servers send whole, unmasked frames");
    let (length, start) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize, 10),
        length => (length as usize, 2),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    Some((Frame { opcode: first & 0x0F, payload }, start + length))
}
