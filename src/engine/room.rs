//! One active room: its listeners, where it stands, its tail, and the fan-out under way.
//!
//! Only the owner of the room's shard touches it. Invariants, with `delivered ≤ head`:
//! every live member was given exactly the messages up to `delivered`; those after it, up to
//! `head`, are in `pending` (or in the fan-out under way); members that are not live belong to the
//! catch-up pool. While a fan-out is under way the member list does not change: what would change
//! it waits in `deferred`.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::catch_up::Job;
use super::command::{Command, Presence, RoomStatus};
use super::delivery::{self, Outcome, Strategy, Thresholds};
use super::join::{Join, Joined};
use super::members::{Member, Members};
use super::shard::Context;
use super::tail::Tail;
use crate::clock;
use crate::config::Namespace;
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::limits::{SLICE_LISTENERS, TURN_BYTES_MAX};
use crate::outbox::frame::{self, LineFrames};
use crate::protocol::code::ErrorCode;
use crate::protocol::push;
use crate::publication::{ClientInfo, Publication, Retention};

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

/// Frames on their way to the members, slice by slice.
#[derive(Debug)]
struct FanOut {
    frames: Bytes,
    publications: u64,
    since: Option<Instant>,
    /// `delivered` before and after.
    after: Seq,
    until: Seq,
    /// Members before this position are served.
    next: usize,
    strategy: Strategy,
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

    /// True when the room may leave memory: nobody is in it and nothing is under way.
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty()
            && self.waiting.is_empty()
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

    // ---- publications ----

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

    // ---- fan-out ----

    /// Starts sending what is pending. The caller then steps until the fan-out is over.
    pub(super) fn begin_fan_out(&mut self, thresholds: Thresholds, sender_holds_idle_shard: bool) {
        let now = delivery::Circumstances { listeners: self.members.len(), sender_holds_idle_shard };
        let strategy = delivery::choose(thresholds, now);
        self.strategy = Some(strategy);
        self.fan_out = Some(FanOut {
            frames: self.pending.take(),
            publications: std::mem::take(&mut self.pending_count),
            since: self.pending_since.take(),
            after: self.delivered,
            until: self.head.unwrap_or(0),
            next: 0,
            strategy,
        });
    }

    /// Serves the next slice of members. At the end the deferred commands are applied.
    pub(super) fn step_fan_out(&mut self, context: &Context) {
        let Some(mut fan_out) = self.fan_out.take() else { return };
        let end = (fan_out.next + slice_length(fan_out.strategy)).min(self.members.len());
        let slice = &self.members.as_slice()[fan_out.next..end];
        let outcome = match fan_out.strategy {
            Strategy::Inline | Strategy::Worker => {
                delivery::serial::fan_out(slice, fan_out.next, &fan_out.frames)
            }
            Strategy::Parallel => delivery::parallel::fan_out(slice, fan_out.next, &fan_out.frames),
        };
        self.settle_slice(&fan_out, &outcome, context);
        fan_out.next = end;
        if end < self.members.len() {
            self.fan_out = Some(fan_out);
            return;
        }
        context.metrics.fanouts_total.with_label_values(&[fan_out.strategy.as_str()]).inc();
        if let Some(since) = fan_out.since {
            context.metrics.fanout_seconds.observe(since.elapsed().as_secs_f64());
        }
        self.delivered = fan_out.until;
        for command in std::mem::take(&mut self.deferred) {
            self.apply(command, context);
        }
    }

    fn settle_slice(&mut self, fan_out: &FanOut, outcome: &Outcome, context: &Context) {
        context.metrics.deliveries_total.inc_by(outcome.delivered as u64 * fan_out.publications);
        if self.options.persist {
            for &position in &outcome.full {
                self.fall_behind(position, fan_out.after, fan_out.until, context);
            }
        } else {
            let dropped = outcome.full.len() as u64 * fan_out.publications;
            context.metrics.dropped_ephemeral_total.inc_by(dropped);
        }
    }

