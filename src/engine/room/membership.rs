//! The room's members: how they come, are served from the log until they are live, and go.
//!
//! Joins, leaves and listeners that caught up all change the member list, so they wait while a
//! fan-out is under way.

use std::sync::Arc;
use std::time::Instant;

use super::change::{Leave, RoomChange};
use super::state::{HistoryForked, Room};
use crate::clock;
use crate::engine::catch_up::job::Job;
use crate::engine::catch_up::lookups::{HeadQuestion, ReadHead};
use crate::engine::context::Context;
use crate::engine::join::{Join, Joined};
use crate::engine::members::{Member, Members};
use crate::engine::subscription::Subscription;
use crate::ids::{Channel, Seq};
use crate::outbox::frame;
use crate::protocol::code::ErrorCode;
use crate::protocol::format::PerFormat;
use crate::protocol::push::Push;
use crate::publication::{ClientInfo, Publication};

impl Room {
    /// Applies a change at once, or after the fan-out under way or to come that others wait for.
    pub(in crate::engine) fn apply_or_defer(&mut self, change: RoomChange, context: &Context) {
        debug_assert_eq!(*change.channel(), self.channel, "a change of another room");
        if self.fan_out.is_some() || !self.deferred.is_empty() {
            self.deferred.push(change);
        } else {
            self.apply(change, context);
        }
    }

    pub(super) fn apply(&mut self, change: RoomChange, context: &Context) {
        debug_assert!(self.fan_out.is_none(), "the member list changes between fan-outs only");
        match change {
            RoomChange::Join(join) => self.join(join, context),
            RoomChange::Leave(Leave { subscription, final_frame }) => {
                self.leave(&subscription, context);
                drop(final_frame);
            }
            RoomChange::CaughtUp(job) => self.caught_up(job, context),
        }
    }

    fn join(&mut self, join: Box<Join>, context: &Context) {
        if self.backlog.head().is_some() {
            self.answer(*join, context);
        } else {
            self.ask_for(join, context);
        }
    }

    /// Lets a join wait for the head that the log has.
    fn ask_for(&mut self, join: Box<Join>, context: &Context) {
        if let Err(join) = self.waiting.add(join, self.backlog.head(), &context.catch_up) {
            join.fail(ErrorCode::TooManyRequests, &context.metrics);
        }
    }

    /// The head was read from the log; `None`: it could not be read.
    pub(in crate::engine) fn on_head(
        &mut self,
        question: &Arc<HeadQuestion>,
        head: Option<ReadHead>,
        context: &Context,
    ) -> Result<(), HistoryForked> {
        if !self.waiting.asked(question) {
            return Ok(());
        }
        let Some(read) = head else {
            self.fail_waiting(context);
            return Ok(());
        };
        if self.waiting.is_ahead_of(read.seq) {
            return Err(HistoryForked);
        }
        self.backlog.know_read_head(read);
        for mut join in self.waiting.take(&context.catch_up) {
            join.asked = true;
            self.apply_or_defer(RoomChange::Join(Box::new(join)), context);
        }
        Ok(())
    }

    fn fail_waiting(&mut self, context: &Context) {
        for join in self.waiting.take(&context.catch_up) {
            join.fail(ErrorCode::Internal, &context.metrics);
        }
    }

    /// Answers those who waited for a head that is known now.
    pub(super) fn answer_waiting(&mut self, context: &Context) {
        for join in self.waiting.take(&context.catch_up) {
            self.answer(join, context);
        }
    }

    /// Answers a join and makes its listener live, or hands it to the catch-up pool.
    fn answer(&mut self, join: Join, context: &Context) {
        if !join.subscription.is_held() {
            let joined = self.start_at_head(&join);
            join.succeed(joined);
            return;
        }
        let recover = join.recover.as_ref().filter(|_| self.options.persist);
        let Some(recover) = recover else {
            let joined = self.start_at_head(&join);
            return self.admit(join, joined, context);
        };
        let (after, reject) = (recover.after, recover.reject_unrecovered);
        let is_ours = recover.permitted && self.epoch.covers(&recover.epoch);
        if is_ours && self.backlog.head().is_some_and(|head| after > head) && !join.asked {
            return self.ask_for(Box::new(join), context);
        }
        if is_ours && after > self.backlog.delivered() && self.knows(after) {
            debug_assert!(self.backlog.is_behind(), "what was not delivered is to be sent");
            return self.deferred.push(RoomChange::Join(Box::new(join)));
        }
        if !is_ours || after > self.backlog.delivered() {
            context.count_recovery("failed");
            if reject {
                return join.fail(ErrorCode::UnrecoverablePosition, &context.metrics);
            }
            let joined = self.start_at_head(&join);
            return self.admit(join, joined, context);
        }
        match self.missed(after).filter(|_| join.subscription.outbox.has_capacity()) {
            Some(publications) => {
                context.count_recovery("tail");
                let joined =
                    Joined { offset: after, recovered: true, publications, ..self.start_at_head(&join) };
                self.admit(join, joined, context);
            }
            None => self.recover_from_log(join, after, context),
        }
    }

    /// True when the room has, or will have, given its live members the message with this number.
    fn knows(&self, seq: Seq) -> bool {
        self.backlog.head().is_some_and(|head| seq <= head)
    }

