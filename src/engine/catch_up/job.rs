//! One subscription on its way to the head of its room, and what one step does for it.

use std::sync::Arc;

use bytes::Bytes;

use super::directory::{Cause, Entry};
use super::pages::PageCache;
use super::pool::CatchUp;
use crate::engine::join::{Join, Joined};
use crate::engine::listener::Listener;
use crate::engine::log::LogUnavailable;
use crate::engine::members::Member;
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::metrics::Metrics;
use crate::outbox::Push;
use crate::outbox::frame::LineFrames;
use crate::protocol::code::ErrorCode;
use crate::protocol::push;
use crate::publication::{Publication, Retention};

/// Most payload bytes put into an outbox at a time, so that a page never outgrows a small budget by
/// more than one message.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// One subscription on its way to the head of its room. Boxed wherever it is kept, because it moves
/// between queues, lists and commands all its life.
#[derive(Debug)]
pub(in crate::engine) struct Job {
    /// Who it is for, and the last seq the listener was given.
    entry: Entry,
    subscription: SubscriptionId,
    retention: Retention,
    /// The last seq it is to be given before it goes back to its room.
    until: Seq,
    /// A resume whose answer is still owed, with the epoch to answer.
    owed: Option<(Join, Arc<str>)>,
    metrics: Arc<Metrics>,
}

impl Job {
    /// For a member whose outbox was full.
    pub(in crate::engine) fn for_member(
        channel: &Channel,
        retention: Retention,
        member: &Member,
        (after, until): (Seq, Seq),
        catch_up: &CatchUp,
    ) -> Self {
        let listening = (&member.listener, channel);
        Self {
            entry: catch_up.enter(member.subscription, listening, Cause::Slow, after),
            subscription: member.subscription,
            retention,
            until,
            owed: None,
            metrics: catch_up.0.metrics.clone(),
        }
    }

    /// For a resume that the tail can not serve.
    pub(in crate::engine) fn for_join(
        join: Join,
        retention: Retention,
        (after, until): (Seq, Seq),
        epoch: Arc<str>,
        catch_up: &CatchUp,
    ) -> Self {
        let listening = (&join.listener, &join.channel);
        Self {
            entry: catch_up.enter(join.subscription, listening, Cause::Resume, after),
            subscription: join.subscription,
            retention,
            until,
            owed: Some((join, epoch)),
            metrics: catch_up.0.metrics.clone(),
        }
    }

    pub(super) fn listener(&self) -> &Arc<Listener> {
        self.entry.listener()
    }

    pub(in crate::engine) fn connection(&self) -> ConnectionId {
        self.listener().id()
    }

    pub(in crate::engine) fn channel(&self) -> &Channel {
        self.entry.channel()
    }

    pub(in crate::engine) fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    /// The last seq the listener was given.
    pub(in crate::engine) fn after(&self) -> Seq {
        self.entry.after()
    }

    /// True when it began as a resume: the listener was never announced to the room.
    pub(in crate::engine) fn is_resuming(&self) -> bool {
        self.entry.cause() == Cause::Resume
    }

    /// The room went on: now the listener is to be given everything up to here.
    pub(super) fn aim_at(&mut self, until: Seq) {
        self.until = until;
    }

    /// Pushes frames that end at `until`; false when the outbox has no room for them.
    pub(in crate::engine) fn push_all(&self, frames: &Bytes, until: Seq) -> bool {
        let pushed = self.listener().outbox.push(frames) == Push::Accepted;
        if pushed {
            self.metrics.deliveries_total.inc_by(until - self.after());
            self.entry.advance(until);
        }
        pushed
    }

