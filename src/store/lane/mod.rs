//! The commit lanes: messages become durable and are passed on in commit order.
//!
//! SQLite has one lane, for it has one writer; PostgreSQL has several, and a room is always in the
//! same one. `group_commit` shares a lane among the calling threads, `leader` is the thread that leads for those
//! that must not hang, `writer` keeps the lane's connection, `seat` lends it, `isolate` finds bad rows, `verdict` has PostgreSQL say that one is bad, `transaction` is the SQL, `rows` the types it shares with the
//! statements of both databases.

mod foreign;
mod group_commit;
mod history;
mod isolate;
mod leader;
#[cfg(feature = "postgres")]
mod postgres;
mod rows;
mod seat;
mod sqlite;
mod statement;
mod transaction;
#[cfg(feature = "postgres")]
mod verdict;
mod writer;

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Database;
use crate::ids::Channel;
use crate::limits::STORE_ANSWER_MAX;
use crate::metrics::Metrics;
use crate::publication::Publication;
use crate::store::connection::{Connection, SQLITE_BUSY, Target};
use crate::store::error::{AppendError, Outage, StoreError, TOO_LATE};
use crate::store::health::{Monitor, Side};
use crate::store::lineage::Lineage;
use crate::store::message::{CommitSink, NewMessage};
use crate::sync::{blocking, deadline};

pub(super) use foreign::store_for_others;
pub(crate) use group_commit::Completion;
use group_commit::{BatchLimits, Committed, GroupCommit, Row};
use history::LaneHistory;
use leader::{Leader, Sleeper};
use rows::Outcome;
use seat::Seat;
use writer::Writer;

impl Row for NewMessage {
    fn size_bytes(&self) -> usize {
        Self::size_bytes(self)
    }
}

/// Rows of large submissions in one commit while rows of others wait, and twice as many when none do: some
/// milliseconds, also when each of them makes a room.
const TURN_ROWS_MAX: usize = 128;

/// The same on PostgreSQL, where all lanes take their turns at once and a row costs more.
const POSTGRES_TURN_ROWS_MAX: usize = 32;

/// Time that is left to messages whose sender has waited too long when they come: enough for a commit of a store that
/// works again.
const LAST_TRY: Duration = Duration::from_millis(250);

/// All lanes of a store.
pub(super) struct Lanes {
    lanes: Vec<Arc<Lane>>,
    /// The thread of each lane; none on SQLite, where callers that sleep lead.
    leaders: Vec<Leader>,
    metrics: Arc<Metrics>,
    monitor: Arc<Monitor>,
}

struct Lane {
    group: GroupCommit<NewMessage, Outcome>,
    /// Taken by the leader for a commit, on SQLite also by the rare other writes, and by probes.
    writer: Seat,
    side: Side,
    stored_total: AtomicU64,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

/// Number of lanes that a configuration asks for.
pub(super) fn count(config: &Database, target: &Target) -> usize {
    if target.is_sqlite() { 1 } else { config.commit_lanes.max(1) }
}

impl Lanes {
    /// Builds the lanes; `first` is an open connection that the first of them takes over.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn new(
        config: &Database,
        target: &Target,
        first: Connection,
        lineage: &Arc<Lineage>,
        (monitor, metrics): (&Arc<Monitor>, &Arc<Metrics>),
    ) -> io::Result<Self> {
        let limits = BatchLimits {
            rows_max: config.batch_rows_max,
            bytes_max: config.batch_bytes_max,
            turn_rows_max: if target.is_sqlite() { TURN_ROWS_MAX } else { POSTGRES_TURN_ROWS_MAX },
        };
        let mut first = Some(first);
        let lane = |number| {
            let side = Side::Lane(number);
            let history = LaneHistory::new(lineage.clone(), number);
            let writer = Writer::new((target.clone(), side), first.take(), history, monitor.clone());
            let group = GroupCommit::new(limits, || Err(AppendError::Unavailable));
            Arc::new(Lane { group, writer: Seat::new(writer), side, stored_total: AtomicU64::new(0) })
        };
        let lanes: Vec<_> = (0..count(config, target)).map(lane).collect();
        let start = |(number, lane): (usize, &Arc<Lane>)| {
            let (lane, metrics) = (lane.clone(), metrics.clone());
            Leader::start(number, move |sink| lane.lead(&metrics, sink))
        };
        let leaders = match target.is_sqlite() {
            true => Vec::new(),
            false => lanes.iter().enumerate().map(start).collect::<io::Result<_>>()?,
        };
        Ok(Self { lanes, leaders, metrics: metrics.clone(), monitor: monitor.clone() })
    }

