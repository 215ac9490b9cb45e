//! One thread walks the members: the sender's own (inline) or the shard's worker.

use std::time::Duration;

use crate::clock;
use crate::engine::members::Member;
use crate::outbox::{Packet, Push};

/// Result of a fan-out over some members.
#[derive(Debug, Default)]
pub(in crate::engine) struct Outcome {
    /// Outboxes that took the packet.
    pub(in crate::engine) delivered: usize,
    /// Processor time of all threads together.
    pub(in crate::engine) work: Duration,
    /// Positions of members whose outboxes were full.
    pub(in crate::engine) full: Vec<usize>,
}

impl Outcome {
    fn deliver_to(&mut self, position: usize, member: &Member, packet: &Packet) {
        if !member.is_live() {
            return;
        }
        match member.outbox().deliver(packet) {
            Push::Accepted => self.delivered += 1,
            Push::Full => self.full.push(position),
            // Its own reader is already taking it out of the room.
            Push::Closed => {}
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.work += other.work;
        self.full.extend(other.full);
    }
}

/// Delivers the packet to every live member. `first` is the position of the slice's first member.
pub(in crate::engine) fn fan_out(members: &[Member], first: usize, packet: &Packet) -> Outcome {
    let started = clock::thread_time();
    let mut outcome = Outcome::default();
    for (offset, member) in members.iter().enumerate() {
        outcome.deliver_to(first + offset, member, packet);
    }
    outcome.work = clock::thread_time().saturating_sub(started);
    outcome
}
