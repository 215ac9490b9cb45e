//! Removes what namespaces no longer keep, in small steps beside the traffic.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::Namespaces;
use crate::ids::Channel;
use crate::publication::Retention;
use crate::store::{PruneWalk, Pruned, Store};

/// Time between two rounds over the rooms. What retention hides is unreadable at once; the
/// round only gives the space back.
const ROUND_EVERY: Duration = Duration::from_secs(30);

/// Messages stored since a round began that make the next one due at once: they may have replaced as many.
const ROUND_AFTER_MESSAGES: u64 = 1000;

/// Time between two looks at how many messages were stored.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A round is followed by a pause of so many times the time for which it looked in vain, so that looking at
/// very many rooms never takes more than a fifth of a core.
const PAUSE_PER_READING: u32 = 4;

/// Time for which a step may keep the writer from others, about.
const STEP_HOLDS: Duration = Duration::from_millis(20);

/// Rows of the smallest and of the largest step.
const STEP_ROWS: RangeInclusive<usize> = 250..=16_000;

/// The thread.
#[derive(Debug)]
pub(super) struct Pruner {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Pruner {
    /// Starts the thread if any namespace forgets anything.
    pub(super) fn start(store: Arc<Store>, namespaces: &Namespaces) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let forgets = namespaces.iter().any(|namespace| !namespace.retention().keeps_all());
        let thread = match forgets {
            false => None,
            true => {
                let namespaces = namespaces.clone();
                let run = move || run(&store, &namespaces, &stopped);
                Some(thread::Builder::new().name("retention".into()).spawn(run)?)
            }
        };
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the retention thread panicked");
        }
    }
}

/// The size of steps: they grow while rows are left and the writer is hardly held up.
#[derive(Debug)]
struct Steps {
    rows: usize,
}

impl Steps {
    fn new() -> Self {
        Self { rows: *STEP_ROWS.start() }
    }

    /// Learns from a step; the pause behind it. The rows that are left get most of the writer's time, in
    /// turns with commits, or a server at its limit would never be rid of them.
    fn after(&mut self, pruned: &Pruned) -> Duration {
        debug_assert!(STEP_ROWS.contains(&self.rows), "steps are bounded");
        if pruned.held > 2 * STEP_HOLDS {
            self.rows = (self.rows / 2).max(*STEP_ROWS.start());
        } else if pruned.held < STEP_HOLDS && pruned.rows * 2 > self.rows {
            self.rows = (self.rows * 2).min(*STEP_ROWS.end());
        }
        (pruned.held / 4).max(Duration::from_millis(1))
    }
}

fn run(store: &Store, namespaces: &Namespaces, stopped: &Receiver<()>) {
    let rule = |channel: &Channel| rule_of(namespaces, channel);
    let is_over = |pause| stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
    let mut walk = PruneWalk::default();
    let mut steps = Steps::new();
    loop {
        let (started, stored) = (Instant::now(), store.stored_total());
        let mut in_vain = Duration::ZERO;
        let ended = loop {
            match store.prune(&mut walk, steps.rows, &rule) {
                Err(error) => break Err(error),
                Ok(pruned) => {
                    if pruned.rows == 0 {
                        in_vain += pruned.reading;
                    }
                    let pause = steps.after(&pruned);
                    if pruned.finished {
                        break Ok(());
                    }
                    if is_over(pause) {
                        return;
                    }
                }
            }
        };
        // When the store has failed, it has said why; the next round tries again.
        let pause = ended.map_or(ROUND_EVERY, |()| in_vain * PAUSE_PER_READING);
        if is_over(pause.min(ROUND_EVERY)) {
            return;
        }
        while started.elapsed() < ROUND_EVERY && store.stored_total() - stored < ROUND_AFTER_MESSAGES {
            if is_over(LOOK_EVERY) {
                return;
            }
        }
    }
}

/// The messages of a room that its namespace keeps. Rooms of a namespace that is no longer configured
/// keep what they have.
fn rule_of(namespaces: &Namespaces, channel: &Channel) -> Retention {
    namespaces.get(channel.namespace()).map_or(Retention::default(), |namespace| namespace.retention())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Caller;
    use crate::node::tests::rig::{Backend, Rig, channel, draft};

    #[test]
    fn a_room_is_pruned_by_its_own_namespace_only() {
        let rig = Rig::new(Backend::Sqlite, "[namespace.short]\nhistory_size = 2\n");
        let rule = |name: &str| rule_of(&rig.config.namespaces, &channel(name));
        assert_eq!(rule("short:a").size, 2);
        assert!(rule("lobby").keeps_all());
        assert!(rule("removed:a").keeps_all(), "an operator who forgets a section loses nothing");
    }

    #[test]
    fn steps_grow_while_rows_are_left_and_shrink_when_they_hold() {
        let mut steps = Steps::new();
        let mut step = |rows_of: fn(usize) -> usize, held| {
            let rows = rows_of(steps.rows);
            let pruned = Pruned { rows, finished: false, held, reading: Duration::ZERO };
            let pause = steps.after(&pruned);
            assert!(pause <= held.max(Duration::from_millis(4)));
            steps.rows
        };
        let (fast, slow) = (STEP_HOLDS / 4, STEP_HOLDS * 3);
        assert_eq!(step(|rows| rows, fast), 500);
        assert_eq!(step(|rows| rows, fast), 1000);
        assert_eq!(step(|_| 10, fast), 1000, "nothing is left");
        assert_eq!(step(|rows| rows, slow), 500);
        for _ in 0..20 {
            step(|rows| rows, fast);
        }
        assert_eq!(step(|rows| rows, fast), *STEP_ROWS.end());
        for _ in 0..20 {
            step(|rows| rows, slow);
        }
        assert_eq!(step(|rows| rows, slow), *STEP_ROWS.start());
    }

    #[test]
    fn the_pruner_keeps_up() {
        for backend in [Backend::Sqlite, Backend::Postgres] {
            let rig = Rig::new(backend, "[namespace.short]\nhistory_size = 10\n");
            let pruned = || rig.handle().metrics().pruned_messages_total.get();
            for _ in 0..20 {
                let drafts = (0..1000).map(|number| draft(&format!("short:{}", number % 20), "1"));
                let outcomes = rig.handle().publish(Caller::Operator, drafts.collect::<Vec<_>>());
                assert!(outcomes.iter().all(Result::is_ok));
            }
            // A pruner that waited for its next round would not have begun; what is published meanwhile would
            // only tell which of the two threads the system prefers.
            let deadline = Instant::now() + ROUND_EVERY / 2;
            while pruned() < 10_000 {
                assert!(Instant::now() < deadline, "{} of 20,000 rows were deleted", pruned());
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_thread_runs_only_where_something_is_forgotten() {
        for (settings, runs) in [("", false), ("[namespace.a]\nhistory_ttl = '1h'\n", true)] {
            let rig = Rig::new(Backend::Sqlite, settings);
            let pruner = Pruner::start(rig.handle().store.clone(), &rig.config.namespaces).unwrap();
            assert_eq!(pruner.thread.is_some(), runs, "{settings}");
            pruner.stop();
        }
    }
}