    /// Gives the listener one page.
    pub(super) fn step(&mut self, pages: &PageCache) -> Next {
        let outbox = &self.listener().outbox;
        if outbox.ended().is_some() || !self.listener().holds(self.channel(), self.subscription) {
            return Next::Left;
        }
        if self.is_done() {
            return Next::Done;
        }
        if !outbox.has_capacity() {
            return Next::Full;
        }
        let page = pages.page(self.channel(), self.after(), self.until, self.retention);
        let next = match (page, self.owed.take()) {
            (Ok(page), Some((join, epoch))) => self.answer(page, join, epoch),
            (Ok(page), None) => self.push_page(&page),
            (Err(LogUnavailable(_)), Some((join, _))) => {
                join.fail(ErrorCode::Internal, &self.metrics);
                Next::Left
            }
            (Err(LogUnavailable(_)), None) => Next::Failed,
        };
        match next {
            Next::Again if self.is_done() => Next::Done,
            next => next,
        }
    }

    fn is_done(&self) -> bool {
        self.after() >= self.until && self.owed.is_none()
    }

    /// Answers the subscribe with the first page of what was missed.
    fn answer(&self, page: Vec<Publication>, join: Join, epoch: Arc<str>) -> Next {
        let after = self.after();
        let complete = page.first().map_or(after == self.until, |first| first.seq == after + 1);
        let mut joined = Joined {
            positioned: true,
            epoch,
            offset: after,
            was_recovering: true,
            recovered: complete,
            publications: Vec::new(),
            extra: join.extra.clone(),
        };
        if complete {
            self.metrics.recoveries_total.with_label_values(&["log"]).inc();
            joined.publications = first_chunk(page);
            self.entry.advance(joined.publications.last().map_or(after, |last| last.seq));
        } else {
            self.metrics.recoveries_total.with_label_values(&["failed"]).inc();
            if join.recover.as_ref().is_some_and(|recover| recover.reject_unrecovered) {
                join.fail(ErrorCode::UnrecoverablePosition, &self.metrics);
                return Next::Left;
            }
            self.entry.advance(self.until);
            joined.offset = self.until;
        }
        join.succeed(joined);
        Next::Again
    }

    /// Pushes one page, as much of it as the outbox takes.
    fn push_page(&self, page: &[Publication]) -> Next {
        let after = self.after();
        if page.first().is_none_or(|first| first.seq != after + 1) {
            return Next::Lost;
        }
        let mut frames = LineFrames::default();
        let mut until = after;
        for publication in page {
            frames.line(|out| push::publication(out, publication));
            until = publication.seq;
            if frames.len() >= CHUNK_BYTES_MAX
                && let Err(next) = self.push_while_held(&frames.take(), until)
            {
                return next;
            }
        }
        if !frames.is_empty()
            && let Err(next) = self.push_while_held(&frames.take(), until)
        {
            return next;
        }
        Next::Again
    }

    /// Pushes frames unless the subscription has ended: reading the page took time, and nothing of a
    /// room may come behind the reply to its unsubscribe, least of all into the next subscription.
    fn push_while_held(&self, frames: &Bytes, until: Seq) -> Result<(), Next> {
        let push = || self.push_all(frames, until);
        match self.listener().while_holding(self.channel(), self.subscription, push) {
            Some(true) => Ok(()),
            Some(false) => Err(Next::Full),
            None => Err(Next::Left),
        }
    }
}

/// The front of a page that fits the answer to a subscribe; the rest is pushed.
fn first_chunk(mut page: Vec<Publication>) -> Vec<Publication> {
    let mut bytes = 0;
    let fits = page.iter().take_while(|publication| {
        bytes += publication.data.len();
        bytes <= CHUNK_BYTES_MAX
    });
    let count = fits.count().max(1);
    page.truncate(count);
    page
}

impl Drop for Job {
    fn drop(&mut self) {
        // Whoever asked gets an answer even when the subscription ended meanwhile.
        if let Some((join, epoch)) = self.owed.take() {
            let extra = join.extra.clone();
            join.succeed(Joined {
                positioned: true,
                epoch,
                offset: self.until,
                was_recovering: true,
                recovered: false,
                publications: Vec::new(),
                extra,
            });
        }
    }
}

/// What is to be done with a job after a step.
pub(super) enum Next {
    /// Nothing: the listener was given everything up to the target.
    Done,
    /// Another step.
    Again,
    /// The outbox is full.
    Full,
    /// The log could not be read.
    Failed,
    /// Messages are missing in the log.
    Lost,
    /// The subscription is over.
    Left,
}
