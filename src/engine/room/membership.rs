//! The room's members: how they come, are served from the log until they are live, and go.
//!
//! Joins, leaves and listeners that caught up all change the member list, so they wait while a
//! fan-out is under way.

use std::sync::Arc;

use super::state::Room;
use crate::clock;
use crate::engine::catch_up::job::Job;
use crate::engine::command::Command;
use crate::engine::context::Context;
use crate::engine::join::{Join, Joined};
use crate::engine::members::{Member, Members};
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::outbox::frame::{self, LineFrames};
use crate::protocol::code::ErrorCode;
use crate::protocol::push;
use crate::publication::{ClientInfo, Publication};

impl Room {
    /// Applies a command that may change the member list, at once or after the fan-out.
    pub(in crate::engine) fn apply_or_defer(&mut self, command: Command, context: &Context) {
        if self.fan_out.is_some() {
            self.deferred.push(command);
        } else {
            self.apply(command, context);
        }
    }

    pub(super) fn apply(&mut self, command: Command, context: &Context) {
        match command {
            Command::Join(join) => self.join(*join, context),
            Command::Leave { connection, subscription, farewell, .. } => {
                self.leave(connection, subscription, context);
                drop(farewell);
            }
            Command::CaughtUp(job) => self.caught_up(job, context),
            other => tracing::error!(?other, "a command that changes no member list was deferred"),
        }
    }

    fn join(&mut self, join: Join, context: &Context) {
        if self.head.is_some() {
            self.settle(join, context);
            return;
        }
        if !std::mem::replace(&mut self.looking_up, true) {
            context.catch_up.look_up_head(self.channel.clone());
        }
        self.waiting.push(join);
    }

    /// The head was read from the log; `None`: it could not be read.
    pub(in crate::engine) fn on_head(&mut self, head: Option<Seq>, context: &Context) {
        self.looking_up = false;
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

    pub(super) fn know_head(&mut self, head: Seq, context: &Context) {
        self.head = Some(head);
        self.delivered = head;
        self.encoded = head;
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
        match self.missed(after).filter(|_| join.listener.outbox.has_capacity()) {
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
        let job = Job::for_join(join, retention, (after, until), context.epoch.clone(), &context.catch_up);
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
        match self.members_mut().insert(member) {
            Some(replaced) if !replaced.live => self.catching_up -= 1,
            Some(_) => {}
            None => context.metrics.listeners.inc(),
        }
    }

    fn leave(&mut self, connection: ConnectionId, subscription: SubscriptionId, context: &Context) {
        let Some(member) = self.members_mut().remove(connection, subscription) else { return };
        context.metrics.listeners.dec();
        self.forget_if_lagging(&member);
        self.announce(push::leave, &member.info);
    }

    /// The list, to change it. No slice is in flight, so it is shared with nobody and not copied.
    fn members_mut(&mut self) -> &mut Members {
        Arc::make_mut(&mut self.members)
    }

    fn forget_if_lagging(&mut self, member: &Member) {
        if !member.live {
            self.catching_up -= 1;
        }
    }

    /// A listener served from the log has reached what was delivered when it was last here.
    fn caught_up(&mut self, job: Box<Job>, context: &Context) {
        let members = Arc::make_mut(&mut self.members);
        let Some(member) = members.get_mut(job.connection(), job.subscription()) else { return };
        let rest = self.tail.range(job.after(), self.delivered);
        let mut frames = LineFrames::default();
        match rest {
            Some(rest) if member.outbox.has_capacity() => {
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

    /// Pushes a join or leave to a small room. A hint, not a message: who has no room misses it, and who
    /// is served from the log, for its subscribe may not be answered yet.
    fn announce(&self, encode: fn(&mut Vec<u8>, &Channel, &ClientInfo), info: &ClientInfo) {
        let small = self.members.len() <= self.options.join_leave_max_listeners;
        if !self.options.join_leave || !small || self.members.is_empty() {
            return;
        }
        let mut text = Vec::new();
        encode(&mut text, &self.channel, info);
        let frame = frame::text(&text);
        for member in self.members.as_slice().iter().filter(|member| member.live) {
            let _ = member.outbox.push(&frame);
        }
    }

    /// Ends every subscription so that the clients come back and recover.
    pub(in crate::engine) fn reset(&mut self, context: &Context) {
        for join in self.waiting.drain(..) {
            join.fail(ErrorCode::Internal, &context.metrics);
        }
        self.abandon_flight();
        for member in self.members_mut().take_all() {
            context.metrics.listeners.dec();
            member.listener.lose(&self.channel, member.subscription);
        }
    }
}
