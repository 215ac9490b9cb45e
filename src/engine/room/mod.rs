//! One active room: its listeners, where it stands, its tail, and the fan-out under way.
//!
//! Only the owner of the room's shard touches it. Invariants, with `delivered ≤ head`:
//! every live member was given exactly the messages up to `delivered`; those after it, up to
//! `head`, are in `pending` (or in the fan-out under way); members that are not live belong to the
//! catch-up pool. While a fan-out is under way the member list does not change: what would change
//! it waits in `deferred`.

mod fan_out;
mod membership;

use std::sync::Arc;
use std::time::Instant;

use super::command::{Command, Presence, RoomStatus};
use super::delivery::Strategy;
use super::join::Join;
use super::members::Members;
use super::shard::Context;
use super::tail::Tail;
use crate::config::Namespace;
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
    members: Members,
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
    tail: Tail,
    /// Encoded pushes that no live member was given yet.
    pending: LineFrames,
    /// How many publications `pending` holds.
    pending_count: u64,
    /// When the first of them was committed.
    pending_since: Option<Instant>,
    fan_out: Option<FanOut>,
    /// Commands that wait for the end of the fan-out.
    deferred: Vec<Command>,
    strategy: Option<Strategy>,
    active_since: Instant,
    pub(super) last_activity: Instant,
}

impl Room {
    pub(super) fn new(channel: Channel, options: Arc<Namespace>, now: Instant) -> Self {
        let head = if options.persist { None } else { Some(0) };
        Self {
            channel,
            options,
            members: Members::default(),
            catching_up: 0,
            waiting: Vec::new(),
            looking_up: false,
            head,
            delivered: 0,
            tail: Tail::default(),
            pending: LineFrames::default(),
            pending_count: 0,
            pending_since: None,
            fan_out: None,
            deferred: Vec::new(),
            strategy: None,
            active_since: now,
            last_activity: now,
        }
    }

    pub(super) fn listeners(&self) -> usize {
        self.members.len()
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
        self.fan_out.is_none() && !self.pending.is_empty()
    }

    /// True while a fan-out has members left to serve.
    pub(super) fn in_fan_out(&self) -> bool {
        self.fan_out.is_some()
    }

    /// True when so much waits behind the fan-out that it should not yield any more.
    pub(super) fn must_hurry(&self) -> bool {
        self.pending.len() > TURN_BYTES_MAX
    }

    fn retention(&self) -> Retention {
        Retention { size: self.options.history_size, ttl: self.options.history_ttl }
    }

    /// Takes the next publication of the room.
    pub(super) fn publish(&mut self, publication: Publication, committed_at: Instant, context: &Context) {
        if self.options.persist {
            self.number(&publication, context);
            if self.head.is_some_and(|head| publication.seq <= head) {
                return; // The head was read from the database after the commit and before this.
            }
            self.head = Some(publication.seq);
        }
        let nobody_live = self.members.len() == self.catching_up;
        if nobody_live && self.pending.is_empty() && self.fan_out.is_none() {
            self.delivered = publication.seq;
        } else {
            self.pending.line(|out| push::publication(out, &publication));
            self.pending_count += 1;
            self.pending_since.get_or_insert(committed_at);
        }
        if self.options.persist {
            self.tail.push(publication);
        }
    }

    /// Makes the head known by the number of a publication, and repairs a hole before it.
    fn number(&mut self, publication: &Publication, context: &Context) {
        let before = publication.seq.saturating_sub(1);
        match self.head {
            None => self.know_head(before, context),
            Some(head) if head < before => self.repair_hole(before, context),
            Some(_) => {}
        }
    }

    /// Messages up to `until` were committed but never handed over: the log has them.
    fn repair_hole(&mut self, until: Seq, context: &Context) {
        context.metrics.handoff_holes_total.inc();
        tracing::warn!(channel = %self.channel, head = self.head, until, "messages were missing at the hand-off; reading them back");
        while self.fan_out.is_some() || self.wants_fan_out() {
            if self.fan_out.is_none() {
                self.begin_fan_out(context.thresholds, false);
            }
            self.step_fan_out(context);
        }
        let after = self.delivered;
        for position in 0..self.members.len() {
            if self.members.as_slice()[position].live {
                self.fall_behind(position, after, until, context);
            }
        }
        self.head = Some(until);
        self.delivered = until;
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

    pub(super) fn status(&self) -> RoomStatus {
        RoomStatus {
            channel: self.channel.clone(),
            listeners: self.members.len(),
            catching_up: self.catching_up,
            head: self.head,
            strategy: self.strategy,
            active_since: self.active_since,
            last_activity: self.last_activity,
        }
    }
}
