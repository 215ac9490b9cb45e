//! The publish command, and the end of a turn, which commits its publishes together.

use std::time::Instant;

use super::Session;
use super::outcome::CommandError;
use super::pending::{AckKind, PendingAck};
use crate::ids::Seq;
use crate::node::{CheckedMessage, Draft, PublishError};
use crate::protocol::api::params::RpcPublishParams;
use crate::protocol::api::results::PublishResult;
use crate::protocol::command::PublishRequest;
use crate::protocol::reply;

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

    /// Checks a message; it is committed when the turn ends if it is stored, or else at once.
    fn publish_draft(&mut self, id: u32, kind: AckKind, draft: Draft) -> Result<(), CommandError> {
        let message = self.check_publish(draft)?;
        if message.is_stored() {
            self.publishes.push(message, PendingAck { id, kind, since: Instant::now() });
            return Ok(());
        }
        // Nothing to commit, but the order of a client's commands holds.
        self.flush_publishes();
        debug_assert!(self.publishes.is_empty(), "earlier publishes of this client were committed");
        for outcome in self.node.clone().commit(vec![message]) {
            debug_assert_eq!(outcome, Ok(0), "what is not stored has no position");
            self.acknowledge(id, &kind, outcome);
        }
        Ok(())
    }

    /// Checks a message in the name of this client, as it is known in the room.
    fn check_publish(&self, draft: Draft) -> Result<CheckedMessage, CommandError> {
        let (caller, info) = self.client()?.in_channel(&draft.channel);
        Ok(self.node.check_publish(caller, Draft { info: Some(info), ..draft })?)
    }

    /// Commits what is pending and acknowledges it.
    pub(super) fn flush_publishes(&mut self) {
        let (messages, waiting) = std::mem::take(&mut self.publishes).into_parts();
        if messages.is_empty() {
            return;
        }
        let outcomes = self.node.commit(messages);
        debug_assert_eq!(outcomes.len(), waiting.len(), "every publish of a turn is answered once");
        for (PendingAck { id, kind, since }, outcome) in waiting.into_iter().zip(outcomes) {
            self.node.metrics().publish_ack_seconds.observe(since.elapsed().as_secs_f64());
            self.acknowledge(id, &kind, outcome);
        }
    }

    fn acknowledge(&mut self, id: u32, kind: &AckKind, outcome: Result<Seq, PublishError>) {
        let offset = match outcome {
            Ok(seq) => seq,
            Err(error) => {
                let _ = self.fail(id, error.code());
                return;
            }
        };
        match kind {
            AckKind::Publish => self.reply(|out| reply::publish(out, id)),
            AckKind::Rpc => {
                let node = self.node.clone();
                let epoch = if offset == 0 { "" } else { node.epoch() };
                self.reply(|out| reply::rpc_result(out, id, &PublishResult { offset, epoch }));
            }
        }
    }
}
