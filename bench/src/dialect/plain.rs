//! The bare chat room over WebSocket, and Nchan's `nchan_pubsub` location: the path names the room, and what
//! is sent goes as it is to everybody in it, the sender too. Nchan also tells the sender of each message how
//! many it reaches; that comes before the delivery, says nothing of it, and is passed over.

use super::interface::{ClientState, Decoded, Dialect, Event, Joined};
use crate::payload;

/// The dialect; it has no state.
#[derive(Debug)]
pub(super) struct Plain(payload::Reader);

impl Plain {
    pub(super) fn new() -> Self {
        Self(payload::Reader::new())
    }
}

impl Dialect for Plain {
    fn path(&self, client: &ClientState<'_>) -> String {
        format!("/room/{}", client.room.unwrap_or_default())
    }

    fn acknowledges(&self) -> bool {
        false
    }

    fn opened(&self, _: &ClientState<'_>, decoded: &mut Decoded) {
        decoded.event(Event::Ready(Joined::default()));
    }

    fn received(&self, _: &ClientState<'_>, _: &mut Vec<u8>, message: &[u8], decoded: &mut Decoded) {
        if let Some(stamp) = self.0.read(message) {
            decoded.event(Event::Delivery { offset: None, stamp: Some(stamp) });
        }
    }

    fn publish(&self, out: &mut Vec<u8>, _: u64, _: &str, payload: &[u8]) {
        out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Stamp;

    #[test]
    fn the_path_is_the_room_and_the_payload_the_message() {
        let dialect = Plain::new();
        let client = ClientState { room: Some("r-0"), position: None };
        assert_eq!(dialect.path(&client), "/room/r-0");
        let mut decoded = Decoded::default();
        dialect.opened(&client, &mut decoded);
        let (stamp, mut payload, mut out) =
            (Stamp { due_ns: 1, publisher: 2, number: 3 }, Vec::new(), Vec::new());
        payload::write(&mut payload, stamp, 128);
        dialect.publish(&mut out, 6, "r-0", &payload);
        assert_eq!(out, payload);
        for message in [b"queued messages: 1\r\nlast requested: 0 sec. ago".as_slice(), &out] {
            dialect.received(&client, &mut Vec::new(), message, &mut decoded);
        }
        let delivery = Event::Delivery { offset: None, stamp: Some(stamp) };
        assert_eq!(decoded.events, [Event::Ready(Joined::default()), delivery]);
        assert!(decoded.replies.is_empty());
    }
}