    /// Stores the messages; returns once every one is durable and passed to the sink, or refused, or has waited too
    /// long.
    pub(super) fn append(&self, messages: Vec<NewMessage>, sink: &Arc<dyn CommitSink>) -> Vec<Outcome> {
        blocking::waiting(|| match &*self.leaders {
            [] => self.lanes[0].submit(&self.metrics, messages, &**sink),
            _ => self.append_split(messages, sink),
        })
    }

    /// Into all lanes at once; their threads lead, for a commit may hang in any of them.
    fn append_split(&self, messages: Vec<NewMessage>, sink: &Arc<dyn CommitSink>) -> Vec<Outcome> {
        let total = messages.len();
        let mut by_lane: Vec<(Vec<usize>, Vec<NewMessage>)> = Vec::new();
        by_lane.resize_with(self.lanes.len(), Default::default);
        for (index, message) in messages.into_iter().enumerate() {
            let lane = self.of(&message.channel);
            by_lane[lane].0.push(index);
            by_lane[lane].1.push(message);
        }
        let mut submitted = Vec::new();
        for ((lane, leader), (indices, messages)) in self.lanes.iter().zip(&self.leaders).zip(by_lane) {
            if !messages.is_empty() {
                let sleeper = Arc::new(Sleeper::new(leader.clone(), sink.clone()));
                if lane.group.submit_and_go(messages, sleeper.clone(), Instant::now()) {
                    sleeper.appointed();
                }
                submitted.push((indices, sleeper));
            }
        }
        let mut outcomes = vec![Err(AppendError::Unavailable); total];
        for (indices, sleeper) in submitted {
            let answers = sleeper.wait();
            debug_assert_eq!(answers.len(), indices.len(), "a lane answers each of its rows");
            for (index, outcome) in indices.into_iter().zip(answers) {
                outcomes[index] = outcome;
            }
        }
        outcomes
    }

    /// Messages stored since the start.
    pub(super) fn stored_total(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.stored_total.load(Ordering::Relaxed)).sum()
    }

    /// Number of the lane of a channel.
    pub(super) fn of(&self, channel: &Channel) -> usize {
        (channel.stable_hash() % self.lanes.len() as u64) as usize
    }

    /// Puts messages of one lane into it and returns at once. True when the caller has to see that
    /// [`lead`](Self::lead) is called. He waits `since` then.
    pub(super) fn submit_and_go(
        &self,
        lane: usize,
        messages: Vec<NewMessage>,
        completion: Arc<dyn Completion<Outcome>>,
        since: Instant,
    ) -> bool {
        debug_assert!(messages.iter().all(|message| self.of(&message.channel) == lane), "another lane's");
        let lane = &self.lanes[lane];
        if since.elapsed() >= STORE_ANSWER_MAX && self.monitor.is_down(lane.side) {
            completion.answered(vec![Err(AppendError::Unavailable); messages.len()]);
            completion.delivered();
            return false;
        }
        let last_try = Instant::now().checked_sub(STORE_ANSWER_MAX.saturating_sub(LAST_TRY));
        lane.group.submit_and_go(messages, completion, last_try.map_or(since, |last| last.max(since)))
    }

    /// Leads a lane for a caller that was appointed and does not wait.
    pub(super) fn lead(&self, lane: usize, sink: &dyn CommitSink) {
        blocking::waiting(|| self.lanes[lane].lead(&self.metrics, sink));
    }

    /// Runs a write that is no message through the first lane's connection, in a transaction of
    /// its own: how SQLite's one writer is shared.
    pub(super) fn write_beside<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        blocking::waiting(|| {
            // What the file is waited for, and the writer before.
            let answer_by = deadline::after(SQLITE_BUSY);
            let left = || answer_by.saturating_duration_since(Instant::now());
            let late = |reason: &str| Err(StoreError::Unavailable(Outage::in_part(reason)));
            let write = |writer: &mut Writer| match left() {
                Duration::ZERO => late(TOO_LATE),
                left => writer.write_beside(left, work),
            };
            self.lanes[0].writer.with(left(), write).unwrap_or_else(|| late("the writer is busy"))
        })
    }

    /// Answers callers that have waited too long.
    pub(super) fn answer_overdue(&self) {
        for lane in &self.lanes {
            lane.group.answer_overdue(STORE_ANSWER_MAX);
        }
    }

    /// Tries the lanes whose side is due, except those that are busy: they are being tried already.
    pub(super) fn probe(&self, is_due: impl Fn(Side) -> bool) {
        for lane in self.lanes.iter().filter(|lane| is_due(lane.side)) {
            lane.writer.with(Duration::ZERO, Writer::probe);
        }
    }

    /// Passes on what commits in doubt have stored, in lanes that nobody uses: the next message of a lane would do
    /// it, but may never come. `sink` gives the sink of those who publish.
    pub(super) fn resolve_doubts(&self, sink: impl Fn() -> Option<Arc<dyn CommitSink>>) {
        for lane in &self.lanes {
            if lane.writer.with(Duration::ZERO, |writer| writer.is_in_doubt()) == Some(true)
                && let Some(sink) = sink()
                && catch_unwind(AssertUnwindSafe(|| lane.resolve_doubt(&*sink))).is_err()
            {
                tracing::error!("passing committed messages on panicked");
            }
        }
    }
}

