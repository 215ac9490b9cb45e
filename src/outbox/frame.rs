//! WebSocket frames as the server writes them: unmasked, never fragmented.
//!
//! A frame is encoded once and shared; what a listener costs is a reference count and a `send`.

use bytes::Bytes;

use crate::limits::{CLOSE_REASON_BYTES_MAX, FRAME_BYTES_MAX};

/// First byte of a final text frame (RFC 6455 §5.2).
const TEXT: u8 = 0x81;
/// First byte of a final close frame.
const CLOSE: u8 = 0x88;

/// First byte of a pong: final, opcode 10 (RFC 6455 §5.2).
const PONG: u8 = 0x8A;

/// One text frame with this payload.
#[must_use]
pub fn text(payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    put_frame(&mut frame, TEXT, payload);
    Bytes::from(frame)
}

/// One text frame with the line that `encode` writes.
#[must_use]
pub(crate) fn encode(encode: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut line = Vec::new();
    encode(&mut line);
    text(&line)
}

/// True when a frame that was made here, or by tungstenite, is a close frame.
pub(crate) fn is_close(frame: &[u8]) -> bool {
    frame.first() == Some(&CLOSE)
}

/// True when a whole frame is a pong.
pub(super) fn is_pong(frame: &[u8]) -> bool {
    frame.first() == Some(&PONG)
}

/// One close frame. A reason longer than 123 bytes is cut at a character.
#[must_use]
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    let mut frame = Vec::with_capacity(payload.len() + 2);
    put_frame(&mut frame, CLOSE, &payload);
    Bytes::from(frame)
}

fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Joins JSON lines into as few text frames as [`FRAME_BYTES_MAX`] allows, all in one buffer, so
/// that any number of lines costs a listener one `send`.
#[derive(Debug, Default)]
pub struct LineFrames {
    frames: Vec<u8>,
    lines: Vec<u8>,
}

impl LineFrames {
    /// Appends one line, written by `encode` without a newline.
    pub fn line(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.lines.len();
        if start > 0 {
            self.lines.push(b'\n');
        }
        encode(&mut self.lines);
        if start > 0 && self.lines.len() > FRAME_BYTES_MAX {
            let last = self.lines.split_off(start + 1);
            self.lines.truncate(start);
            self.end_frame();
            self.lines = last;
        }
    }

    /// True when nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.frames.is_empty()
    }

    /// Bytes appended so far, headers of the last frame not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len() + self.frames.len()
    }

    /// The finished frames; the builder is empty again and keeps the memory of its line buffer.
    pub fn take(&mut self) -> Bytes {
        self.end_frame();
        Bytes::from(std::mem::take(&mut self.frames))
    }

    fn end_frame(&mut self) {
        if !self.lines.is_empty() {
            self.frames.reserve_exact(self.lines.len() + 10);
            put_frame(&mut self.frames, TEXT, &self.lines);
            self.lines.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_use_the_shortest_form() {
        assert_eq!(&text(b"{}")[..], b"\x81\x02{}");
        assert_eq!(&text(&[b'x'; 126])[..4], b"\x81\x7e\x00\x7e");
        assert_eq!(&text(&[b'x'; 65_536])[..10], b"\x81\x7f\0\0\0\0\0\x01\0\0");
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        assert_eq!(&close(3001, "shutdown")[..], b"\x88\x0a\x0b\xb9shutdown");
        assert_eq!(close(3001, &"ä".repeat(100)).len(), 2 + 2 + 122);
    }

    #[test]
    fn lines_share_a_frame_until_it_is_full() {
        let mut frames = LineFrames::default();
        frames.line(|out| out.extend_from_slice(b"a"));
        frames.line(|out| out.extend_from_slice(b"b"));
        assert_eq!(&frames.take()[..], b"\x81\x03a\nb");
        assert!(frames.is_empty());

        let half = vec![b'x'; FRAME_BYTES_MAX / 2 + 1];
        frames.line(|out| out.extend_from_slice(&half));
        frames.line(|out| out.extend_from_slice(&half));
        let bytes = frames.take();
        assert_eq!(bytes.len(), 2 * (half.len() + 10));
        assert!(!bytes.contains(&b'\n'));
        assert_eq!(&bytes[..], [text(&half), text(&half)].concat());
    }
}
