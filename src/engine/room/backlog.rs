//! What a room has and its live members have not: how far each step of a message has come, what waits
//! to be sent, and the tail that quick resumes are served from.
//!
//! `delivered ≤ queued ≤ head`: every live member was given the messages up to `delivered`; those
//! after it, up to `queued`, are in `pending` or in the fan-out under way; those after that did not
//! fit and are taken from the tail, or else from the log, when it is their turn. Nobody else moves
//! these positions.

use std::time::Instant;

use crate::engine::catch_up::lookups::ReadHead;
use crate::engine::packing::{Receivers, pack};
use crate::engine::tail::Tail;
use crate::ids::Seq;
use crate::limits::TURN_BYTES_MAX;
use crate::outbox::Packet;
use crate::outbox::frame::Frames;
use crate::publication::Publication;

/// Publications that a room without pending ones keeps memory for.
const PENDING_KEPT: usize = 16;

/// Positions of a room, its unsent publications and its tail.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Messages are kept and numbered; otherwise all positions stay 0.
    persistent: bool,
    /// Seq of the newest message known; `None` until it is known.
    head: Option<Seq>,
    /// The newest head that was read from the log, if one was.
    read: Option<ReadHead>,
    queued: Seq,
    delivered: Seq,
    /// Publications that no live member was given yet; packed when it is their turn.
    pending: Vec<Publication>,
    /// Memory they take.
    pending_bytes: usize,
    /// Commit time of the first of them.
    pending_since: Option<Instant>,
    /// Used for packing, empty otherwise.
    frames: Frames,
    tail: Tail,
}

/// The publications one fan-out sends.
#[derive(Debug)]
pub(super) struct Batch {
    /// `None`: the messages are only in the log, and every live member is to be served from there.
    pub(super) packet: Option<Packet>,
    pub(super) publications: u64,
    /// Commit time of the first of them.
    pub(super) since: Option<Instant>,
    /// `delivered` before and after.
    pub(super) after: Seq,
    pub(super) until: Seq,
}

/// The place of a publication in its room, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind all that the room knows of.
    Next,
    /// The head was read from the log after the commit and before the publication came: it is counted there.
    Read,
    /// The room has had another message of that number, or the log had one before the commit began.
    Taken,
}

/// Outcome of taking in a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It waits to be sent, or the tail or the log has it until then.
    Yes,
    /// It is kept nowhere and did not fit what is sent next.
    Dropped,
}

impl Backlog {
    pub(super) fn new(persistent: bool) -> Self {
        Self {
            persistent,
            head: (!persistent).then_some(0),
            read: None,
            queued: 0,
            delivered: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            pending_since: None,
            frames: Frames::default(),
            tail: Tail::default(),
        }
    }

    pub(super) fn head(&self) -> Option<Seq> {
        self.head
    }

