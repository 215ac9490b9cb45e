//! How a publication gets to the listeners of its room: three strategies behind one pure choice.
//!
//! `inline`: the thread that committed it delivers, holding the shard. `queued`: the shard's worker
//! delivers. `parallel`: the worker splits the listeners over all cores. Whatever is chosen, only the
//! owner of the shard delivers, so order never depends on the choice.

pub(super) mod parallel;
pub(super) mod serial;

use bytes::Bytes;

use super::members::Member;
use crate::config;
use crate::outbox::Push;

/// Who delivers, and on how many cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The thread that committed the message, holding the shard: no hand-off, lowest latency.
    Inline,
    /// The shard's worker, alone.
    Worker,
    /// The shard's worker with the help of all cores.
    Parallel,
}

impl Strategy {
    /// The name metrics and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Worker => "worker",
            Self::Parallel => "parallel",
        }
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances {
    /// Listeners of the room.
    pub(super) listeners: usize,
    /// The committing thread holds the idle shard and has this one publication.
    pub(super) sender_holds_idle_shard: bool,
}

/// The thresholds an operator may set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thresholds {
    pub(super) inline_max_listeners: usize,
    pub(super) parallel_min_listeners: usize,
}

impl From<&config::Rooms> for Thresholds {
    fn from(rooms: &config::Rooms) -> Self {
        Self {
            inline_max_listeners: rooms.inline_max_listeners,
            parallel_min_listeners: rooms.parallel_min_listeners,
        }
    }
}

/// The strategy for one fan-out. The cost of a fan-out is its listeners times one `send`, so the
/// number of listeners decides; an inline fan-out must be cheaper than waking the worker.
pub(super) fn choose(thresholds: Thresholds, now: Circumstances) -> Strategy {
    if now.sender_holds_idle_shard && now.listeners <= thresholds.inline_max_listeners {
        Strategy::Inline
    } else if now.listeners >= thresholds.parallel_min_listeners {
        Strategy::Parallel
    } else {
        Strategy::Worker
    }
}

/// What a fan-out over some members came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Outboxes that took the frames.
    pub(super) delivered: usize,
    /// Positions of members whose outboxes were full.
    pub(super) full: Vec<usize>,
}

impl Outcome {
    fn push_to(&mut self, position: usize, member: &Member, frames: &Bytes) {
        if !member.live {
            return;
        }
        match member.outbox.push(frames) {
            Push::Accepted => self.delivered += 1,
            Push::Full => self.full.push(position),
            // Its own reader is already taking it out of the room.
            Push::Closed => {}
        }
    }

    fn merge(mut self, other: Self) -> Self {
        self.delivered += other.delivered;
        self.full.extend(other.full);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_as_a_table() {
        let thresholds = Thresholds { inline_max_listeners: 16, parallel_min_listeners: 2048 };
        for (listeners, idle, expected) in [
            (0, true, Strategy::Inline),
            (16, true, Strategy::Inline),
            (17, true, Strategy::Worker),
            (16, false, Strategy::Worker),
            (2047, false, Strategy::Worker),
            (2048, false, Strategy::Parallel),
            (2048, true, Strategy::Parallel),
        ] {
            let now = Circumstances { listeners, sender_holds_idle_shard: idle };
            assert_eq!(choose(thresholds, now), expected, "{now:?}");
        }
    }
}
