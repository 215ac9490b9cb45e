//! One active room: its listeners, where it stands, its tail, and the fan-out under way.
//!
//! Only the owner of the room's shard touches it. Invariants, with `delivered ≤ encoded ≤ head`:
//! every live member was given exactly the messages up to `delivered`; those after it, up to
//! `encoded`, are in `pending` or in the fan-out under way; those after that did not fit and are
//! taken from the tail, or else from the log, when it is their turn. Members that are not live belong
//! to the catch-up pool. While a fan-out is under way the member list does not change: what would
//! change it waits in `deferred`; so the pool may walk the list without the shard's lock.

use std::sync::Arc;
use std::time::Instant;

use super::fan_out::FanOut;
use crate::config::{self, Delivery, Namespace};
use crate::engine::command::Command;
use crate::engine::context::Context;
use crate::engine::delivery::choice::{self, Choice, Circumstances};
use crate::engine::delivery::pace::{Cost, Rate, Rest};
use crate::engine::inspect::{Presence, RoomOrder, RoomStatus};
use crate::engine::join::Join;
use crate::engine::members::Members;
use crate::engine::tail::Tail;
use crate::ids::{Channel, Seq};
use crate::limits::TURN_BYTES_MAX;
use crate::outbox::frame::LineFrames;
use crate::protocol::push;
use crate::publication::{Publication, Retention};

/// See the module.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(super) channel: Channel,
    pub(super) options: Arc<Namespace>,
    /// Shared with the pool while it serves a slice; then nothing changes it.
    pub(super) members: Arc<Members>,
    /// Members that are not live.
    pub(super) catching_up: usize,
    /// Joins that wait for the head to be known.
    pub(super) waiting: Vec<Join>,
    /// The pool was asked for the head and has not answered.
    pub(super) looking_up: bool,
    /// Seq of the newest message known; `None` until it is known. Always `Some(0)` in rooms that
    /// keep nothing.
    pub(super) head: Option<Seq>,
    pub(super) delivered: Seq,
    pub(super) encoded: Seq,
    pub(super) tail: Tail,
    /// Encoded pushes that no live member was given yet.
    pub(super) pending: LineFrames,
    /// How many publications `pending` holds.
    pub(super) pending_count: u64,
    /// When the first of them was committed.
    pub(super) pending_since: Option<Instant>,
    pub(super) fan_out: Option<FanOut>,
    pub(super) rest: Rest,
    /// Commands that wait for the end of the fan-out.
    pub(super) deferred: Vec<Command>,
    /// How the last fan-out was made.
    pub(super) choice: Option<Choice>,
    /// What the operator wants for this room; `None`: what its namespace says.
    pub(super) strategy_override: Option<Delivery>,
    pub(super) cost: Cost,
    pub(super) rate: Rate,
    pub(super) active_since: Instant,
    pub(in crate::engine) last_activity: Instant,
}

impl Room {
    pub(in crate::engine) fn new(
        channel: Channel,
        options: Arc<Namespace>,
        strategy_override: Option<Delivery>,
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
            strategy_override,
            cost: Cost::default(),
            rate: Rate::new(now),
            active_since: now,
            last_activity: now,
        }
    }

    pub(in crate::engine) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Where the room stands among others.
    pub(in crate::engine) fn rank(&self, order: RoomOrder, now: Instant) -> u64 {
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
    pub(in crate::engine) fn choose(
        &self,
        thresholds: &config::Rooms,
        sender_holds_idle_shard: bool,
    ) -> Choice {
        let listeners = self.members.len() - self.catching_up;
        let now = Circumstances {
            listeners,
            cost: self.cost.of(listeners),
            rate: self.rate.at(self.last_activity),
            sender_holds_idle_shard,
            forced: self.strategy_override.unwrap_or(self.options.strategy).strategy(),
            before: self.choice,
        };
        choice::choose(thresholds, &now)
    }

    /// Sets the delivery an operator wants from now on; `None`: what the namespace says.
    pub(in crate::engine) fn override_strategy(&mut self, delivery: Option<Delivery>) {
        self.strategy_override = delivery;
    }

    pub(in crate::engine) fn assert_consistent(&self) {}

    /// True when the room may leave memory: nobody is in it and nothing is under way. An answer of the
    /// pool that came to a later life of the room would set its head back.
    pub(in crate::engine) fn is_unused(&self) -> bool {
        self.members.is_empty()
            && self.waiting.is_empty()
            && !self.looking_up
            && self.fan_out.is_none()
            && self.pending.is_empty()
            && self.deferred.is_empty()
    }

    /// Gives back what a quiet room with listeners does not need.
    pub(in crate::engine) fn drop_tail(&mut self) {
        self.tail.clear();
    }

    /// True when there is something to send and nothing is being sent.
    pub(in crate::engine) fn wants_fan_out(&self) -> bool {
        self.fan_out.is_none() && (!self.pending.is_empty() || self.is_behind())
    }

    /// True while a fan-out has members left to serve.
    pub(in crate::engine) fn in_fan_out(&self) -> bool {
        self.fan_out.is_some()
    }

    /// True when the newest messages are not even in `pending`.
    pub(super) fn is_behind(&self) -> bool {
        self.head.is_some_and(|head| self.encoded < head)
    }

    pub(super) fn retention(&self) -> Retention {
        Retention { size: self.options.history_size, ttl: self.options.history_ttl }
    }

    /// Takes the next publication of the room.
    pub(in crate::engine) fn publish(
        &mut self,
        publication: Publication,
        committed_at: Instant,
        context: &Context,
    ) {
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
    pub(super) fn note_head(&mut self, publication: &Publication, context: &Context) {
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
    pub(super) fn encode(&mut self, publication: &Publication, context: &Context) {
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
    pub(super) fn refill(&mut self) -> bool {
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

    pub(in crate::engine) fn presence(&self) -> Presence {
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

    pub(in crate::engine) fn status(&self, now: Instant) -> RoomStatus {
        RoomStatus {
            channel: self.channel.clone(),
            listeners: self.members.len(),
            catching_up: self.catching_up,
            head: self.head,
            choice: self.choice.map(|choice| (choice.strategy, choice.reason)),
            forced: self.strategy_override.unwrap_or(self.options.strategy).strategy(),
            rate: self.rate.at(now),
            cost: self.cost.of(self.members.len() - self.catching_up),
            active_since: self.active_since,
            last_activity: self.last_activity,
        }
    }
}
