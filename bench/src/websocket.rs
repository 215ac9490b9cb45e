//! As much of WebSocket (RFC 6455) as the client of a load generator needs: the request, masked frames
//! out, frames in.

use std::io::{self, Write};

use memchr::memmem;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// Masking key of every frame. A client must mask; with zeros that changes nothing, and the load
/// generator keeps its processor time for more connections.
const MASK: [u8; 4] = [0; 4];

/// Payloads of control frames have so many bytes at most (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Larger frames than any server has a reason to send.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// A frame as it lies in the bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    /// The last frame of its message.
    pub(crate) is_last: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes it took, its header included.
    pub(crate) length: usize,
}

/// Appends the request that makes the socket a WebSocket.
pub(crate) fn request(out: &mut Vec<u8>, host: &str, path: &str) {
    // Writing to a Vec does not fail.
    let _ = write!(
        out,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
}

/// Length of the response to the request, when it is there to its end.
///
/// # Errors
/// When the server does not agree to a WebSocket.
pub(crate) fn response(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    if bytes.starts_with(b"HTTP/1.1 101 ") {
        return Ok(Some(end + 4));
    }
    let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default());
    Err(io::Error::other(format!("the server answered: {line}")))
}

/// Appends one data frame, masked.
pub(crate) fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend_from_slice(payload);
}

/// Appends the answer to a ping.
pub(crate) fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    frame(out, PONG, &payload[..payload.len().min(CONTROL_BYTES_MAX)]);
}

/// The first frame of `bytes`; `None` until all of it is there.
///
/// # Errors
/// When it is one that no server may send, or unreasonably long.
pub(crate) fn first_frame(bytes: &[u8]) -> io::Result<Option<Frame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        return Err(io::Error::other("the server sent a frame that is masked or compressed"));
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
        return Err(io::Error::other(format!("the server sent a frame of {length} bytes")));
    }
    let length = header + length as usize;
    let (opcode, is_last) = (first & 0x0f, first & 0x80 != 0);
    Ok(bytes.get(header..length).map(|payload| Frame { opcode, is_last, payload, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_when_they_are_whole() {
        for length in [5, 125, 126, 70_000] {
            let mut bytes = vec![0x81];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=0xffff => bytes.extend([126, (length >> 8) as u8, length as u8]),
                _ => {
                    bytes.push(127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + length, b'a');
            assert_eq!(first_frame(&bytes[..bytes.len() - 1]).unwrap(), None);
            bytes.push(b'n');
            let frame = first_frame(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.is_last), (TEXT, true));
            assert_eq!((frame.payload.len(), &bytes[frame.length..]), (length, &b"n"[..]));
        }
    }

    #[test]
    fn frames_that_no_server_may_send_are_refused() {
        let huge = [&[0x82, 127][..], &(1_u64 << 40).to_be_bytes()].concat();
        for bytes in [&[0x81, 0x80][..], &[0xc1, 0x01], &huge] {
            assert!(first_frame(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_sent_frame_is_masked_and_else_unchanged() {
        for length in [0, 125, 126, 65_536] {
            let mut bytes = Vec::new();
            frame(&mut bytes, TEXT, &vec![b'a'; length]);
            assert_eq!(bytes[1] & 0x80, 0x80, "masked");
            let header = bytes.len() - length;
            assert_eq!(header, 6 + [0, 2, 8][usize::from(length > 125) + usize::from(length > 0xffff)]);
        }
    }

    #[test]
    fn only_an_upgrade_is_a_response() {
        assert_eq!(response(b"HTTP/1.1 101 Switching Protocols\r\n").unwrap(), None);
        assert_eq!(response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81").unwrap(), Some(36));
        let refusal = response(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err();
        assert_eq!(refusal.to_string(), "the server answered: HTTP/1.1 404 Not Found");
    }
}
