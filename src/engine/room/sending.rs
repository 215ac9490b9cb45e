//! The room's fan-out: pending publications on their way to the members, slice by slice.
//!
//! A fan-out may be left for other rooms between two slices. While it is under way the member list
//! does not change; at its end the changes that waited are applied.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Instant;

use super::backlog::Batch;
use super::fan_out::FanOut;
use super::state::Room;
use crate::config;
use crate::engine::catch_up::job::Job;
use crate::engine::command::Command;
use crate::engine::context::Context;
use crate::engine::delivery::choice::Strategy;
use crate::engine::delivery::parallel::{self, PoolSlice};
use crate::engine::delivery::slice::{self, Outcome};
use crate::engine::mailboxes::Mailbox;
use crate::limits::{POOL_SLICE_LISTENERS, SLICE_LISTENERS};

impl Room {
    /// Starts sending what is pending. The caller then steps until the fan-out is over.
    pub(in crate::engine) fn begin_fan_out(
        &mut self,
        thresholds: &config::Rooms,
        sender_holds_idle_shard: bool,
    ) {
        let choice = self.choose(thresholds, sender_holds_idle_shard);
        self.choice = Some(choice);
        debug_assert!(self.fan_out.is_none(), "one fan-out at a time");
        self.fan_out = Some(FanOut::new(self.backlog.begin(self.members.receivers()), choice));
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
        match (&fan_out.batch.packet, pool) {
            (None, _) => self.leave_slice_to_log(&fan_out, end, context),
            (Some(packet), None) => {
                let slice = &self.members.as_slice()[fan_out.next..end];
                let outcome = slice::fan_out(slice, fan_out.next, packet);
                self.count_slice(&fan_out, &outcome, context);
            }
            (Some(packet), Some(pool)) => {
                let slice = fan_out.next..end;
                // A room that sends all the time leaves it to the scheduler which threads need a processor more.
                let cooled_down = self.pace.cooldown.is_over(fan_out.began);
                let (mailbox, channel) = (mailbox.clone(), self.channel.clone());
                let done = move || mailbox.send(Command::SliceDone { channel: channel.clone() });
                let pool_slice =
                    PoolSlice::start(pool, self.members.clone(), slice, packet.clone(), cooled_down, done);
                fan_out.pool_slice = Some(pool_slice);
                self.fan_out = Some(fan_out);
                return;
            }
        }
        self.end_slice(fan_out, end, context);
    }

    /// Takes back what the pool has served. False when there is nothing to take: the slice was that of an
    /// earlier life of the room.
    pub(in crate::engine) fn finish_slice(&mut self, context: &Context) -> bool {
        let slice = self.fan_out.as_ref().and_then(|fan_out| fan_out.pool_slice.as_ref());
        let Some((end, served)) = slice.and_then(|slice| Some((slice.end(), slice.served()?))) else {
            return false;
        };
        let Some(mut fan_out) = self.fan_out.take() else { return false };
        fan_out.pool_slice = None;
        // A panic there is one of this turn.
        let outcome = served.unwrap_or_else(|panic| resume_unwind(panic));
        self.count_slice(&fan_out, &outcome, context);
        self.end_slice(fan_out, end, context);
        true
    }

    /// Ends a slice that the pool serves, without taking back what it came to.
    pub(super) fn abandon_slice(&mut self) {
        if let Some(slice) = self.fan_out.take().and_then(|fan_out| fan_out.pool_slice) {
            slice.abandon();
        }
    }

    /// True while the pool serves a slice: until it says that it is done there is nothing to step.
    pub(in crate::engine) fn is_in_flight(&self) -> bool {
        self.fan_out.as_ref().is_some_and(|fan_out| fan_out.pool_slice.is_some())
    }

    fn end_slice(&mut self, mut fan_out: FanOut, end: usize, context: &Context) {
        debug_assert!(end >= fan_out.next, "a slice serves members behind those that are served");
        fan_out.next = end;
        if end < self.members.len() {
            self.fan_out = Some(fan_out);
            return;
        }
        let labels = [fan_out.choice.strategy.as_str(), fan_out.choice.reason.as_str()];
        context.metrics.fanouts_total.with_label_values(&labels).inc();
        let now = Instant::now();
        if let Some(since) = fan_out.batch.since {
            context.metrics.fanout_seconds.observe((now - since).as_secs_f64());
        }
        self.backlog.finish(&fan_out.batch);
        self.pace.cooldown.observe(fan_out.began, now);
        for change in std::mem::take(&mut self.deferred) {
            self.apply(change, context);
        }
    }

    fn leave_slice_to_log(&mut self, fan_out: &FanOut, end: usize, context: &Context) {
        for index in fan_out.next..end {
            if self.members.as_slice()[index].is_live() {
                self.start_catch_up(index, &fan_out.batch, context);
            }
        }
    }

    fn count_slice(&mut self, fan_out: &FanOut, outcome: &Outcome, context: &Context) {
        self.pace.cost.observe(outcome.work, outcome.delivered);
        context.metrics.deliveries_total.inc_by(outcome.delivered as u64 * fan_out.batch.publications);
        if self.options.persist {
            for &index in &outcome.full {
                self.start_catch_up(index, &fan_out.batch, context);
            }
        } else {
            let dropped = outcome.full.len() as u64 * fan_out.batch.publications;
            context.metrics.dropped_ephemeral_total.inc_by(dropped);
        }
    }

    /// Takes a member out of live delivery; the catch-up pool goes on behind the last message it has.
    fn start_catch_up(&mut self, index: usize, batch: &Batch, context: &Context) {
        let retention = self.options.retention();
        let members = Arc::make_mut(&mut self.members);
        members.set_lagging(index);
        let subscription = members.as_slice()[index].subscription();
        let span = (batch.after, batch.until);
        let job = Job::for_member(subscription, retention, span, context.catch_up.directory());
        context.metrics.catch_ups_total.inc();
        context.catch_up.park(Box::new(job));
    }
}
