//! Socket.IO 4 (protocol 5 on Engine.IO 4), over its WebSocket transport from the
//! start. A text frame is an Engine.IO packet by its first digit, and a Socket.IO
//! packet by the second: `0` open, `2` ping, `3` pong, `40` connect, `42` event, `43`
//! acknowledgement.

use super::{Dialect, Event, Outcome, delivery, refused};

pub(crate) struct SocketIo;

/// Acknowledgement number of the join; publications have those from 1.
const JOIN: u32 = 0;

impl Dialect for SocketIo {
    fn path(&self, _: &str) -> String {
        "/socket.io/?EIO=4&transport=websocket".to_owned()
    }

    fn acks(&self) -> bool {
        true
    }

    fn opened(&self, _: &str, _: &mut Outcome) {}

    fn received(&self, room: &str, _: &mut Vec<u8>, frame: &[u8], outcome: &mut Outcome) {
        match frame {
            [b'4', b'2', ..] => delivery(frame, outcome),
            [b'4', b'3', digits @ ..] if digits.starts_with(b"0[") => outcome.event(Event::Ready),
            [b'4', b'3', ..] => outcome.event(Event::Ack),
            [b'4', b'0', ..] => outcome.reply(format!(r#"42{JOIN}["join","{room}"]"#)),
            [b'0', ..] => outcome.reply("40"),
            [b'2', ..] => outcome.reply("3"),
            _ => outcome.event(refused(frame)),
        }
    }

    fn publish(&self, room: &str, number: u32, data: &[u8], frame: &mut Vec<u8>) {
        let acknowledgement = number + 1;
        frame.extend_from_slice(format!(r#"42{acknowledgement}["m","{room}","#).as_bytes());
        frame.extend_from_slice(data);
        frame.push(b']');
    }
}
