//! The commit lanes: messages become durable and are passed on in commit order.
//!
//! SQLite has one lane, for it has one writer; PostgreSQL has several, and a room is always in the
//! same one. `group_commit` shares a lane among the calling threads, `writer` keeps the lane's
//! connection, `isolate` finds bad rows, `transaction` is the SQL, `rows` the types it shares with the
//! statements of both databases.

mod group_commit;
mod history;
mod isolate;
mod postgres;
mod rows;
mod sqlite;
mod statement;
mod transaction;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::Database;
use crate::ids::Channel;
use crate::metrics::Metrics;
use crate::store::connection::{Connection, Target};
use crate::store::error::{AppendError, StoreError};
use crate::store::health::{Monitor, Side};
use crate::store::lineage::Lineage;
use crate::store::message::{CommitSink, NewMessage};
use crate::sync::{Mutex, MutexGuard, blocking, lock};

pub(crate) use group_commit::Completion;
use group_commit::{BatchLimits, Committed, GroupCommit, Row};
use history::LaneHistory;
use rows::Outcome;
use writer::Writer;

impl Row for NewMessage {
    fn size_bytes(&self) -> usize {
        Self::size_bytes(self)
    }
}

/// Rows of large submissions in one commit while rows of others wait, and half of those when nobody does: some
/// milliseconds, also when each of them makes a room.
const TURN_ROWS_MAX: usize = 128;

/// All lanes of a store.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    stored_total: AtomicU64,
    monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
}

struct Lane {
    group: GroupCommit<NewMessage, Outcome>,
    /// Held while waiting for the writer. Without it a busy leader, who is back before a waiting thread has
    /// woken up, would keep other writes out for as long as there are messages.
    turn: Mutex<()>,
    /// Locked by the leader for a commit, and on SQLite also by the rare other writes.
    writer: Mutex<Writer>,
}

impl Lane {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        let _turn = lock(&self.turn);
        lock(&self.writer)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Lanes {
    /// Builds the lanes; `first` is an open connection that the first of them takes over.
    pub(super) fn new(
        config: &Database,
        target: &Target,
        first: Connection,
        lineage: &Arc<Lineage>,
        (monitor, metrics): (&Arc<Monitor>, &Arc<Metrics>),
    ) -> Self {
        let limits = BatchLimits {
            rows_max: config.batch_rows_max,
            bytes_max: config.batch_bytes_max,
            turn_rows_max: TURN_ROWS_MAX,
        };
        let count = if target.is_sqlite() { 1 } else { config.commit_lanes.max(1) };
        let mut first = Some(first);
        let lanes = (0..count).map(|number| {
            let history = LaneHistory::new(lineage.clone(), number);
            Lane {
                group: GroupCommit::new(limits, || Err(AppendError::Unavailable)),
                turn: Mutex::new(()),
                writer: Mutex::new(Writer::new(target.clone(), first.take(), history, monitor.clone())),
            }
        });
        let (monitor, metrics) = (monitor.clone(), metrics.clone());
        Self { lanes: lanes.collect(), stored_total: AtomicU64::new(0), monitor, metrics }
    }

    /// Stores the messages; returns once every one is durable and passed to the sink, or refused.
    pub(super) fn append(&self, messages: Vec<NewMessage>, sink: &dyn CommitSink) -> Vec<Outcome> {
        blocking::waiting(|| match &*self.lanes {
            [lane] => self.submit(lane, messages, sink),
            _ => self.append_split(messages, sink),
        })
    }

    /// One lane after the other, so that no lane ever waits for a thread that is busy in another.
    fn append_split(&self, messages: Vec<NewMessage>, sink: &dyn CommitSink) -> Vec<Outcome> {
        let total = messages.len();
        let mut by_lane: Vec<(Vec<usize>, Vec<NewMessage>)> = Vec::new();
        by_lane.resize_with(self.lanes.len(), Default::default);
        for (index, message) in messages.into_iter().enumerate() {
            let lane = self.of(&message.channel);
            by_lane[lane].0.push(index);
            by_lane[lane].1.push(message);
        }
        let mut outcomes = vec![Err(AppendError::Unavailable); total];
        for (lane, (indices, messages)) in self.lanes.iter().zip(by_lane) {
            let answers = self.submit(lane, messages, sink);
            debug_assert_eq!(answers.len(), indices.len(), "a lane answers each of its rows");
            for (index, outcome) in indices.into_iter().zip(answers) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Messages stored since the start.
    pub(super) fn stored_total(&self) -> u64 {
        self.stored_total.load(Ordering::Relaxed)
    }

    /// Number of the lane of a channel.
    pub(super) fn of(&self, channel: &Channel) -> usize {
        (channel.stable_hash() % self.lanes.len() as u64) as usize
    }

    /// Puts messages of one lane into it and returns at once. True when the caller has to see that
    /// [`lead`](Self::lead) is called.
    pub(super) fn submit_and_go(
        &self,
        lane: usize,
        messages: Vec<NewMessage>,
        completion: Arc<dyn Completion<Outcome>>,
    ) -> bool {
        debug_assert!(messages.iter().all(|message| self.of(&message.channel) == lane), "another lane's");
        self.lanes[lane].group.submit_and_go(messages, completion)
    }

    /// Leads a lane for a caller that was appointed and does not wait.
    pub(super) fn lead(&self, lane: usize, sink: &dyn CommitSink) {
        let lane = &self.lanes[lane];
        blocking::waiting(|| {
            lane.group.lead_on(|batch, waited| {
                self.metrics.commit_wait_seconds.observe(waited.as_secs_f64());
                self.commit(lane, sink, &batch)
            });
        });
    }

    fn submit(&self, lane: &Lane, messages: Vec<NewMessage>, sink: &dyn CommitSink) -> Vec<Outcome> {
        lane.group.submit(messages, |batch, waited| {
            self.metrics.commit_wait_seconds.observe(waited.as_secs_f64());
            self.commit(lane, sink, &batch)
        })
    }

    /// The leader's work on a batch: writes it and passes what is new to the sink.
    fn commit<'a>(
        &self,
        lane: &Lane,
        sink: &'a dyn CommitSink,
        messages: &[NewMessage],
    ) -> Committed<'a, Outcome> {
        debug_assert!(!messages.is_empty(), "a leader takes at least one row");
        let started = Instant::now();
        let (written, begun) = lane.writer().write(messages);
        debug_assert_eq!(written.outcomes.len(), messages.len(), "every message has its outcome");
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.commit_batch_rows.observe(messages.len() as f64);
        if written.store_failure.is_some() {
            self.metrics.commit_failures_total.inc();
        }
        let publications = written.publications;
        self.stored_total.fetch_add(publications.len() as u64, Ordering::Relaxed);
        let after = if publications.is_empty() { None } else { sink.committed(publications, begun) };
        Committed { answers: written.outcomes, after }
    }

    /// Runs a write that is no message through the first lane's connection, in a transaction of
    /// its own: how SQLite's one writer is shared.
    pub(super) fn write_beside<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        blocking::waiting(|| self.lanes[0].writer().write_beside(work))
    }

    /// Lets a store that is down prove that it works again.
    pub(super) fn probe(&self) {
        for lane in &self.lanes {
            if self.monitor.is_down(Side::Write)
                && let Ok(mut writer) = lane.writer.try_lock()
            {
                writer.probe();
            }
        }
    }
}
