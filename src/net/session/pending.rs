//! The publishes of a turn that are checked and not handed over yet. Bounded by [`TURN_BYTES_MAX`] and the
//! commands of a turn.

use std::time::Instant;

use crate::limits::TURN_BYTES_MAX;
use crate::net::rates::Creation;
use crate::node::CheckedMessage;
use crate::protocol::code::ErrorCode;

/// Publishes that are checked and wait for the end of the turn.
#[derive(Debug, Default)]
pub(super) struct PendingPublishes {
    messages: Vec<CheckedMessage>,
    waiting: Vec<PendingAck>,
    bytes: usize,
}

/// The command that is answered when its message is committed.
#[derive(Debug)]
pub(super) struct PendingAck {
    pub(super) id: u32,
    pub(super) kind: AckKind,
    /// Whether the message may create its room.
    pub(super) creation: Creation,
    /// Time the command was taken.
    pub(super) since: Instant,
}

/// The form of an acknowledgement.
#[derive(Debug)]
pub(super) enum AckKind {
    /// The empty result of the publish command.
    Publish,
    /// The rpc method `publish` tells the position too.
    Rpc,
    /// No message: this error is told in its place among the acks.
    Refused(ErrorCode),
}

impl PendingAck {
    /// True when it stands for a message.
    pub(super) fn has_message(&self) -> bool {
        !matches!(self.kind, AckKind::Refused(_))
    }
}

impl PendingPublishes {
    /// True when they should be committed before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES_MAX
    }

    /// True when nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a message and the command it came by.
    pub(super) fn push(&mut self, message: CheckedMessage, waiting: PendingAck) {
        debug_assert!(message.is_stored(), "what is not stored waits for no commit");
        debug_assert!(waiting.id != 0, "a publish without an id could not be acknowledged");
        self.bytes += message.size_bytes();
        self.messages.push(message);
        self.waiting.push(waiting);
    }

    /// Adds a command that is refused, behind publishes that are answered before it.
    pub(super) fn push_refused(&mut self, id: u32, code: ErrorCode) {
        debug_assert!(!self.messages.is_empty(), "there is nothing to wait for");
        let (kind, creation) = (AckKind::Refused(code), Creation::Free);
        self.waiting.push(PendingAck { id, kind, creation, since: Instant::now() });
    }

    /// The messages, and the commands to answer, in the same order.
    pub(super) fn into_parts(self) -> (Vec<CheckedMessage>, Vec<PendingAck>) {
        debug_assert_eq!(
            self.messages.len(),
            self.waiting.iter().filter(|ack| ack.has_message()).count(),
            "every message has its command"
        );
        debug_assert!(!self.messages.is_empty() || self.bytes == 0, "bytes without a message");
        (self.messages, self.waiting)
    }
}