impl Lane {
    fn lead(&self, metrics: &Metrics, sink: &dyn CommitSink) {
        self.group.lead_on(|batch, waited| self.commit(metrics, sink, &batch, waited));
    }

    fn submit(&self, metrics: &Metrics, messages: Vec<NewMessage>, sink: &dyn CommitSink) -> Vec<Outcome> {
        self.group.submit(messages, |batch, waited| self.commit(metrics, sink, &batch, waited))
    }

    /// The leader's work on a batch: writes it and passes what is new to the sink.
    fn commit<'a>(
        &self,
        metrics: &Metrics,
        sink: &'a dyn CommitSink,
        messages: &[NewMessage],
        waited: Duration,
    ) -> Committed<'a, Outcome> {
        debug_assert!(!messages.is_empty(), "a leader takes at least one row");
        metrics.commit_wait_seconds.observe(waited.as_secs_f64());
        let started = Instant::now();
        let longest = STORE_ANSWER_MAX.saturating_sub(waited);
        let write = |writer: &mut Writer| {
            let (written, begun) = writer.write(messages, waited + started.elapsed());
            debug_assert_eq!(written.outcomes.len(), messages.len(), "every message has its outcome");
            metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
            metrics.commit_batch_rows.observe(messages.len() as f64);
            if written.store_failure.is_some() {
                metrics.commit_failures_total.inc();
            }
            Committed { answers: written.outcomes, after: self.hand_off(sink, written.publications, begun) }
        };
        let busy = || Committed { answers: vec![Err(AppendError::Unavailable); messages.len()], after: None };
        self.writer.with(longest, write).unwrap_or_else(busy)
    }

    /// Passes on what a commit in doubt has stored.
    fn resolve_doubt(&self, sink: &dyn CommitSink) {
        let resolve = |writer: &mut Writer| {
            let (publications, begun) = writer.resolve_doubt();
            self.hand_off(sink, publications, begun)
        };
        if let Some(after) = self.writer.with(Duration::ZERO, resolve).flatten() {
            after();
        }
    }

    /// Passes on what was stored. Called by whoever has the writer, so that it happens in the order of the commits.
    fn hand_off<'a>(
        &self,
        sink: &'a dyn CommitSink,
        publications: Vec<Publication>,
        begun: Instant,
    ) -> Option<Box<dyn FnOnce() + 'a>> {
        self.stored_total.fetch_add(publications.len() as u64, Ordering::Relaxed);
        if publications.is_empty() { None } else { sink.committed(publications, begun) }
    }
}
