//! Socket.IO 4 (protocol 5 on Engine.IO 4), over its WebSocket transport from the start. A text message is
//! an Engine.IO packet by its first digit, and a Socket.IO packet by the second: `0` open, `2` ping, `3`
//! pong, `40` connect, `42` event, `43` acknowledgement. Events are those of `benches/peers/node/socketio.mjs`.

use std::io::Write;

use super::interface::{ClientState, Decoded, Dialect, Event, Joined};
use crate::payload;

/// Acknowledgement number of the join; publishes have later ones.
const JOIN_ID: u64 = 0;

/// Characters of a message that a person gets to see.
const SHOWN_MAX: usize = 200;

/// The dialect; it has no state.
#[derive(Debug)]
pub(super) struct SocketIo(payload::Reader);

impl SocketIo {
    pub(super) fn new() -> Self {
        Self(payload::Reader::new())
    }
}

impl Dialect for SocketIo {
    fn path(&self, _: &ClientState<'_>) -> String {
        "/socket.io/?EIO=4&transport=websocket".to_owned()
    }

    fn acknowledges(&self) -> bool {
        true
    }

    /// The server speaks first.
    fn opened(&self, _: &ClientState<'_>, _: &mut Decoded) {}

    fn received(&self, client: &ClientState<'_>, _: &mut Vec<u8>, message: &[u8], decoded: &mut Decoded) {
        match message {
            [b'4', b'2', event @ ..] => {
                decoded.event(Event::Delivery { offset: None, stamp: self.0.read(event) });
            }
            [b'4', b'3', answer @ ..] => decoded.event(match payload::number(answer) {
                Some((JOIN_ID, _)) => Event::Ready(Joined::default()),
                Some((id, _)) => Event::Ack { id, error: None },
                None => refused(message),
            }),
            [b'4', b'0', ..] => {
                let room = client.room.unwrap_or_default();
                decoded.reply(format!(r#"42{JOIN_ID}["join","{room}"]"#));
            }
            [b'0', ..] => decoded.reply("40"),
            [b'2', ..] => decoded.reply("3"),
            _ => decoded.event(refused(message)),
        }
    }

    fn publish(&self, out: &mut Vec<u8>, id: u64, room: &str, payload: &[u8]) {
        // Writing to a Vec does not fail.
        let _ = write!(out, r#"42{id}["m","{room}","#);
        out.extend_from_slice(payload);
        out.push(b']');
    }
}

fn refused(message: &[u8]) -> Event {
    let shown = String::from_utf8_lossy(&message[..message.len().min(SHOWN_MAX)]);
    Event::Refused(format!("the server said: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Stamp;

    const CLIENT: ClientState<'_> = ClientState { room: Some("r0"), position: None };

    #[test]
    fn packets_are_told_apart_and_answered() {
        let ready = || Event::Ready(Joined::default());
        let refused = |text: &str| Event::Refused(format!("the server said: {text}"));
        let foreign = Event::Delivery { offset: None, stamp: None };
        for (packet, events, replies) in [
            (r#"0{"sid":"a","pingInterval":25000}"#, vec![], vec!["40"]),
            (r#"40{"sid":"b"}"#, vec![], vec![r#"420["join","r0"]"#]),
            ("430[]", vec![ready()], vec![]),
            ("2", vec![], vec!["3"]),
            ("433[]", vec![Event::Ack { id: 3, error: None }], vec![]),
            ("4312[]", vec![Event::Ack { id: 12, error: None }], vec![]),
            (r#"42["m","hello"]"#, vec![foreign], vec![]),
            (r#"44{"message":"no"}"#, vec![refused(r#"44{"message":"no"}"#)], vec![]),
            ("41", vec![refused("41")], vec![]),
            ("43[]", vec![refused("43[]")], vec![]),
            ("", vec![refused("")], vec![]),
        ] {
            let mut decoded = Decoded::default();
            SocketIo::new().received(&CLIENT, &mut Vec::new(), packet.as_bytes(), &mut decoded);
            let said: Vec<_> = decoded.replies.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
            assert_eq!(
                (decoded.events, said),
                (events, replies.into_iter().map(Into::into).collect()),
                "{packet}"
            );
        }
    }

    #[test]
    fn a_published_event_is_read_back() {
        let (stamp, mut payload, mut out) =
            (Stamp { due_ns: 1, publisher: 2, number: 3 }, Vec::new(), Vec::new());
        payload::write(&mut payload, stamp, 128);
        let dialect = SocketIo::new();
        dialect.publish(&mut out, 6, "r0", &payload);
        assert_eq!(out, [br#"426["m","r0","#.as_slice(), &payload, b"]"].concat());
        let event = [br#"42["m","#.as_slice(), &payload, b"]"].concat();
        let mut decoded = Decoded::default();
        dialect.received(&CLIENT, &mut Vec::new(), &event, &mut decoded);
        assert_eq!(decoded.events, [Event::Delivery { offset: None, stamp: Some(stamp) }]);
    }
}
