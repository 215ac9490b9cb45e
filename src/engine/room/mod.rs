//! One active room: its listeners, where it stands, its tail, and the fan-out under way.
//!
//! Only the owner of the room's shard touches it. Invariants, with `delivered ≤ encoded ≤ head`:
//! every live member was given exactly the messages up to `delivered`; those after it, up to
//! `encoded`, are in `pending` or in the fan-out under way; those after that did not fit and are
//! taken from the tail, or else from the log, when it is their turn. Members that are not live belong
//! to the catch-up pool. While a fan-out is under way the member list does not change: what would
//! change it waits in `deferred`; so the pool may walk the list without the shard's lock.

mod fan_out;
mod membership;

use std::sync::Arc;
use std::time::Instant;

use super::command::{Command, Presence, RoomOrder, RoomStatus};
use super::delivery::{self, Choice, Circumstances, Cost, Rate, Rest, Thresholds};
use super::join::Join;
use super::members::Members;
use super::shard::Context;
use super::tail::Tail;
use crate::config::{Delivery, Namespace};
use crate::ids::{Channel, Seq};
use crate::limits::TURN_BYTES_MAX;
use crate::outbox::frame::LineFrames;
use crate::protocol::push;
use crate::publication::{Publication, Retention};
use fan_out::FanOut;

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    channel: Channel,
    options: Arc<Namespace>,
    /// Shared with the pool while it serves a slice; then nothing changes it.
    members: Arc<Members>,
    /// Members that are not live.
    catching_up: usize,
    /// Joins that wait for the head to be known.
    waiting: Vec<Join>,
    /// The pool was asked for the head and has not answered.
    looking_up: bool,
    /// Seq of the newest message known; `None` until it is known. Always `Some(0)` in rooms that
    /// keep nothing.
    head: Option<Seq>,
    delivered: Seq,
    encoded: Seq,
    tail: Tail,
    /// Encoded pushes that no live member was given yet.
    pending: LineFrames,
    /// How many publications `pending` holds.
    pending_count: u64,
    /// When the first of them was committed.
    pending_since: Option<Instant>,
    fan_out: Option<FanOut>,
    rest: Rest,
    /// Commands that wait for the end of the fan-out.
    deferred: Vec<Command>,
    /// How the last fan-out was made.
    choice: Option<Choice>,
    /// What the operator wants for this room; `None`: what its namespace says.
    wish: Option<Delivery>,
    cost: Cost,
    rate: Rate,
    active_since: Instant,
    pub(super) last_activity: Instant,
}

impl Room {
    pub(super) fn new(
        channel: Channel,
        options: Arc<Namespace>,
        wish: Option<Delivery>,
        now: Instant,
    ) -> Self {
        let head = if options.persist { None } else { Some(0) };
        Self {
            channel,
            options,
            members: Arc::default(),
            catching_up: 0,
            waiting: Vec::new(),
            looking_up: false,
            head,
            delivered: 0,
            encoded: 0,
            tail: Tail::default(),
            pending: LineFrames::default(),
            pending_count: 0,
            pending_since: None,
            fan_out: None,
            rest: Rest::new(now),
            deferred: Vec::new(),
            choice: None,
            wish,
            cost: Cost::default(),
            rate: Rate::new(now),
            active_since: now,
            last_activity: now,
        }
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where the room stands among others.
    pub(super) fn rank(&self, order: RoomOrder, now: Instant) -> u64 {
        match order {
            RoomOrder::Rate => (self.rate.at(now) * 1e6) as u64,
            RoomOrder::Listeners => self.members.len() as u64,
            RoomOrder::Activity => {
                let idle = now.saturating_duration_since(self.last_activity).as_micros();
                u64::MAX - u64::try_from(idle).unwrap_or(u64::MAX)
            }
        }
    }

    /// How a fan-out would be made now.
    pub(super) fn choose(&self, thresholds: &Thresholds, sender_holds_idle_shard: bool) -> Choice {
        let listeners = self.members.len() - self.catching_up;
        let now = Circumstances {
            listeners,
            cost: self.cost.of(listeners),
            rate: self.rate.at(self.last_activity),
            sender_holds_idle_shard,
            forced: self.wish.unwrap_or(self.options.strategy).strategy(),
            before: self.choice,
        };
        delivery::choose(thresholds, &now)
    }

    /// From now on the operator wants this; `None`: what the namespace says.
    pub(super) fn wish(&mut self, wish: Option<Delivery>) {
        self.wish = wish;
    }

    /// True when the room may leave memory: nobody is in it and nothing is under way. An answer of the
    /// pool that came to a later life of the room would set its head back.
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty()
            && self.waiting.is_empty()
            && !self.looking_up
            && self.fan_out.is_none()
            && self.pending.is_empty()
            && self.deferred.is_empty()
    }

