//! The state of one active room, and the questions it answers.
//!
//! Only the owner of the room's shard touches it. Between fan-outs live members were given exactly the
//! messages up to the backlog's `delivered`; those that are not live belong to the catch-up pool. While a fan-out is
//! under way the member list does not change: what would change it waits in `deferred`; so the pool
//! may walk the list without the shard's lock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backlog::{Accepted, Backlog, Place};
use super::change::RoomChange;
use super::fan_out::FanOut;
use super::usage::Usage;
use super::waiting::Waiting;
use crate::config::{self, Delivery, Namespace};
use crate::engine::catch_up::lookups::ReadHead;
use crate::engine::commit::CommitTimes;
use crate::engine::context::Context;
use crate::engine::delivery::choice::{self, Choice, Circumstances};
use crate::engine::delivery::pace::Pace;
use crate::engine::epoch::Epoch;
use crate::engine::inspect::{Presence, RoomStatus};
use crate::engine::members::Members;
use crate::ids::Channel;
use crate::protocol::api::activity::RoomOrder;
use crate::publication::Publication;
use crate::store::Found;

/// One active room.
#[derive(Debug)]
pub(in crate::engine) struct Room {
    pub(super) channel: Channel,
    /// The history that its positions belong to.
    pub(super) epoch: Epoch,
    pub(super) options: Arc<Namespace>,
    /// Shared with the pool while it serves a slice; then nothing changes it.
    pub(super) members: Arc<Members>,
    pub(super) waiting: Waiting,
    pub(super) backlog: Backlog,
    pub(super) fan_out: Option<FanOut>,
    /// Changes that wait for the end of the fan-out.
    pub(super) deferred: Vec<RoomChange>,
    /// Strategy of the last fan-out and its reason.
    pub(super) choice: Option<Choice>,
    /// The delivery an operator wants for this room; `None`: what its namespace says.
    strategy_override: Option<Delivery>,
    pub(super) pace: Pace,
    pub(in crate::engine) usage: Usage,
}

/// The log holds less of a room than was committed to it: its history has forked.
#[derive(Debug)]
pub(in crate::engine) struct HistoryForked;

impl Room {
    pub(in crate::engine) fn new(
        channel: Channel,
        epoch: Epoch,
        options: Arc<Namespace>,
        strategy_override: Option<Delivery>,
        (now, timer): (Instant, Instant),
    ) -> Self {
        let backlog = Backlog::new(options.persist);
        Self {
            channel,
            epoch,
            options,
            members: Members::none(),
            waiting: Waiting::default(),
            backlog,
            fan_out: None,
            deferred: Vec::new(),
            choice: None,
            strategy_override,
            pace: Pace::new(now),
            usage: Usage::new(now, timer),
        }
    }

    pub(in crate::engine) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Sort key of the room among others; the largest comes first.
    pub(in crate::engine) fn rank(&self, order: RoomOrder, now: Instant) -> u64 {
        match order {
            RoomOrder::Rate => (self.pace.rate.at(now) * 1e6) as u64,
            RoomOrder::Listeners => self.members.len() as u64,
            RoomOrder::Activity => {
                let idle = now.saturating_duration_since(self.usage.last_activity).as_micros();
                u64::MAX - u64::try_from(idle).unwrap_or(u64::MAX)
            }
        }
    }

