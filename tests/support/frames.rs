//! WebSocket frames as bytes: what clients write, and what servers write back.
//!
//! Every client of the tests encodes and decodes here, those that block and the swarm that does not.

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

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

/// The request that makes a socket a WebSocket, with more headers, each with its line break.
pub fn upgrade_request(address: std::net::SocketAddr, path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// What a client has received and not looked at yet.
#[derive(Debug, Default)]
pub struct Received {
    bytes: Vec<u8>,
    /// How many of them were given out already.
    taken: usize,
}

impl Received {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, taken: 0 }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The head of an HTTP answer, when all of it is here.
    pub fn next_head(&mut self) -> Option<String> {
        let left = &self.bytes[self.taken..];
        let end = left.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&left[..end]).into_owned();
        self.taken += end;
        Some(head)
    }

    /// Kind and payload of the next frame, when all of it is here.
    pub fn next_frame(&mut self) -> Option<(u8, &[u8])> {
        let left = &self.bytes[self.taken..];
        let (&first, &second) = (left.first()?, left.get(1)?);
        assert!(first & 0xF0 == 0x80 && second & 0x80 == 0, "servers send whole, unmasked frames");
        let (start, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(left.get(2..4)?.try_into().unwrap()))),
            127 => (10, u64::from_be_bytes(left.get(2..10)?.try_into().unwrap()) as usize),
            length => (2, usize::from(length)),
        };
        let payload = left.get(start..start + length)?;
        self.taken += start + length;
        Some((first & 0x0F, payload))
    }
}
