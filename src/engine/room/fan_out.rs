//! The room's fan-out: pending publications on their way to the members, slice by slice.
//!
//! A fan-out may be left for other rooms between two slices. While it is under way the member list
//! does not change; at its end the commands that would have changed it are applied.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::state::Room;
use crate::config;
use crate::engine::catch_up::job::Job;
use crate::engine::command::Command;
use crate::engine::context::Context;
use crate::engine::delivery::choice::{Choice, Outcome, Strategy};
use crate::engine::delivery::parallel::{self, Flight};
use crate::engine::delivery::slice;
use crate::engine::mailboxes::Mailbox;
use crate::ids::Seq;
use crate::limits::{POOL_SLICE_LISTENERS, SLICE_LISTENERS};

/// Publications on their way to the members, slice by slice.
#[derive(Debug)]
pub(super) struct FanOut {
    /// `None`: they are only in the log, and every live member is to be served from there.
    frames: Option<Bytes>,
    publications: u64,
    since: Option<Instant>,
    /// `delivered` before and after.
    after: Seq,
    until: Seq,
    /// Members before this position are served.
    next: usize,
    choice: Choice,
    began: Instant,
    /// A slice that the pool serves.
    flight: Option<Arc<Flight>>,
}

impl Room {
    /// Starts sending what is pending. The caller then steps until the fan-out is over.
    pub(in crate::engine) fn begin_fan_out(
        &mut self,
        thresholds: &config::Rooms,
        sender_holds_idle_shard: bool,
    ) {
        let choice = self.choose(thresholds, sender_holds_idle_shard);
        self.choice = Some(choice);
        let in_memory = !self.pending.is_empty() || self.refill();
        if !in_memory {
            self.encoded = self.head.unwrap_or(self.encoded);
        }
        self.fan_out = Some(FanOut {
            frames: in_memory.then(|| self.pending.take()),
            publications: std::mem::take(&mut self.pending_count),
            since: self.pending_since.take(),
            after: self.delivered,
            until: self.encoded,
            next: 0,
            choice,
            began: Instant::now(),
            flight: None,
        });
    }

    /// Serves the next slice of members, or lets the pool serve it, which then sends
    /// [`Command::SliceDone`]; see [`is_in_flight`](Self::is_in_flight). At the end the deferred commands
    /// are applied.
    pub(in crate::engine) fn step_fan_out(&mut self, mailbox: &Arc<Mailbox>, context: &Context) {
        let Some(mut fan_out) = self.fan_out.take() else { return };
        let pool = parallel::pool().filter(|_| fan_out.choice.strategy == Strategy::Parallel);
        let length = match (fan_out.choice.strategy, pool) {
            // Nobody waits for the shard, and the sender does not come back to it.
            (Strategy::Inline, _) => usize::MAX,
            (_, None) => SLICE_LISTENERS,
            (_, Some(pool)) => POOL_SLICE_LISTENERS * pool.current_num_threads(),
        };
        let end = fan_out.next.saturating_add(length).min(self.members.len());
        match (&fan_out.frames, pool) {
            (None, _) => self.leave_slice_to_log(&fan_out, end, context),
            (Some(frames), None) => {
                let slice = &self.members.as_slice()[fan_out.next..end];
                let outcome = slice::fan_out(slice, fan_out.next, frames);
                self.settle_slice(&fan_out, &outcome, context);
            }
            (Some(frames), Some(pool)) => {
                let slice = fan_out.next..end;
                // A room that sends all the time leaves it to the scheduler which threads need a processor more.
                let rested = self.rest.is_over(fan_out.began);
                let (mailbox, channel) = (mailbox.clone(), self.channel.clone());
                let done = move || mailbox.send(Command::SliceDone { channel: channel.clone() });
                let flight = Flight::start(pool, self.members.clone(), slice, frames.clone(), rested, done);
                fan_out.flight = Some(flight);
                self.fan_out = Some(fan_out);
                return;
            }
        }
        self.end_slice(fan_out, end, context);
    }

    /// Takes back what the pool has served. False when there is nothing to take: the slice was that of an
    /// earlier life of the room.
    pub(in crate::engine) fn finish_slice(&mut self, context: &Context) -> bool {
        let flight = self.fan_out.as_ref().and_then(|fan_out| fan_out.flight.as_ref());
        let Some((end, served)) = flight.and_then(|flight| Some((flight.end(), flight.served()?))) else {
            return false;
        };
        let Some(mut fan_out) = self.fan_out.take() else { return false };
        fan_out.flight = None;
        // A panic there is one of this turn.
        let outcome = served.unwrap_or_else(|panic| resume_unwind(panic));
        self.settle_slice(&fan_out, &outcome, context);
        self.end_slice(fan_out, end, context);
        true
    }

    /// Ends a slice that the pool serves, without taking back what it came to.
    pub(super) fn abandon_flight(&mut self) {
        if let Some(flight) = self.fan_out.take().and_then(|fan_out| fan_out.flight) {
            flight.abandon();
        }
    }

    /// True while the pool serves a slice: until it says that it is done there is nothing to step.
    pub(in crate::engine) fn is_in_flight(&self) -> bool {
        self.fan_out.as_ref().is_some_and(|fan_out| fan_out.flight.is_some())
    }

    fn end_slice(&mut self, mut fan_out: FanOut, end: usize, context: &Context) {
        fan_out.next = end;
        if end < self.members.len() {
            self.fan_out = Some(fan_out);
            return;
        }
        let labels = [fan_out.choice.strategy.as_str(), fan_out.choice.reason.as_str()];
        context.metrics.fanouts_total.with_label_values(&labels).inc();
        let now = Instant::now();
        if let Some(since) = fan_out.since {
            context.metrics.fanout_seconds.observe((now - since).as_secs_f64());
        }
        self.delivered = fan_out.until;
        self.rest.observe(fan_out.began, now);
        for command in std::mem::take(&mut self.deferred) {
            self.apply(command, context);
        }
    }

    fn leave_slice_to_log(&mut self, fan_out: &FanOut, end: usize, context: &Context) {
        for position in fan_out.next..end {
            if self.members.as_slice()[position].live {
                self.fall_behind(position, fan_out.after, fan_out.until, context);
            }
        }
    }

    fn settle_slice(&mut self, fan_out: &FanOut, outcome: &Outcome, context: &Context) {
        self.cost.observe(outcome.work, outcome.delivered);
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
    pub(super) fn fall_behind(&mut self, position: usize, after: Seq, until: Seq, context: &Context) {
        let retention = self.retention();
        let member = Arc::make_mut(&mut self.members).at_mut(position);
        member.live = false;
        self.catching_up += 1;
        let job = Job::for_member(&self.channel, retention, member, (after, until), &context.catch_up);
        context.metrics.catch_ups_total.inc();
        context.catch_up.park(Box::new(job));
    }
}
