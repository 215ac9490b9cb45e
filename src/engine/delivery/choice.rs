//! The choice of the strategy of a fan-out, as a pure function.
//!
//! `inline`: the thread that committed it delivers, holding the shard. `worker`: the shard's worker
//! delivers. `parallel`: a pool of one thread a core delivers, while the shard serves its other rooms.
//! The choice follows the expected cost, listeners times what one of them took lately. Whatever is
//! chosen, only the owner of the shard begins a fan-out, and a room has one at a time, so order never
//! depends on the choice.

use std::time::Duration;

use crate::config;

pub(crate) use crate::config::Strategy;

/// A room that crossed a threshold goes back only when it is below it by this share, so that one near
/// a threshold does not change its strategy with every message.
const HYSTERESIS: f64 = 0.25;

/// Share of a core from which on a small room is busy: its publications come faster than one by one
/// pays, and the worker sends those of a turn together.
const BUSY: f64 = 0.25;

/// Reason for a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The operator said so, for the room or for its namespace.
    Forced,
    /// So cheap that handing it to the worker would cost more.
    Small,
    /// As cheap, but the shard had other work, or the publication came together with others.
    Queued,
    /// As cheap, but so frequent that sending several together saves more.
    Busy,
    /// Too expensive for the sender, not expensive enough for all cores.
    Moderate,
    /// So expensive that one thread would hold the shard for too long.
    Costly,
}

impl Reason {
    /// The name metrics and the API use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Small => "small",
            Self::Queued => "queued",
            Self::Busy => "busy",
            Self::Moderate => "moderate",
            Self::Costly => "costly",
        }
    }
}

/// A strategy and why it was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Choice {
    pub(in crate::engine) strategy: Strategy,
    pub(in crate::engine) reason: Reason,
}

/// Inputs of the choice.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Circumstances {
    /// Listeners of the room that are served live.
    pub(in crate::engine) listeners: usize,
    /// Expected time of one thread for all of them.
    pub(in crate::engine) cost: Duration,
    /// Publications of the room per second.
    pub(in crate::engine) rate: f64,
    /// The committing thread holds the idle shard and has this one publication.
    pub(in crate::engine) sender_holds_idle_shard: bool,
    /// The strategy the operator forces.
    pub(in crate::engine) forced: Option<Strategy>,
    /// The choice before this one.
    pub(in crate::engine) before: Option<Choice>,
}

/// The strategy for one fan-out. Inline is only ever chosen for a sender that holds the idle shard,
/// whatever the operator wants: otherwise publications could overtake each other.
pub(in crate::engine) fn choose(thresholds: &config::Rooms, now: &Circumstances) -> Choice {
    let choice = |strategy, reason| Choice { strategy, reason };
    match now.forced {
        Some(Strategy::Inline) if !now.sender_holds_idle_shard => choice(Strategy::Worker, Reason::Queued),
        Some(strategy) => choice(strategy, Reason::Forced),
        None if is_costly(thresholds, now) => choice(Strategy::Parallel, Reason::Costly),
        None if !is_cheap(thresholds, now) => choice(Strategy::Worker, Reason::Moderate),
        None if is_busy(now) => choice(Strategy::Worker, Reason::Busy),
        None if !now.sender_holds_idle_shard => choice(Strategy::Worker, Reason::Queued),
        None => choice(Strategy::Inline, Reason::Small),
    }
}

fn is_costly(thresholds: &config::Rooms, now: &Circumstances) -> bool {
    let stays = now.before.is_some_and(|before| before.reason == Reason::Costly);
    let threshold = thresholds.parallel_min_cost.mul_f64(if stays { 1.0 - HYSTERESIS } else { 1.0 });
    now.listeners >= thresholds.parallel_min_listeners && now.cost >= threshold
}

fn is_cheap(thresholds: &config::Rooms, now: &Circumstances) -> bool {
    let left = now.before.is_some_and(|before| matches!(before.reason, Reason::Moderate | Reason::Costly));
    let threshold = thresholds.inline_max_cost.mul_f64(if left { 1.0 - HYSTERESIS } else { 1.0 });
    now.listeners <= thresholds.inline_max_listeners && now.cost <= threshold
}