    /// The publications a listener at `after` missed, if the tail has all of it and retention hides none.
    fn missed(&self, after: Seq) -> Option<Vec<Publication>> {
        let publications: Vec<_> =
            self.backlog.tail().range(after, self.backlog.delivered())?.cloned().collect();
        let (retention, now) = (self.options.retention(), clock::unix_ms());
        let keeps = |publication: &Publication| retention.keeps(publication, self.backlog.delivered(), now);
        publications.iter().all(keeps).then_some(publications)
    }

    fn recover_from_log(&mut self, join: Join, after: Seq, context: &Context) {
        let (retention, until) = (self.options.retention(), self.backlog.delivered());
        self.insert(&join, false, context);
        let directory = context.catch_up.directory();
        let job = Job::for_join(join, retention, (after, until), self.epoch.name().clone(), directory);
        context.catch_up.run(Box::new(job));
    }

    fn start_at_head(&self, join: &Join) -> Joined {
        Joined {
            positioned: self.options.persist,
            epoch: self.epoch.name().clone(),
            offset: self.backlog.delivered(),
            was_recovering: join.recover.is_some() && self.options.persist,
            recovered: false,
            publications: Vec::new(),
            extra: join.extra.clone(),
        }
    }

    fn admit(&mut self, join: Join, joined: Joined, context: &Context) {
        let info = join.subscription.info.clone();
        self.insert(&join, true, context);
        join.succeed(joined);
        self.announce(Push::Join, &info);
    }

    fn insert(&mut self, join: &Join, live: bool, context: &Context) {
        debug_assert!(self.backlog.head().is_some(), "a member starts at a known position");
        let member = Member::new(join.subscription.clone(), live);
        if self.members_mut().insert(member).is_none() {
            context.metrics.listeners.inc();
        }
        self.usage.note_listener(Instant::now());
    }

    fn leave(&mut self, subscription: &Subscription, context: &Context) {
        if let Some(join) = self.waiting.give_up(subscription, &context.catch_up) {
            // Where it would stand is not known, and it could do nothing with that.
            return join.fail(ErrorCode::TooManyRequests, &context.metrics);
        }
        let Some(member) = self.members_mut().remove(subscription) else { return };
        context.metrics.listeners.dec();
        self.usage.note_listener(Instant::now());
        self.announce(Push::Leave, &member.subscription().info);
    }

    /// The list, to change it. No slice is with the pool, so it is shared with nobody and not copied.
    fn members_mut(&mut self) -> &mut Members {
        let is_own = Arc::strong_count(&self.members) == 1 || self.members.is_empty();
        debug_assert!(is_own, "the list changes while the pool walks it");
        Arc::make_mut(&mut self.members)
    }

    /// A listener served from the log has reached what was delivered when it was last here.
    fn caught_up(&mut self, job: Box<Job>, context: &Context) {
        let Some(index) = self.members.index_of(job.subscription()) else { return };
        let delivered = self.backlog.delivered();
        debug_assert!(job.after() <= delivered, "a job ran ahead of its room");
        if job.after() < delivered && !self.deliver_missed(&job) {
            return context.catch_up.extend(job, delivered);
        }
        debug_assert_eq!(job.after(), delivered, "a live member has everything that was delivered");
        self.members_mut().set_live(index);
        if job.is_resuming() {
            self.announce(Push::Join, &job.subscription().info);
        }
    }

    /// Gives a job's listener what it has not been given yet. False when the tail does not have that or
    /// the outbox no capacity for it.
    fn deliver_missed(&self, job: &Job) -> bool {
        let delivered = self.backlog.delivered();
        let Some(missed) = self.backlog.tail().range(job.after(), delivered) else { return false };
        job.subscription().outbox.has_capacity() && job.deliver(&job.pack(missed), delivered)
    }

    /// Pushes a join or leave to a small room. Best effort: skipped for full outboxes and for members in
    /// catch-up, whose subscribe reply may not be queued yet. Consumers in this process are not told.
    fn announce<'a>(&'a self, news: fn(&'a Channel, &'a ClientInfo) -> Push<'a>, info: &'a ClientInfo) {
        let small = self.members.len() <= self.options.join_leave_max_listeners;
        if !self.options.join_leave || !small || self.members.is_empty() {
            return;
        }
        let (push, sockets) = (news(&self.channel, info).into(), self.members.receivers().sockets);
        let frames = PerFormat::from_fn(|format| sockets[format].then(|| frame::message(format, &push)));
        for member in self.members.as_slice().iter().filter(|member| member.is_live()) {
            if let Some(frame) = &frames[member.outbox().format()] {
                let _ = member.outbox().push(frame);
            }
        }
    }

    /// Ends every subscription so that the clients come back and recover.
    pub(in crate::engine) fn reset(&mut self, context: &Context) {
        self.fail_waiting(context);
        for change in std::mem::take(&mut self.deferred) {
            if let RoomChange::Join(join) = change {
                join.fail(ErrorCode::Internal, &context.metrics);
            }
        }
        self.abandon_slice();
        for member in Arc::make_mut(&mut self.members).take_all() {
            context.metrics.listeners.dec();
            member.subscription().end_with_gap();
        }
    }
}
