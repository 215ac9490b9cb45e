//! The exploration of a scenario: the same for all protocols.
//!
//! A scenario is run again and again, each time with another order of the steps of its threads, on
//! one thread of the system. Half of the runs choose every step at random; the other half give the
//! threads priorities and change them at few places (PCT), which finds rare orders sooner. A run in
//! which everybody waits is a deadlock; one that takes too many steps is stuck in a circle.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

/// A run takes some hundred steps; one of so many never ends.
const STEPS_MAX: usize = 50_000;

/// Threads are coroutines with stacks of their own; a debug build needs more than the default.
const STACK_BYTES: usize = 256 * 1024;

/// Places where a run of PCT changes priorities. Most bugs need one or two.
const PRIORITY_CHANGES: usize = 3;

/// Runs the scenario in `runs` random orders and as many of PCT, or in as many times more as the
/// environment variable `ROOMCAST_MODEL_ITERATIONS` says.
pub(crate) fn explore(runs: usize, scenario: fn()) {
    let runs = runs * multiplier();
    run(RandomScheduler::new(runs), scenario);
    run(PctScheduler::new(PRIORITY_CHANGES, runs), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    Runner::new(scheduler, config).run(scenario);
}

fn multiplier() -> usize {
    std::env::var("ROOMCAST_MODEL_ITERATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}
