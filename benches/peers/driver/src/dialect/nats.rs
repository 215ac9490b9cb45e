//! NATS over WebSocket: its text protocol as a stream of bytes, which frames may cut
//! anywhere.

use super::{Dialect, Event, Outcome, delivery, refused};
use crate::websocket::{BINARY, find};

pub(crate) struct Nats;

const CONNECT: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"echo":true,"#,
    r#""protocol":1,"lang":"rust","version":"1"}"#,
);

impl Dialect for Nats {
    fn path(&self, _: &str) -> String {
        "/".to_owned()
    }

    fn opcode(&self) -> u8 {
        BINARY
    }

    fn acks(&self) -> bool {
        false
    }

    fn opened(&self, room: &str, outcome: &mut Outcome) {
        // The server answers in order, so the PONG says that it has seen the SUB.
        outcome.reply(format!("{CONNECT}\r\nSUB {room} 1\r\nPING\r\n"));
    }

    fn received(&self, _: &str, kept: &mut Vec<u8>, frame: &[u8], outcome: &mut Outcome) {
        if kept.is_empty() {
            let used = consume(frame, outcome);
            kept.extend_from_slice(&frame[used..]);
        } else {
            kept.extend_from_slice(frame);
            let used = consume(kept, outcome);
            kept.drain(..used);
        }
    }

    fn publish(&self, room: &str, _: u32, data: &[u8], frame: &mut Vec<u8>) {
        frame.extend_from_slice(format!("PUB {room} {}\r\n", data.len()).as_bytes());
        frame.extend_from_slice(data);
        frame.extend_from_slice(b"\r\n");
    }
}

/// Takes the complete messages off the front and says how many bytes they were.
fn consume(bytes: &[u8], outcome: &mut Outcome) -> usize {
    let mut used = 0;
    while let Some(length) = message(&bytes[used..], outcome) {
        used += length;
    }
    used
}

/// One message and its length; none when its end has not come yet.
fn message(bytes: &[u8], outcome: &mut Outcome) -> Option<usize> {
    let end = find(bytes, b"\r\n")?;
    let line = &bytes[..end];
    if line.starts_with(b"MSG ") {
        // MSG subject sid [reply-to] length
        let length = line.rsplit(|byte| *byte == b' ').next()?;
        let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
        let payload = bytes.get(end + 2..end + 2 + length + 2)?;
        delivery(payload, outcome);
        return Some(end + 2 + length + 2);
    }
    match line {
        b"PING" => outcome.reply("PONG\r\n"),
        b"PONG" => outcome.event(Event::Ready),
        _ if line.starts_with(b"-ERR") => outcome.event(refused(line)),
        // INFO, and +OK if a server is verbose after all.
        _ => {}
    }
    Some(end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{Stamp, write};

    #[test]
    fn messages_are_found_wherever_frames_cut_them() {
        let stamp = Stamp { nanoseconds: 1, publisher: 2, number: 3 };
        let mut payload = Vec::new();
        write(&mut payload, stamp, 128);
        let text = [b"PONG\r\nMSG r0 1 128\r\n".as_slice(), &payload, b"\r\nPING\r\n"].concat();
        for cut in 0..=text.len() {
            let (mut kept, mut outcome) = (Vec::new(), Outcome::default());
            Nats.received("r0", &mut kept, &text[..cut], &mut outcome);
            Nats.received("r0", &mut kept, &text[cut..], &mut outcome);
            assert_eq!(outcome.events, [Event::Ready, Event::Delivery(stamp)], "cut at {cut}");
            assert_eq!((outcome.replies.len(), kept.len()), (1, 0), "cut at {cut}");
        }
    }
}
