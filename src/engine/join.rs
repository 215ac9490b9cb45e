//! A subscribe on its way: what was asked, and how the answer reaches the client.
//!
//! A join is made by [`Engine::join`](super::Engine::join), travels to the shard of its room and,
//! when the missed messages are not in memory, on to the catch-up pool. Whoever learns the outcome
//! answers, exactly once; the answer is in the outbox before anything else of the room.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::subscription::Subscription;
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::protocol::code::ErrorCode;
use crate::protocol::reply::{Reply, SubscribeResult};
use crate::publication::Publication;

/// Request of a client that returns.
#[derive(Debug, Clone)]
pub struct Recover {
    /// The last seq it saw; 0 = none.
    pub after: Seq,
    /// The epoch it saw it in; empty = any.
    pub epoch: String,
    /// The client may read the history it asks for.
    pub permitted: bool,
    /// Refuse with error 112 what cannot be recovered, instead of starting at the head.
    pub reject_unrecovered: bool,
}

/// The way on which the outcome of a join reaches its caller.
#[derive(Debug)]
pub enum Answer {
    /// As the reply to the subscribe command with this id.
    Reply(u32),
    /// Sent on a channel, and the connection woken; used by connect and by in-process subscribers.
    Collect(Sender<(Channel, Result<Joined, ErrorCode>)>),
}

/// Content of the answer that comes from the subscription token or the server.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Seconds until the subscription expires; `None` = never.
    pub ttl_seconds: Option<u32>,
    /// JSON for the client, compact.
    pub data: Option<Arc<str>>,
}

/// Start of a new subscription: its position and what was missed before.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Epoch and offset mean something; false in rooms that keep nothing.
    pub positioned: bool,
    /// Identity of the database.
    pub epoch: Arc<str>,
    /// The next publication pushed has this seq plus one, after those in `publications`.
    pub offset: Seq,
    /// Recovery was asked for.
    pub was_recovering: bool,
    /// Nothing was missed that is not in `publications` or pushed next.
    pub recovered: bool,
    /// Missed messages, oldest first.
    pub publications: Vec<Publication>,
    /// See [`Extra`].
    pub extra: Extra,
}

/// A subscribe that is not answered yet.
#[derive(Debug)]
pub(super) struct Join {
    pub(super) subscription: Arc<Subscription>,
    pub(super) recover: Option<Recover>,
    pub(super) answer: Answer,
    pub(super) extra: Extra,
    /// The log was asked for the head since this came: a position ahead of it is lost.
    pub(super) asked: bool,
}

impl Join {
    pub(super) fn channel(&self) -> &Channel {
        &self.subscription.channel
    }

    /// Tells the client that it is subscribed.
    pub(super) fn succeed(self, joined: Joined) {
        match self.answer {
            Answer::Collect(sender) => collect(&sender, &self.subscription, Ok(joined)),
            Answer::Reply(id) => {
                let result = joined.to_wire(&joined.publications);
                self.subscription.reply(id, Reply::Subscribe(&result));
            }
        }
    }

    /// Tells the client that it is not subscribed, and ends the subscription.
    pub(super) fn fail(self, code: ErrorCode, metrics: &Metrics) {
        metrics.errors_total.with_label_values(&[&code.number().to_string()]).inc();
        self.subscription.end();
        match self.answer {
            Answer::Collect(sender) => collect(&sender, &self.subscription, Err(code)),
            Answer::Reply(id) => self.subscription.reply(id, Reply::Error(code)),
        }
    }
}

/// Gives an outcome to whoever collects them: a program that waits, or a connection that is woken.
fn collect(
    sender: &Sender<(Channel, Result<Joined, ErrorCode>)>,
    subscription: &Subscription,
    outcome: Result<Joined, ErrorCode>,
) {
    // The connection that asked may be gone.
    let _ = sender.send((subscription.channel.clone(), outcome));
    subscription.outbox.wake_reader();
}

impl Joined {
    /// The first of the missed messages, as long as they fit `space`, which they take; and the others, which are
    /// to be pushed behind the reply.
    pub(crate) fn publications_within(&self, space: &mut usize) -> (&[Publication], &[Publication]) {
        let mut fitting = 0;
        for publication in &self.publications {
            let Some(left) = space.checked_sub(publication.wire_bytes()) else { break };
            (*space, fitting) = (left, fitting + 1);
        }
        self.publications.split_at(fitting)
    }

    /// The result as the protocol tells it, with these of the missed messages.
    #[must_use]
    pub fn to_wire<'a>(&'a self, publications: &'a [Publication]) -> SubscribeResult<'a> {
        SubscribeResult {
            ttl_seconds: self.extra.ttl_seconds,
            recoverable: self.positioned,
            positioned: self.positioned,
            epoch: if self.positioned { &self.epoch } else { "" },
            offset: self.offset,
            was_recovering: self.was_recovering,
            recovered: self.recovered,
            publications,
            data: self.extra.data.as_deref(),
        }
    }
}