    /// Takes a member out of live delivery; the catch-up pool goes on after `after`.
    fn fall_behind(&mut self, position: usize, after: Seq, until: Seq, context: &Context) {
        let retention = self.retention();
        let member = self.members.at_mut(position);
        member.live = false;
        self.catching_up += 1;
        let job = Job::for_member(self.channel.clone(), retention, member, after, until, &context.metrics);
        context.metrics.catch_ups_total.inc();
        context.catch_up.park(Box::new(job));
    }

    // ---- members ----

    /// Applies a command that may change the member list, at once or after the fan-out.
    pub(super) fn apply_or_defer(&mut self, command: Command, context: &Context) {
        if self.fan_out.is_some() {
            self.deferred.push(command);
        } else {
            self.apply(command, context);
        }
    }

    fn apply(&mut self, command: Command, context: &Context) {
        match command {
            Command::Join(join) => self.join(*join, context),
            Command::Leave { connection, subscription, .. } => self.leave(connection, subscription, context),
            Command::CaughtUp(job) => self.caught_up(job, context),
            other => tracing::error!(?other, "a command that changes no member list was deferred"),
        }
    }

    fn join(&mut self, join: Join, context: &Context) {
        if self.head.is_some() {
            self.settle(join, context);
            return;
        }
        if self.waiting.is_empty() {
            context.catch_up.look_up_head(self.channel.clone());
        }
        self.waiting.push(join);
    }

    /// The head was read from the log; `None`: it could not be read.
    pub(super) fn on_head(&mut self, head: Option<Seq>, context: &Context) {
        match (head, self.head) {
            (Some(head), None) => self.know_head(head, context),
            (None, None) => {
                for join in std::mem::take(&mut self.waiting) {
                    join.fail(ErrorCode::Internal, &context.metrics);
                }
            }
            _ => {}
        }
    }

    fn know_head(&mut self, head: Seq, context: &Context) {
        self.head = Some(head);
        self.delivered = head;
        for join in std::mem::take(&mut self.waiting) {
            self.settle(join, context);
        }
    }

    /// Answers a join and makes its listener live, or hands it to the catch-up pool.
    fn settle(&mut self, join: Join, context: &Context) {
        if !join.is_held() {
            let joined = self.start_at_head(&join, context);
            join.succeed(joined);
            return;
        }
        let recover = join.recover.as_ref().filter(|_| self.options.persist);
        let Some(recover) = recover else {
            let joined = self.start_at_head(&join, context);
            return self.admit(join, joined, context);
        };
        let (after, reject) = (recover.after, recover.reject_unrecovered);
        let possible = recover.permitted
            && (recover.epoch.is_empty() || *recover.epoch == *context.epoch)
            && after <= self.delivered;
        if !possible {
            context.count_recovery("failed");
            if reject {
                return join.fail(ErrorCode::UnrecoverablePosition, &context.metrics);
            }
            let joined = self.start_at_head(&join, context);
            return self.admit(join, joined, context);
        }
        match self.missed(after).filter(|_| join.listener.outbox.has_room()) {
            Some(publications) => {
                context.count_recovery("tail");
                let joined = Joined {
                    offset: after,
                    recovered: true,
                    publications,
                    ..self.start_at_head(&join, context)
                };
                self.admit(join, joined, context);
            }
            None => self.recover_from_log(join, after, context),
        }
    }

    /// What a listener at `after` missed, if the tail has all of it and retention hides none.
    fn missed(&self, after: Seq) -> Option<Vec<Publication>> {
        let publications: Vec<_> = self.tail.range(after, self.delivered)?.cloned().collect();
        let (retention, now) = (self.retention(), clock::unix_ms());
        let first_kept = publications.first().is_none_or(|first| retention.keeps(first, self.delivered, now));
        first_kept.then_some(publications)
    }

