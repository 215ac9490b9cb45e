//! One thread walks the members: the sender's own (inline) or the shard's worker.

use super::choice::Outcome;
use crate::clock;
use crate::engine::members::Member;
use crate::outbox::Packet;

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