fn is_busy(now: &Circumstances) -> bool {
    let stays = now.before.is_some_and(|before| before.reason == Reason::Busy);
    let threshold = BUSY * if stays { 1.0 - HYSTERESIS } else { 1.0 };
    now.rate * now.cost.as_secs_f64() > threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: config::Rooms = config::Rooms {
        idle_timeout: Duration::MAX,
        inline_max_listeners: 64,
        inline_max_cost: Duration::from_micros(200),
        parallel_min_listeners: 256,
        parallel_min_cost: Duration::from_millis(8),
        catch_up_workers: 1,
    };

    fn now(listeners: usize, micros_each: u64) -> Circumstances {
        Circumstances {
            listeners,
            cost: Duration::from_micros(micros_each) * listeners as u32,
            rate: 1.0,
            sender_holds_idle_shard: true,
            forced: None,
            before: None,
        }
    }

    #[track_caller]
    fn expect(now: Circumstances, strategy: Strategy, reason: Reason) -> Choice {
        let choice = choose(&THRESHOLDS, &now);
        assert_eq!(choice, Choice { strategy, reason }, "{now:?}");
        choice
    }

    #[test]
    fn cost_decides_within_the_bounds_of_size() {
        expect(now(0, 4), Strategy::Inline, Reason::Small);
        expect(now(50, 4), Strategy::Inline, Reason::Small);
        expect(now(51, 4), Strategy::Worker, Reason::Moderate);
        expect(now(65, 1), Strategy::Worker, Reason::Moderate);
        expect(now(1999, 4), Strategy::Worker, Reason::Moderate);
        expect(now(2000, 4), Strategy::Parallel, Reason::Costly);
        expect(now(800, 10), Strategy::Parallel, Reason::Costly);
        expect(now(255, 1000), Strategy::Worker, Reason::Moderate);
    }

    #[test]
    fn only_a_sender_with_the_idle_shard_delivers_inline() {
        let queued = |circumstances| Circumstances { sender_holds_idle_shard: false, ..circumstances };
        expect(queued(now(10, 4)), Strategy::Worker, Reason::Queued);
        let forced = Circumstances { forced: Some(Strategy::Inline), ..now(100_000, 4) };
        expect(forced, Strategy::Inline, Reason::Forced);
        expect(queued(forced), Strategy::Worker, Reason::Queued);
    }

    #[test]
    fn a_forced_strategy_overrides_cost_and_size() {
        for strategy in [Strategy::Worker, Strategy::Parallel] {
            expect(Circumstances { forced: Some(strategy), ..now(1, 4) }, strategy, Reason::Forced);
        }
    }

    #[test]
    fn a_small_room_that_is_busy_goes_to_the_worker() {
        // 50 listeners x 4 us = 200 us; a quarter of a core is 1,250 publications a second.
        expect(Circumstances { rate: 1200.0, ..now(50, 4) }, Strategy::Inline, Reason::Small);
        let busy = Circumstances { rate: 1300.0, ..now(50, 4) };
        let before = Some(expect(busy, Strategy::Worker, Reason::Busy));
        let calmer = Circumstances { rate: 1000.0, before, ..now(50, 4) };
        expect(calmer, Strategy::Worker, Reason::Busy);
        expect(Circumstances { rate: 900.0, ..calmer }, Strategy::Inline, Reason::Small);
    }

    #[test]
    fn near_a_threshold_the_strategy_stays() {
        let moderate = Some(expect(now(51, 4), Strategy::Worker, Reason::Moderate));
        expect(Circumstances { before: moderate, ..now(40, 4) }, Strategy::Worker, Reason::Moderate);
        expect(Circumstances { before: moderate, ..now(37, 4) }, Strategy::Inline, Reason::Small);
        let costly = Some(expect(now(2000, 4), Strategy::Parallel, Reason::Costly));
        expect(Circumstances { before: costly, ..now(1500, 4) }, Strategy::Parallel, Reason::Costly);
        expect(Circumstances { before: costly, ..now(1499, 4) }, Strategy::Worker, Reason::Moderate);
    }
}