    /// Strategy of a fan-out that would begin now.
    pub(in crate::engine) fn choose(
        &self,
        thresholds: &config::Rooms,
        sender_holds_idle_shard: bool,
    ) -> Choice {
        let listeners = self.members.live();
        let now = Circumstances {
            listeners,
            cost: self.pace.cost.of(listeners),
            rate: self.pace.rate.at(self.usage.last_activity),
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

    /// Checks between two turns what the head of this file says.
    pub(in crate::engine) fn assert_consistent(&self) {
        self.backlog.assert_consistent();
        self.waiting.assert_consistent();
        let sends = self.fan_out.is_some() || self.backlog.is_behind();
        debug_assert!(sends || self.deferred.is_empty(), "a change waits for nothing");
        let knows_head = self.backlog.head().is_some();
        debug_assert!(knows_head || self.members.is_empty(), "a member of a room whose head is unknown");
        debug_assert!(
            self.options.persist || self.members.live() == self.members.len(),
            "a room that keeps nothing has no log to catch up from"
        );
        if let Some(fan_out) = &self.fan_out {
            fan_out.assert_consistent(&self.members);
        }
    }

    /// True when the room may leave memory: nobody is in it and nobody waits to be, and nothing
    /// is to be sent.
    pub(in crate::engine) fn is_unused(&self) -> bool {
        self.members.is_empty()
            && self.waiting.is_empty()
            && self.fan_out.is_none()
            && !self.backlog.has_pending()
            && self.deferred.is_empty()
    }

    /// Time at which the unused room may leave memory; `None`: at once.
    pub(in crate::engine) fn idle_at(&self, idle_timeout: Duration) -> Option<Instant> {
        debug_assert!(self.is_unused(), "a room that is in use is not idle");
        self.usage.idle_at(idle_timeout)
    }

    /// Time to look at the room again, after its timer; `None`: it may leave memory now. A room that was quiet
    /// for so long gives back what it does not need.
    pub(in crate::engine) fn next_timer(&mut self, now: Instant, idle_timeout: Duration) -> Option<Instant> {
        if self.is_unused() {
            return self.idle_at(idle_timeout).filter(|idle_at| *idle_at > now);
        }
        let quiet_at = self.usage.last_activity + idle_timeout;
        if quiet_at > now {
            return Some(quiet_at);
        }
        self.backlog.drop_tail();
        Some(now + idle_timeout)
    }

    /// True when there is something to send and nothing is being sent.
    pub(in crate::engine) fn wants_fan_out(&self) -> bool {
        self.fan_out.is_none() && self.backlog.is_behind()
    }

    /// True while a fan-out has members left to serve.
    pub(in crate::engine) fn in_fan_out(&self) -> bool {
        self.fan_out.is_some()
    }

    /// Takes the next publication of the room. It comes back when its number was given before: then the
    /// history has forked, and what this room knows of it is void.
    pub(in crate::engine) fn publish(
        &mut self,
        publication: Publication,
        times: CommitTimes,
        context: &Context,
    ) -> Result<(), Publication> {
        match self.backlog.place(&publication, times.begun) {
            Place::Taken => return Err(publication),
            Place::Read => return Ok(()),
            Place::Next => {}
        }
        self.pace.rate.count(times.ended);
        self.usage.note_message(self.usage.last_activity);
        if self.options.persist {
            self.note_head(&publication, context);
        }
        let nobody_listens = self.members.live() == 0 && self.fan_out.is_none();
        if self.backlog.push(publication, times.ended, nobody_listens) == Accepted::Dropped {
            context.metrics.dropped_ephemeral_total.inc_by(self.members.len() as u64);
        }
        Ok(())
    }

    /// Takes what was read of the room because others than the commit lanes have stored messages there. What follows
    /// its head is delivered like any publication; what is behind a hole is taken from the log.
    pub(in crate::engine) fn on_found(&mut self, found: Found, context: &Context) {
        if !self.options.persist {
            return;
        }
        let read = ReadHead { seq: found.head, at: found.at };
        if self.backlog.head().is_none() {
            self.backlog.know_read_head(read);
            return self.answer_waiting(context);
        }
        self.usage.last_activity = Instant::now();
        for publication in found.publications {
            if self.backlog.head().is_some_and(|head| publication.seq == head + 1) {
                context.metrics.publications_total.inc();
                self.pace.rate.count(found.at);
                self.usage.note_message(self.usage.last_activity);
                let nobody_listens = self.members.live() == 0 && self.fan_out.is_none();
                // Kept in the log, so nothing is dropped.
                let _ = self.backlog.push(publication, found.at, nobody_listens);
            }
        }
        self.backlog.know_read_head(read);
    }

    /// Makes the head known by the number of a publication, also that messages before it are missing.
    fn note_head(&mut self, publication: &Publication, context: &Context) {
        let before = publication.seq.saturating_sub(1);
        if self.backlog.head().is_none() {
            self.backlog.know_head(before);
            self.answer_waiting(context);
        } else if let Some(head) = self.backlog.skip_hole(before) {
            context.metrics.handoff_holes_total.inc();
            tracing::warn!(channel = %self.channel, head, until = before, "messages were missing at the hand-off; reading them back");
        }
    }

    pub(in crate::engine) fn presence(&self) -> Presence {
        let infos = || self.members.as_slice().iter().map(|member| &member.subscription().info);
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
            lagging: self.members.len() - self.members.live(),
            head: self.backlog.head(),
            choice: self.choice.map(|choice| (choice.strategy, choice.reason)),
            forced: self.strategy_override.unwrap_or(self.options.strategy).strategy(),
            rate: self.pace.rate.at(now),
            cost: self.pace.cost.of(self.members.live()),
            active_since: self.usage.active_since,
            last_activity: self.usage.last_activity,
        }
    }
}
