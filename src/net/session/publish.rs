//! The publish command, and the end of a turn, which hands its publishes over together.

use std::time::Instant;

use super::Session;
use super::commits::{Submission, acknowledge};
use super::outcome::CommandError;
use super::pending::{AckKind, PendingAck};
use crate::net::rates::Creation;
use crate::node::{CheckedMessage, Draft};
use crate::protocol::api::params::RpcPublishParams;
use crate::protocol::command::PublishRequest;

impl Session {
    pub(super) fn publish(&mut self, id: u32, request: PublishRequest) -> Result<(), CommandError> {
        if let Some(code) = request.unsupported() {
            return Err(code.into());
        }
        let PublishRequest { channel, data, .. } = request;
        let draft = Draft { channel, data, info: None, tags: None, key: None, skip_history: false };
        self.publish_draft(id, AckKind::Publish, draft)
    }

    pub(super) fn rpc_publish(&mut self, id: u32, params: RpcPublishParams) -> Result<(), CommandError> {
        let RpcPublishParams { channel, data, key } = params;
        let draft = Draft { channel, data, info: None, tags: None, key, skip_history: false };
        self.publish_draft(id, AckKind::Rpc, draft)
    }

    /// Checks a message; it is handed over when the turn ends if it is stored, or else passed on at once.
    fn publish_draft(&mut self, id: u32, kind: AckKind, draft: Draft) -> Result<(), CommandError> {
        let since = Instant::now();
        self.count_attempt()?;
        let mut message = self.check_publish(draft)?;
        self.count_publish(&message)?;
        let creation = match message.may_create() {
            true => self.rules.rates.hold_room(self.who, since),
            false => Creation::Free,
        };
        if creation == Creation::Denied {
            message.deny_creation();
        }
        let ack = PendingAck { id, kind, creation, since };
        if message.is_stored() {
            self.publishes.push(message, ack);
            return Ok(());
        }
        for outcome in self.node.clone().commit(vec![message]) {
            debug_assert_eq!(outcome, Ok(0), "what is not stored has no position");
            acknowledge(&mut self.replies, &ack, outcome, &self.node);
        }
        Ok(())
    }

    /// Checks a message in the name of this client, as it is known in the room.
    fn check_publish(&mut self, draft: Draft) -> Result<CheckedMessage, CommandError> {
        let caller = self.caller(&draft.channel);
        let _slot = self.slot_if(self.node.publish_asks(caller, &draft.channel))?;
        let (caller, info) = self.client()?.in_channel(&draft.channel);
        Ok(self.node.check_publish(caller, Draft { info: Some(info), ..draft })?)
    }

    /// Hands over what is pending. The work that is left, if any, is for a thread that may wait.
    pub(super) fn hand_over(&mut self) {
        if self.publishes.is_empty() {
            return;
        }
        let (messages, acks) = std::mem::take(&mut self.publishes).into_parts();
        let bytes = messages.iter().map(CheckedMessage::size_bytes).sum();
        let indices = acks.iter().enumerate().filter(|(_, ack)| ack.has_message()).map(|(index, _)| index);
        let lanes = self.by_lane(messages.into_iter().zip(indices.collect::<Vec<_>>()));
        let held = self.held_rooms();
        let submission =
            Submission::new(&self.node, &self.outbox, &self.in_flight, (acks, held), bytes, lanes.len());
        let since = self.waits_since();
        for (lane, messages, indices) in lanes {
            self.work.extend(self.node.commit_and_go(lane, messages, submission.part(indices), since));
        }
    }

    /// Messages with the indices of their acks, sorted by commit lane.
    fn by_lane(
        &self,
        messages: impl Iterator<Item = (CheckedMessage, usize)>,
    ) -> Vec<(usize, Vec<CheckedMessage>, Vec<usize>)> {
        let mut lanes: Vec<(usize, Vec<_>, Vec<_>)> = Vec::with_capacity(1);
        for (message, index) in messages {
            let lane = self.node.lane_of(&message);
            let at = lanes.iter().position(|(known, ..)| *known == lane).unwrap_or(lanes.len());
            if at == lanes.len() {
                lanes.push((lane, Vec::new(), Vec::new()));
            }
            lanes[at].1.push(message);
            lanes[at].2.push(index);
        }
        lanes
    }
}
