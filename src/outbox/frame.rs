//! WebSocket frames as the server writes them: unmasked, never fragmented.
//!
//! A frame is encoded once and shared; what a listener costs is a reference count and a `send`.

use bytes::Bytes;

use crate::limits::{CLOSE_REASON_BYTES_MAX, FRAME_BYTES_MAX};
use crate::protocol::format::Format;
use crate::protocol::message::Message;

/// First byte of a final text frame (RFC 6455 §5.2).
const TEXT: u8 = 0x81;
/// First byte of a final binary frame.
const BINARY: u8 = 0x82;
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

/// One frame with one message.
#[must_use]
pub fn message(format: Format, message: &Message<'_>) -> Bytes {
    let mut payload = Vec::new();
    format.write(&mut payload, message);
    let mut frame = Vec::with_capacity(payload.len() + 10);
    put_frame(&mut frame, first_byte(format), &payload);
    Bytes::from(frame)
}

/// First byte of a frame of messages.
const fn first_byte(format: Format) -> u8 {
    if format.is_text() { TEXT } else { BINARY }
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

/// Joins messages into as few frames as [`FRAME_BYTES_MAX`] allows, all in one buffer, so that any
/// number of messages costs a listener one `send`.
#[derive(Debug, Default)]
pub struct Frames {
    format: Format,
    frames: Vec<u8>,
    /// Those of the last frame.
    messages: Vec<u8>,
}

impl Frames {
    /// No frame yet; messages are written in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, frames: Vec::new(), messages: Vec::new() }
    }

    /// From now on messages are written in this format.
    pub fn set_format(&mut self, format: Format) {
        debug_assert!(self.is_empty(), "messages of two formats share no frame");
        self.format = format;
    }

    /// Appends one message.
    pub fn add(&mut self, message: &Message<'_>) {
        let (start, separator) = (self.messages.len(), self.format.separator());
        if start > 0 {
            self.messages.extend_from_slice(separator);
        }
        self.format.write(&mut self.messages, message);
        if start > 0 && self.messages.len() > FRAME_BYTES_MAX {
            let last = self.messages.split_off(start + separator.len());
            self.messages.truncate(start);
            self.end_frame();
            self.messages = last;
        }
    }

    /// True when nothing was appended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.frames.is_empty()
    }

    /// Bytes appended so far, headers of the last frame not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len() + self.frames.len()
    }

    /// The finished frames; the builder is empty again and keeps the memory of its message buffer.
    pub fn take(&mut self) -> Bytes {
        self.end_frame();
        Bytes::from(std::mem::take(&mut self.frames))
    }

    fn end_frame(&mut self) {
        if !self.messages.is_empty() {
            self.frames.reserve_exact(self.messages.len() + 10);
            put_frame(&mut self.frames, first_byte(self.format), &self.messages);
            self.messages.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Channel;
    use crate::protocol::push::Push;
    use crate::protocol::reply::Reply;
    use crate::publication::Publication;

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
    fn messages_share_a_frame_until_it_is_full() {
        for format in Format::ALL {
            let mut frames = Frames::new(format);
            let ack = Message::Reply(7, Reply::Publish);
            frames.add(&ack);
            frames.add(&ack);
            let mut one = Vec::new();
            format.write(&mut one, &ack);
            let both = [&one, format.separator(), &one].concat();
            assert_eq!(&frames.take()[2..], both);
            assert!(frames.is_empty());

            let half = push_of(FRAME_BYTES_MAX / 2 + 1);
            let half = Message::Push(Push::Publication(&half));
            frames.add(&half);
            frames.add(&half);
            let alone = message(format, &half);
            assert_eq!(&frames.take()[..], [&alone[..], &alone[..]].concat());
        }
    }

    fn push_of(bytes: usize) -> Publication {
        Publication {
            channel: Channel::new("room").unwrap(),
            seq: 1,
            data: format!("\"{}\"", "x".repeat(bytes - 2)).into(),
            info: None,
            tags: None,
            created_at_ms: 0,
        }
    }
}
