//! The places of new rooms that publishes hold while they are on their way into the log.

use std::sync::Arc;
use std::time::Instant;

use super::pending::PendingAck;
use crate::ids::Seq;
use crate::net::client_rules::ClientRules;
use crate::net::rates::{Creation, Who};
use crate::node::PublishError;

/// The places of new rooms that the publishes of a session hold until they are stored.
pub(super) struct HeldRooms {
    rules: Arc<ClientRules>,
    who: Who,
}

impl HeldRooms {
    /// Those that this client holds.
    pub(super) fn new(rules: &Arc<ClientRules>, who: Who) -> Self {
        Self { rules: rules.clone(), who }
    }

    /// Gives those back that created no room: the first message of a room has the number 1.
    pub(super) fn settle(&self, acks: &[PendingAck], outcomes: &[Option<Result<Seq, PublishError>>]) {
        let is_unused = |(ack, outcome): &(&PendingAck, &Option<Result<Seq, PublishError>>)| {
            ack.creation == Creation::Held && **outcome != Some(Ok(1))
        };
        let unused = acks.iter().zip(outcomes).filter(is_unused).count();
        self.rules.rates.give_back_rooms(self.who, unused, Instant::now());
    }
}