    fn recover_from_log(&mut self, join: Join, after: Seq, context: &Context) {
        let (retention, until) = (self.retention(), self.delivered);
        self.insert(&join, false, context);
        self.catching_up += 1;
        let job = Job::for_join(join, retention, after, until, context.epoch.clone(), &context.metrics);
        context.catch_up.run(Box::new(job));
    }

    fn start_at_head(&self, join: &Join, context: &Context) -> Joined {
        Joined {
            positioned: self.options.persist,
            epoch: context.epoch.clone(),
            offset: self.delivered,
            was_recovering: join.recover.is_some() && self.options.persist,
            recovered: false,
            publications: Vec::new(),
            extra: join.extra.clone(),
        }
    }

    fn admit(&mut self, join: Join, joined: Joined, context: &Context) {
        let info = join.info.clone();
        self.insert(&join, true, context);
        join.succeed(joined);
        self.announce(push::join, &info);
    }

    fn insert(&mut self, join: &Join, live: bool, context: &Context) {
        let member = Member {
            outbox: join.listener.outbox.clone(),
            live,
            subscription: join.subscription,
            info: join.info.clone(),
            listener: join.listener.clone(),
        };
        match self.members.insert(member) {
            Some(replaced) if !replaced.live => self.catching_up -= 1,
            Some(_) => {}
            None => context.metrics.listeners.inc(),
        }
    }

    fn leave(&mut self, connection: ConnectionId, subscription: SubscriptionId, context: &Context) {
        let Some(member) = self.members.remove(connection, subscription) else { return };
        context.metrics.listeners.dec();
        self.forget_if_lagging(&member);
        self.announce(push::leave, &member.info);
    }

    fn forget_if_lagging(&mut self, member: &Member) {
        if !member.live {
            self.catching_up -= 1;
        }
    }

    /// A listener served from the log has reached what was delivered when it was last here.
    fn caught_up(&mut self, mut job: Box<Job>, context: &Context) {
        let Some(member) = self.members.get_mut(job.connection(), job.subscription()) else { return };
        let rest = self.tail.range(job.after(), self.delivered);
        let mut frames = LineFrames::default();
        match rest {
            Some(rest) if member.outbox.has_room() => {
                for publication in rest {
                    frames.line(|out| push::publication(out, publication));
                }
            }
            _ => return context.catch_up.extend(job, self.delivered),
        }
        if !frames.is_empty() && !job.push_all(&frames.take(), self.delivered) {
            return context.catch_up.extend(job, self.delivered);
        }
        member.live = true;
        self.catching_up -= 1;
        if job.is_resuming() {
            let info = member.info.clone();
            self.announce(push::join, &info);
        }
    }

    /// Pushes a join or leave to a small room. A hint, not a message: who has no room misses it.
    fn announce(&self, encode: fn(&mut Vec<u8>, &Channel, &ClientInfo), info: &ClientInfo) {
        let small = self.members.len() <= self.options.join_leave_max_listeners;
        if !self.options.join_leave || !small || self.members.is_empty() {
            return;
        }
        let mut text = Vec::new();
        encode(&mut text, &self.channel, info);
        let frame = frame::text(&text);
        for member in self.members.as_slice() {
            let _ = member.outbox.push(&frame);
        }
    }

    /// Ends every subscription so that the clients come back and recover.
    pub(super) fn dissolve(&mut self, context: &Context) {
        for join in self.waiting.drain(..) {
            join.fail(ErrorCode::Internal, &context.metrics);
        }
        for member in self.members.take_all() {
            context.metrics.listeners.dec();
            member.listener.lose(&self.channel, member.subscription);
        }
    }

    // ---- questions ----

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

/// Members one step serves.
fn slice_length(strategy: Strategy) -> usize {
    match strategy {
        Strategy::Inline | Strategy::Worker => SLICE_LISTENERS,
        Strategy::Parallel => SLICE_LISTENERS * rayon::current_num_threads(),
    }
}
