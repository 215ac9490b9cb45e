//! The bare chat room over WebSocket, as the servers on npm ws and axum here have it:
//! the path names the room, and what is sent goes to everybody in it, the sender too.

use super::{Dialect, Event, Outcome, delivery};

pub(crate) struct Plain;

impl Dialect for Plain {
    fn path(&self, room: &str) -> String {
        format!("/room/{room}")
    }

    fn acks(&self) -> bool {
        false
    }

    fn opened(&self, _: &str, outcome: &mut Outcome) {
        outcome.event(Event::Ready);
    }

    fn received(&self, _: &str, _: &mut Vec<u8>, frame: &[u8], outcome: &mut Outcome) {
        delivery(frame, outcome);
    }

    fn publish(&self, _: &str, _: u32, data: &[u8], frame: &mut Vec<u8>) {
        frame.extend_from_slice(data);
    }
}
