//! The room's fan-out: pending publications on their way to the members, slice by slice.
//!
//! A fan-out may be left for other rooms between two slices. While it is under way the member list
//! does not change; at its end the commands that would have changed it are applied.

use std::time::Instant;

use bytes::Bytes;

use super::Room;
use crate::engine::catch_up::Job;
use crate::engine::delivery::{self, Choice, Outcome, Strategy, Thresholds};
use crate::engine::shard::Context;
use crate::ids::Seq;
use crate::limits::SLICE_LISTENERS;

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
}

impl Room {
    /// Starts sending what is pending. The caller then steps until the fan-out is over.
    pub(in crate::engine) fn begin_fan_out(
        &mut self,
        thresholds: &Thresholds,
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
        });
    }

    /// Serves the next slice of members. At the end the deferred commands are applied.
    pub(in crate::engine) fn step_fan_out(&mut self, context: &Context) {
        let Some(mut fan_out) = self.fan_out.take() else { return };
        let end = fan_out.next.saturating_add(slice_length(fan_out.choice.strategy)).min(self.members.len());
        match &fan_out.frames {
            Some(frames) => self.serve_slice(&fan_out, frames, end, context),
            None => self.leave_slice_to_log(&fan_out, end, context),
        }
        fan_out.next = end;
        if end < self.members.len() {
            self.fan_out = Some(fan_out);
            return;
        }
        let labels = [fan_out.choice.strategy.as_str(), fan_out.choice.reason.as_str()];
        context.metrics.fanouts_total.with_label_values(&labels).inc();
        if let Some(since) = fan_out.since {
            context.metrics.fanout_seconds.observe(since.elapsed().as_secs_f64());
        }
        self.delivered = fan_out.until;
        for command in std::mem::take(&mut self.deferred) {
            self.apply(command, context);
        }
    }

    fn serve_slice(&mut self, fan_out: &FanOut, frames: &Bytes, end: usize, context: &Context) {
        let slice = &self.members.as_slice()[fan_out.next..end];
        let outcome = match fan_out.choice.strategy {
            Strategy::Inline | Strategy::Worker => delivery::serial::fan_out(slice, fan_out.next, frames),
            Strategy::Parallel => delivery::parallel::fan_out(slice, fan_out.next, frames),
        };
        self.cost.observe(outcome.work, outcome.delivered);
        self.settle_slice(fan_out, &outcome, context);
    }

    fn leave_slice_to_log(&mut self, fan_out: &FanOut, end: usize, context: &Context) {
        for position in fan_out.next..end {
            if self.members.as_slice()[position].live {
                self.fall_behind(position, fan_out.after, fan_out.until, context);
            }
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
    pub(super) fn fall_behind(&mut self, position: usize, after: Seq, until: Seq, context: &Context) {
        let retention = self.retention();
        let member = self.members.at_mut(position);
        member.live = false;
        self.catching_up += 1;
        let job = Job::for_member(&self.channel, retention, member, (after, until), &context.catch_up);
        context.metrics.catch_ups_total.inc();
        context.catch_up.park(Box::new(job));
    }
}

/// Members one step serves.
fn slice_length(strategy: Strategy) -> usize {
    match strategy {
        // Nobody waits for the shard, and the sender does not come back to it.
        Strategy::Inline => usize::MAX,
        Strategy::Worker => SLICE_LISTENERS,
        Strategy::Parallel => SLICE_LISTENERS * rayon::current_num_threads(),
    }
}
