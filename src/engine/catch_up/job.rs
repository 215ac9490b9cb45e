//! One subscription on its way to the head of its room, and what one step does for it.

use std::sync::Arc;

use super::directory::{Cause, Directory, Entry};
use super::pages::PageCache;
use crate::engine::join::{Join, Joined};
use crate::engine::log::LogUnavailable;
use crate::engine::packing::{Receivers, pack};
use crate::engine::subscription::Subscription;
use crate::ids::{Channel, Seq};
use crate::outbox::frame::Frames;
use crate::outbox::{Packet, Push};
use crate::protocol::code::ErrorCode;
use crate::publication::{Publication, Retention};

/// Most bytes of publications put into an outbox at a time, so that a page never outgrows a small budget by
/// more than one message.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// One subscription on its way to the head of its room. Boxed wherever it is kept, because it moves
/// between queues, lists and commands all its life.
#[derive(Debug)]
pub(in crate::engine) struct Job {
    /// The subscription it is for, and the last seq the listener was given.
    entry: Entry,
    retention: Retention,
    /// The last seq it is to be given before it goes back to its room.
    until: Seq,
    /// A resume whose answer is still owed, with the epoch to answer.
    owed: Option<(Join, Arc<str>)>,
    keeper: Keeper,
    directory: Arc<Directory>,
}

/// The one owner of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeper {
    /// The shard of its room.
    Shard,
    /// The queue of the pool.
    Queue,
    /// A thread of the pool.
    Thread,
    /// The list of jobs whose outboxes are full.
    Parked,
    /// The list of jobs whose page could not be read.
    Failed,
}

impl Keeper {
    fn may_hand_to(self, next: Self) -> bool {
        match self {
            Self::Shard => matches!(next, Self::Queue | Self::Parked),
            Self::Queue => next == Self::Thread,
            Self::Thread => next != Self::Thread,
            Self::Parked | Self::Failed => next == Self::Queue,
        }
    }
}

impl Job {
    /// For a member whose outbox was full.
    pub(in crate::engine) fn for_member(
        subscription: &Arc<Subscription>,
        retention: Retention,
        (after, until): (Seq, Seq),
        directory: &Arc<Directory>,
    ) -> Self {
        debug_assert!(after < until, "a member was given everything already");
        Self {
            entry: Entry::new(directory, subscription, Cause::Slow, after),
            retention,
            until,
            owed: None,
            keeper: Keeper::Shard,
            directory: directory.clone(),
        }
    }

    /// For a resume that the tail cannot serve.
    pub(in crate::engine) fn for_join(
        join: Join,
        retention: Retention,
        (after, until): (Seq, Seq),
        epoch: Arc<str>,
        directory: &Arc<Directory>,
    ) -> Self {
        debug_assert!(after <= until, "a resume from beyond the room");
        Self {
            entry: Entry::new(directory, &join.subscription, Cause::Resume, after),
            retention,
            until,
            owed: Some((join, epoch)),
            keeper: Keeper::Shard,
            directory: directory.clone(),
        }
    }

    /// Notes that somebody else owns the job from now on.
    pub(super) fn hand_to(&mut self, next: Keeper) {
        debug_assert!(self.keeper.may_hand_to(next), "a job went from {:?} to {next:?}", self.keeper);
        self.keeper = next;
    }

    pub(in crate::engine) fn subscription(&self) -> &Arc<Subscription> {
        self.entry.subscription()
    }

    pub(in crate::engine) fn channel(&self) -> &Channel {
        &self.subscription().channel
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
        debug_assert!(until >= self.until, "a room does not go back");
        self.until = until;
    }

    /// Packs publications for the listener.
    pub(in crate::engine) fn pack<'a>(
        &self,
        publications: impl Iterator<Item = &'a Publication> + Clone,
    ) -> Packet {
        pack(publications, Receivers::only(&self.subscription().outbox), &mut Frames::default())
    }

    /// Gives the listener the publications that come next and end at `until`; false when its outbox
    /// has no capacity for them.
    pub(in crate::engine) fn deliver(&self, packet: &Packet, until: Seq) -> bool {
        debug_assert!(until > self.after(), "nothing to deliver");
        let delivered = self.subscription().outbox.deliver(packet) == Push::Accepted;
        if delivered {
            self.directory.metrics().deliveries_total.inc_by(until - self.after());
            self.entry.advance(until);
        }
        delivered
    }

    /// Gives the listener one page.
    pub(super) fn step(&mut self, pages: &PageCache) -> Next {
        debug_assert_eq!(self.keeper, Keeper::Thread, "only a thread of the pool steps a job");
        let outbox = &self.subscription().outbox;
        if outbox.ended().is_some() || !self.subscription().is_held() {
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
            (Ok(page), None) => self.deliver_page(&page),
            (Err(LogUnavailable(_)), Some((join, _))) => {
                join.fail(ErrorCode::Internal, self.directory.metrics());
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
            self.directory.metrics().recoveries_total.with_label_values(&["log"]).inc();
            joined.publications = first_chunk(page);
            self.entry.advance(joined.publications.last().map_or(after, |last| last.seq));
        } else {
            self.directory.metrics().recoveries_total.with_label_values(&["failed"]).inc();
            if join.recover.as_ref().is_some_and(|recover| recover.reject_unrecovered) {
                join.fail(ErrorCode::UnrecoverablePosition, self.directory.metrics());
                return Next::Left;
            }
            self.entry.advance(self.until);
            joined.offset = self.until;
        }
        join.succeed(joined);
        Next::Again
    }

    /// Gives the listener one page, as much of it as the outbox takes.
    fn deliver_page(&self, page: &[Publication]) -> Next {
        if page.first().is_none_or(|first| first.seq != self.after() + 1) {
            return Next::Lost;
        }
        let mut bytes = 0;
        let ends_chunk = |publication: &Publication| {
            bytes += publication.memory_bytes();
            let is_full = bytes >= CHUNK_BYTES_MAX;
            if is_full {
                bytes = 0;
            }
            is_full
        };
        for chunk in page.split_inclusive(ends_chunk) {
            if let Err(next) = self.deliver_while_held(chunk) {
                return next;
            }
        }
        Next::Again
    }

    /// Gives the listener publications unless the subscription has ended: reading the page took time, and
    /// nothing of a room may come behind the reply to its unsubscribe, least of all into the next
    /// subscription.
    fn deliver_while_held(&self, publications: &[Publication]) -> Result<(), Next> {
        let until = publications.last().map_or(self.after(), |last| last.seq);
        let packet = self.pack(publications.iter());
        let deliver = || self.deliver(&packet, until);
        match self.subscription().while_held(deliver) {
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
        bytes += publication.wire_bytes();
        bytes <= CHUNK_BYTES_MAX
    });
    let count = fits.count().max(1);
    page.truncate(count);
    page
}

impl Drop for Job {
    fn drop(&mut self) {
        // The answer comes even when the subscription ended meanwhile.
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

/// Next thing to do with a job after a step.
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