    pub(super) fn delivered(&self) -> Seq {
        self.delivered
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Gives back what a quiet room does not need.
    pub(super) fn drop_tail(&mut self) {
        self.tail.clear();
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// True when there is something to send: pending, or newer than what is pending.
    pub(super) fn is_behind(&self) -> bool {
        self.has_pending() || self.head.is_some_and(|head| self.queued < head)
    }

    /// Makes the head known that was read from the log. Messages that live members have not been given come
    /// from there.
    pub(super) fn know_read_head(&mut self, read: ReadHead) {
        match self.head {
            None => self.know_head(read.seq),
            Some(head) => self.head = Some(head.max(read.seq)),
        }
        // Answers may come in another order than they were read in.
        if self.read.is_none_or(|before| before.seq <= read.seq) {
            self.read = Some(read);
        }
        self.assert_consistent();
    }

    /// Makes the head of a room known that had none: nothing before it is owed to a live member.
    pub(super) fn know_head(&mut self, head: Seq) {
        debug_assert!(self.head.is_none() && self.persistent, "the head of a room becomes known once");
        debug_assert!(!self.has_pending(), "nothing is queued before the head is known");
        self.head = Some(head);
        self.queued = head;
        self.delivered = head;
        self.assert_consistent();
    }

    /// Moves a known head to `before` when messages up to there were committed but never handed over:
    /// they are in the log, and the room takes them from there. The head before that, if it was so.
    pub(super) fn skip_hole(&mut self, before: Seq) -> Option<Seq> {
        let head = self.head.filter(|head| self.persistent && *head < before)?;
        self.head = Some(before);
        Some(head)
    }

    /// The place of a publication whose commit began not before `begun`.
    pub(super) fn place(&self, publication: &Publication, begun: Instant) -> Place {
        let seq = publication.seq;
        if !self.persistent || self.head.is_none_or(|head| seq > head) {
            Place::Next
        } else if self.read.is_some_and(|read| seq <= read.seq && begun <= read.at) {
            Place::Read
        } else {
            Place::Taken
        }
    }

    /// Takes the next publication in. With `nobody_listens` there is nobody to send it to, now or later.
    pub(super) fn push(&mut self, publication: Publication, at: Instant, nobody_listens: bool) -> Accepted {
        if self.persistent {
            debug_assert_eq!(self.head.map(|head| head + 1), Some(publication.seq), "the head is dense");
            self.head = Some(publication.seq);
        }
        let mut accepted = Accepted::Yes;
        if nobody_listens && !self.has_pending() {
            self.queued = self.head.unwrap_or_default();
            self.delivered = self.queued;
        } else {
            accepted = self.queue_next(&publication);
            self.pending_since.get_or_insert(at);
        }
        if self.persistent {
            self.tail.push(publication);
        }
        self.assert_consistent();
        accepted
    }

    /// Queues a publication if it follows what is queued and fits. What waits behind a fan-out is
    /// bounded, so that a huge room need not hurry and can yield to the others.
    fn queue_next(&mut self, publication: &Publication) -> Accepted {
        match (self.persistent, self.fits()) {
            (false, false) => return Accepted::Dropped,
            (false, true) => self.queue(publication.clone()),
            (true, true) if publication.seq == self.queued + 1 => self.queue(publication.clone()),
            (true, _) => {}
        }
        Accepted::Yes
    }

    fn fits(&self) -> bool {
        self.pending_bytes <= TURN_BYTES_MAX
    }

    fn queue(&mut self, publication: Publication) {
        if self.persistent {
            debug_assert_eq!(publication.seq, self.queued + 1, "messages are queued in order");
            self.queued = publication.seq;
        }
        self.pending_bytes += publication.memory_bytes();
        self.pending.push(publication);
    }

    /// Takes what the next fan-out sends to these receivers; its end is told with
    /// [`finish`](Self::finish).
    pub(super) fn begin(&mut self, receivers: Receivers) -> Batch {
        let in_memory = self.has_pending() || self.refill();
        if !in_memory {
            self.queued = self.head.unwrap_or(self.queued);
        }
        let batch = Batch {
            publications: self.pending.len() as u64,
            packet: in_memory.then(|| self.pack_pending(receivers)),
            since: self.pending_since.take(),
            after: self.delivered,
            until: self.queued,
        };
        debug_assert!(batch.after < batch.until || !self.persistent, "a fan-out sends something");
        debug_assert!(
            !self.persistent || !in_memory || batch.publications == batch.until - batch.after,
            "a fan-out is dense"
        );
        self.assert_consistent();
        batch
    }

    fn pack_pending(&mut self, receivers: Receivers) -> Packet {
        let packet = pack(self.pending.iter(), receivers, &mut self.frames);
        self.pending.clear();
        self.pending.shrink_to(PENDING_KEPT);
        self.pending_bytes = 0;
        packet
    }

    /// Notes that every live member was given the messages of a batch.
    pub(super) fn finish(&mut self, batch: &Batch) {
        debug_assert_eq!(self.delivered, batch.after, "one fan-out at a time");
        self.delivered = batch.until;
        self.assert_consistent();
    }

    /// Fills `pending` from the tail. False when the tail no longer holds what comes next: the log does.
    fn refill(&mut self) -> bool {
        let Some(head) = self.head else { return true };
        let Some(missing) = self.tail.range(self.queued, head) else { return false };
        for publication in missing {
            if self.pending_bytes > TURN_BYTES_MAX {
                break;
            }
            self.queued = publication.seq;
            self.pending_bytes += publication.memory_bytes();
            self.pending.push(publication.clone());
        }
        true
    }

    /// Checks the positions.
    pub(super) fn assert_consistent(&self) {
        debug_assert!(self.delivered <= self.queued, "delivered before it was queued");
        let head = self.head.unwrap_or_default();
        debug_assert!(self.queued <= head, "queued beyond the head");
        debug_assert!(self.persistent || head == 0, "a room that keeps nothing has no positions");
        debug_assert_eq!(self.pending_bytes > 0, self.has_pending(), "pending was counted wrongly");
        let pending = if self.persistent { self.pending.len() as u64 } else { 0 };
        debug_assert!(pending <= self.queued - self.delivered, "more pending than queued");
        debug_assert!(self.tail.newest().is_none_or(|newest| newest <= head), "a tail beyond the head");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Channel;
    use crate::protocol::format::{Format, PerFormat};

    fn publication(seq: Seq, bytes: usize) -> Publication {
        Publication {
            channel: Channel::new("room").unwrap(),
            seq,
            data: "1".repeat(bytes).into(),
            info: None,
            tags: None,
            created_at_ms: 0,
        }
    }

    fn known(head: Seq) -> Backlog {
        let mut backlog = Backlog::new(true);
        backlog.know_head(head);
        backlog
    }

    fn receivers(formats: &[Format], consumers: bool) -> Receivers {
        Receivers { sockets: PerFormat::from_fn(|format| formats.contains(&format)), consumers }
    }

    #[test]
    fn positions_follow_a_message() {
        let mut backlog = known(7);
        assert!(!backlog.is_behind());
        assert_eq!(backlog.push(publication(8, 1), Instant::now(), false), Accepted::Yes);
        let batch = backlog.begin(receivers(&Format::ALL, false));
        assert_eq!((batch.after, batch.until, batch.publications), (7, 8, 1));
        backlog.push(publication(9, 1), Instant::now(), false);
        assert_eq!(backlog.delivered(), 7);
        backlog.finish(&batch);
        assert_eq!(backlog.delivered(), 8);
        assert!(backlog.is_behind());
    }

    #[test]
    fn without_listeners_everything_counts_as_delivered() {
        let mut backlog = known(0);
        backlog.push(publication(1, 1), Instant::now(), true);
        assert_eq!((backlog.delivered(), backlog.is_behind()), (1, false));
        assert!(backlog.tail().range(0, 1).is_some());
    }

    #[test]
    fn messages_that_do_not_fit_come_from_the_tail_or_the_log() {
        let mut backlog = known(0);
        for seq in 1..=3 {
            backlog.push(publication(seq, TURN_BYTES_MAX), Instant::now(), false);
        }
        let first = backlog.begin(receivers(&Format::ALL, false));
        assert_eq!((first.until, first.publications), (1, 1));
        backlog.finish(&first);
        backlog.drop_tail();
        let second = backlog.begin(receivers(&Format::ALL, false));
        assert!(second.packet.is_none());
        assert_eq!(second.until, 3);
    }

    #[test]
    fn a_room_that_keeps_nothing_drops_what_does_not_fit() {
        let mut backlog = Backlog::new(false);
        assert_eq!(backlog.push(publication(0, TURN_BYTES_MAX), Instant::now(), false), Accepted::Yes);
        assert_eq!(backlog.push(publication(0, 1), Instant::now(), false), Accepted::Dropped);
        assert_eq!(backlog.begin(receivers(&Format::ALL, false)).publications, 1);
    }

    #[test]
    fn a_batch_is_packed_only_in_the_forms_its_receivers_take() {
        let sets: &[&[Format]] = &[&[], &Format::ALL[..1], &Format::ALL];
        for (formats, consumers) in sets.iter().flat_map(|formats| [(formats, true), (formats, false)]) {
            let mut backlog = known(0);
            let sent: Vec<_> = (1..=3).map(|seq| publication(seq, 1)).collect();
            for publication in &sent {
                backlog.push(publication.clone(), Instant::now(), false);
            }
            let packet = backlog.begin(receivers(formats, consumers)).packet.unwrap();
            for format in Format::ALL {
                assert_eq!(packet.frames(format).is_some(), formats.contains(&format));
            }
            assert_eq!(packet.publications(), consumers.then_some(&sent[..]));
        }
    }
}
