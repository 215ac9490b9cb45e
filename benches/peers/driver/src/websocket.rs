//! As much of RFC 6455 as a client needs that measures: the request, masked frames
//! out, frames in.

use std::io;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A fixed key: the server has the same work with it as with a random one, and
/// nobody between is to be protected on loopback.
const MASK: [u8; 4] = [0x5a, 0x13, 0xc7, 0x8e];

/// Larger frames than any server here has a reason to send.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// A frame as it lies in the bytes that were read.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) last: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes it took, header included.
    pub(crate) length: usize,
}

pub(crate) fn request(host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"
    );
    if let Some(name) = subprotocol {
        text.push_str(&format!("Sec-WebSocket-Protocol: {name}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Length of the response when it is complete; an error if it is no upgrade.
pub(crate) fn response(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if bytes.starts_with(b"HTTP/1.1 101") {
        return Ok(Some(end + 4));
    }
    let first = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
    Err(io::Error::other(format!("the handshake was answered: {first}")))
}

pub(crate) fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        medium @ 126..65536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// The first frame of `bytes`, if it is there to its end.
pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        return Err(io::Error::other("a frame that no server may send"));
    }
    let (header, length) = match second & 0x7f {
        126 => match rest.first_chunk::<2>() {
            Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (10, u64::from_be_bytes(*length)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other("a frame of unreasonable length"));
    }
    let end = header + length as usize;
    Ok(bytes.get(header..end).map(|payload| Frame {
        opcode: first & 0x0f,
        last: first & 0x80 != 0,
        payload,
        length: end,
    }))
}

/// Where `needle` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, rest) = needle.split_first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| byte == first)?;
        if bytes[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
}
