//! Nchan's `nchan_pubsub` location: one WebSocket publishes and subscribes. Its
//! publisher gets a line on the channel for each message, which is passed over: it
//! comes before the delivery and says nothing of it.

use super::{Dialect, Event, Outcome, delivery};

pub(crate) struct Nchan;

impl Dialect for Nchan {
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