    /// Gives back what a quiet room with listeners does not need.
    pub(super) fn rest(&mut self) {
        self.tail.clear();
    }

    /// True when there is something to send and nothing is being sent.
    pub(super) fn wants_fan_out(&self) -> bool {
        self.fan_out.is_none() && (!self.pending.is_empty() || self.is_behind())
    }

    /// True while a fan-out has members left to serve.
    pub(super) fn in_fan_out(&self) -> bool {
        self.fan_out.is_some()
    }

    /// True when the newest messages are not even in `pending`.
    fn is_behind(&self) -> bool {
        self.head.is_some_and(|head| self.encoded < head)
    }

    fn retention(&self) -> Retention {
        Retention { size: self.options.history_size, ttl: self.options.history_ttl }
    }

    /// Takes the next publication of the room.
    pub(super) fn publish(&mut self, publication: Publication, committed_at: Instant, context: &Context) {
        self.rate.count(committed_at);
        if self.options.persist {
            self.note_head(&publication, context);
            if self.head.is_some_and(|head| publication.seq <= head) {
                return; // The head was read from the database after the commit and before this.
            }
            self.head = Some(publication.seq);
        }
        let nobody_live = self.members.len() == self.catching_up;
        if nobody_live && self.pending.is_empty() && self.fan_out.is_none() {
            self.delivered = publication.seq;
            self.encoded = publication.seq;
        } else {
            self.encode(&publication, context);
            self.pending_since.get_or_insert(committed_at);
        }
        if self.options.persist {
            self.tail.push(publication);
        }
    }

    /// Makes the head known by the number of a publication. Messages before it that were committed but
    /// never handed over are in the log: the room has fallen behind and takes them from there.
    fn note_head(&mut self, publication: &Publication, context: &Context) {
        let before = publication.seq.saturating_sub(1);
        match self.head {
            None => self.know_head(before, context),
            Some(head) if head < before => {
                context.metrics.handoff_holes_total.inc();
                tracing::warn!(channel = %self.channel, head, until = before, "messages were missing at the hand-off; reading them back");
                self.head = Some(before);
            }
            Some(_) => {}
        }
    }

    /// Appends a publication to what is sent next, if it follows and there is room. What waits behind
    /// a fan-out is bounded, so that a huge room need not hurry and can yield to the others.
    fn encode(&mut self, publication: &Publication, context: &Context) {
        let fits = self.pending.len() <= TURN_BYTES_MAX;
        if !self.options.persist {
            if !fits {
                return context.metrics.dropped_ephemeral_total.inc_by(self.members.len() as u64);
            }
        } else if !fits || publication.seq != self.encoded + 1 {
            return;
        }
        self.pending.line(|out| push::publication(out, publication));
        self.pending_count += 1;
        self.encoded = self.encoded.max(publication.seq);
    }

    /// Fills `pending` from the tail when the room is behind. False when the tail no longer holds what
    /// comes next: the log does.
    fn refill(&mut self) -> bool {
        let Some(head) = self.head else { return true };
        let Some(missing) = self.tail.range(self.encoded, head) else { return false };
        for publication in missing {
            if self.pending.len() > TURN_BYTES_MAX {
                break;
            }
            self.pending.line(|out| push::publication(out, publication));
            self.pending_count += 1;
            self.encoded = publication.seq;
        }
        true
    }

    pub(super) fn presence(&self) -> Presence {
        let infos = || self.members.as_slice().iter().map(|member| &member.info);
        let users: ahash::AHashSet<&str> = infos().map(|info| &*info.user).collect();
        let too_large = self.members.len() > self.options.presence_max_listeners;
        Presence {
            clients: if too_large { Vec::new() } else { infos().cloned().collect() },
            clients_count: self.members.len(),
            users_count: users.len(),
            too_large,
        }
    }

    pub(super) fn status(&self, now: Instant) -> RoomStatus {
        RoomStatus {
            channel: self.channel.clone(),
            listeners: self.members.len(),
            catching_up: self.catching_up,
            head: self.head,
            choice: self.choice.map(|choice| (choice.strategy, choice.reason)),
            forced: self.wish.unwrap_or(self.options.strategy).strategy(),
            rate: self.rate.at(now),
            cost: self.cost.of(self.members.len() - self.catching_up),
            active_since: self.active_since,
            last_activity: self.last_activity,
        }
    }
}
