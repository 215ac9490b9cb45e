//! NATS over WebSocket: its text protocol as a stream of bytes, which frames may cut anywhere.

use std::io::Write;

use memchr::memmem;

use super::interface::{ClientState, Decoded, Dialect, Event, Joined};
use crate::payload;
use crate::websocket::BINARY;

const CONNECT: &str = r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"echo":true,"protocol":1,"lang":"rust","version":"1"}"#;

/// The dialect; what a connection has not decoded, the connection keeps.
#[derive(Debug)]
pub(super) struct Nats(payload::Reader);

impl Nats {
    pub(super) fn new() -> Self {
        Self(payload::Reader::new())
    }

    /// Takes the complete messages off the front; returns how many bytes they were.
    fn take(&self, bytes: &[u8], decoded: &mut Decoded) -> usize {
        let mut used = 0;
        while let Some(length) = self.take_one(&bytes[used..], decoded) {
            used += length;
        }
        used
    }

    /// One message and its length; `None` until its end is there.
    fn take_one(&self, bytes: &[u8], decoded: &mut Decoded) -> Option<usize> {
        let line = &bytes[..memmem::find(bytes, b"\r\n")?];
        let length = line.len() + 2;
        if line.starts_with(b"MSG ") {
            // MSG subject sid [reply-to] length
            let Some(payload_length) = last_number(line) else {
                decoded.event(refused(line));
                return Some(length);
            };
            let end = length.checked_add(payload_length)?.checked_add(2)?;
            let payload = bytes.get(length..end)?;
            decoded.event(Event::Delivery { offset: None, stamp: self.0.read(payload) });
            return Some(end);
        }
        match line {
            b"PING" => decoded.reply("PONG\r\n"),
            b"PONG" => decoded.event(Event::Ready(Joined::default())),
            _ if line.starts_with(b"-ERR") => decoded.event(refused(line)),
            // INFO, and +OK if a server is verbose after all.
            _ => {}
        }
        Some(length)
    }
}

impl Dialect for Nats {
    fn path(&self, _: &ClientState<'_>) -> String {
        "/".to_owned()
    }

    fn opcode(&self) -> u8 {
        BINARY
    }

    fn acknowledges(&self) -> bool {
        false
    }

    fn opened(&self, client: &ClientState<'_>, decoded: &mut Decoded) {
        // The server answers in order, so the PONG says that it has seen the SUB.
        decoded.reply(format!("{CONNECT}\r\nSUB {} 1\r\nPING\r\n", client.room.unwrap_or_default()));
    }

    fn received(&self, _: &ClientState<'_>, undecoded: &mut Vec<u8>, message: &[u8], decoded: &mut Decoded) {
        if undecoded.is_empty() {
            let used = self.take(message, decoded);
            undecoded.extend_from_slice(&message[used..]);
        } else {
            undecoded.extend_from_slice(message);
            let used = self.take(undecoded, decoded);
            undecoded.drain(..used);
        }
    }

    fn publish(&self, out: &mut Vec<u8>, _: u64, room: &str, payload: &[u8]) {
        // Writing to a Vec does not fail.
        let _ = write!(out, "PUB {room} {}\r\n", payload.len());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }
}

fn last_number(line: &[u8]) -> Option<usize> {
    let word = line.rsplit(|byte| *byte == b' ').next()?;
    str::from_utf8(word).ok()?.parse().ok()
}

fn refused(line: &[u8]) -> Event {
    Event::Refused(format!("the server said: {}", String::from_utf8_lossy(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Stamp;

    const CLIENT: ClientState<'_> = ClientState { room: Some("r0"), position: None };

    #[test]
    fn a_listener_is_ready_when_its_subscription_was_seen() {
        let (dialect, mut decoded) = (Nats::new(), Decoded::default());
        dialect.opened(&CLIENT, &mut decoded);
        let sent = String::from_utf8(decoded.replies.remove(0)).unwrap();
        assert!(sent.starts_with("CONNECT {") && sent.ends_with("}\r\nSUB r0 1\r\nPING\r\n"), "{sent}");
        let refused = Event::Refused("the server said: -ERR 'no'".to_owned());
        for (line, events, replies) in [
            ("INFO {}\r\n", vec![], 0),
            ("+OK\r\n", vec![], 0),
            ("PING\r\n", vec![], 1),
            ("PONG\r\n", vec![Event::Ready(Joined::default())], 0),
            ("-ERR 'no'\r\n", vec![refused], 0),
            ("MSG r0 1 7\r\nforeign\r\n", vec![Event::Delivery { offset: None, stamp: None }], 0),
            ("MSG r0 1 x\r\n", vec![Event::Refused("the server said: MSG r0 1 x".to_owned())], 0),
        ] {
            let mut decoded = Decoded::default();
            dialect.received(&CLIENT, &mut Vec::new(), line.as_bytes(), &mut decoded);
            assert_eq!((decoded.events, decoded.replies.len()), (events, replies), "{line}");
        }
    }

    #[test]
    fn messages_are_found_wherever_frames_cut_them() {
        let (stamp, mut payload, mut published) =
            (Stamp { due_ns: 1, publisher: 2, number: 3 }, Vec::new(), Vec::new());
        payload::write(&mut payload, stamp, 128);
        let dialect = Nats::new();
        dialect.publish(&mut published, 5, "r0", &payload);
        assert_eq!(published, [b"PUB r0 128\r\n", &payload[..], b"\r\n"].concat());
        let text = [b"PONG\r\nMSG r0 1 128\r\n".as_slice(), &payload, b"\r\nPING\r\n"].concat();
        for size in 1..=text.len() {
            let (mut undecoded, mut decoded) = (Vec::new(), Decoded::default());
            for part in text.chunks(size) {
                dialect.received(&CLIENT, &mut undecoded, part, &mut decoded);
            }
            let delivery = Event::Delivery { offset: None, stamp: Some(stamp) };
            assert_eq!(decoded.events, [Event::Ready(Joined::default()), delivery], "in parts of {size}");
            assert_eq!((decoded.replies.len(), undecoded.len()), (1, 0), "in parts of {size}");
        }
    }
}
