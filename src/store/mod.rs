//! The store: rooms, messages, members and contacts in SQLite or PostgreSQL.
//!
//! Owns every connection to the database. Messages go in through commit lanes, which also hand them
//! on in commit order; everything is read through a pool that never waits for a writer. Knows no
//! room in memory and no listener: whoever wants to hear of commits is attached as a [`CommitSink`].

mod connection;
mod contacts;
mod error;
mod health;
mod history;
mod lane;
mod message;
mod migrations;
mod rooms;
mod schema;
mod statements;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use diesel::QueryResult;

use crate::config::{Database, DatabaseUrl};
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::publication::Publication;
use connection::{Connection, ReadPool, Reader};
use health::{Monitor, Side};
use lane::{BatchLimits, Committed, Item, Lane};
use writer::Writer;

pub use contacts::{Contact, DirectRoom};
pub use error::{AppendError, ContactError, OpenError, StoreError};
pub use health::Health;
pub use history::{History, HistoryLimit, HistoryQuery};
pub use message::NewMessage;
pub use rooms::{Member, ReadPosition, Room, RoomKind};

/// Time a reader waits for a connection while the database is known to be down.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// Who hears of commits.
pub trait CommitSink: Send + Sync {
    /// Takes the publications of one commit, in commit order, before anybody is told that they are
    /// stored. Called by one thread at a time a lane. What it gives back is run by the same thread
    /// once the next commit may begin.
    fn committed<'a>(&'a self, batch: Vec<Publication>) -> Option<Box<dyn FnOnce() + 'a>>;
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is stored under this seq.
    New(Seq),
    /// It was stored before, under this seq: same room, sender and key.
    Duplicate(Seq),
}

type AppendResult = Result<Appended, AppendError>;

/// A message in a lane.
struct Queued {
    message: NewMessage,
    since: Instant,
}

impl Item for Queued {
    fn bytes(&self) -> usize {
        self.message.data.len()
    }
}

/// One lane: who commits next, and with which connection.
struct CommitLane {
    lane: Lane<Queued, AppendResult>,
    writer: Mutex<Writer>,
}

/// See the module.
pub struct Store {
    epoch: String,
    readers: ReadPool,
    lanes: Vec<CommitLane>,
    sink: RwLock<Option<Arc<dyn CommitSink>>>,
    monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Opens the database and brings its schema up to date.
    ///
    /// # Errors
    /// [`OpenError`] says what the database said.
    pub fn open(config: &Database, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let failed = |reason: String| OpenError { database: config.url.to_string(), reason };
        let mut connection = connection::connect(config).map_err(|error| failed(error.to_string()))?;
        migrations::run(&mut connection).map_err(&failed)?;
        let epoch = migrations::epoch(&mut connection).map_err(|error| failed(error.to_string()))?;
        drop(connection);
        let monitor = Arc::new(Monitor::new(metrics.clone()));
        let lanes = match config.url {
            DatabaseUrl::Sqlite(_) => 1,
            DatabaseUrl::Postgres(_) => config.commit_lanes.max(1),
        };
        let limits = BatchLimits { rows_max: config.batch_rows_max, bytes_max: config.batch_bytes_max };
        let lane = |_| CommitLane {
            lane: Lane::new(limits, || Err(AppendError::Unavailable)),
            writer: Mutex::new(Writer::new(config.clone(), monitor.clone(), metrics.clone())),
        };
        Ok(Self {
            epoch,
            readers: ReadPool::new(config).map_err(|error| failed(error.to_string()))?,
            lanes: (0..lanes).map(lane).collect(),
            sink: RwLock::new(None),
            monitor,
            metrics,
        })
    }

    /// From now on the sink hears of every commit.
    pub fn attach(&self, sink: Arc<dyn CommitSink>) {
        *self.sink.write().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    /// Nobody hears of commits any more.
    pub fn detach(&self) {
        *self.sink.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Identity of the database: positions of another one mean nothing here.
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Whether the database answers. One that did not when it was last used is tried again, with a
    /// real commit, so that asking is enough to see it heal.
    #[must_use]
    pub fn health(&self) -> Health {
        if !self.monitor.is_up(Side::Write) {
            // What comes of it is in the monitor.
            let _ = self.write_anywhere(migrations::touch);
        }
        if !self.monitor.is_up(Side::Read) {
            let _ = self.read(migrations::look);
        }
        self.monitor.state()
    }

    /// Stores messages and hands them on; returns when all are durable or refused, with one result
    /// each, in the order given. The calling thread may commit for others meanwhile.
    pub fn append(&self, messages: Vec<NewMessage>) -> Vec<AppendResult> {
        let since = Instant::now();
        let mut results: Vec<Option<AppendResult>> = Vec::new();
        results.resize_with(messages.len(), || None);
        let mut by_lane: Vec<Vec<(usize, Queued)>> = self.lanes.iter().map(|_| Vec::new()).collect();
        for (number, message) in messages.into_iter().enumerate() {
            match message.flaw() {
                Some(flaw) => results[number] = Some(Err(AppendError::Rejected(flaw.to_owned()))),
                None => {
                    by_lane[self.lane_of(&message.channel)].push((number, Queued { message, since }));
                }
            }
        }
        for (lane, queued) in self.lanes.iter().zip(by_lane) {
            let (numbers, items): (Vec<usize>, Vec<Queued>) = queued.into_iter().unzip();
            let sink = self.sink.read().unwrap_or_else(PoisonError::into_inner).clone();
            let done = lane.lane.submit(items, |batch| self.commit(lane, &sink, &batch));
            for (number, result) in numbers.into_iter().zip(done) {
                results[number] = Some(result);
            }
        }
        results.into_iter().map(|result| result.unwrap_or(Err(AppendError::Unavailable))).collect()
    }

    /// The leader's work: one batch, durable, then handed on.
    fn commit<'a>(
        &self,
        lane: &CommitLane,
        sink: &'a Option<Arc<dyn CommitSink>>,
        batch: &[Queued],
    ) -> Committed<'a, AppendResult> {
        for queued in batch {
            self.metrics.commit_wait_seconds.observe(queued.since.elapsed().as_secs_f64());
        }
        let messages: Vec<&NewMessage> = batch.iter().map(|queued| &queued.message).collect();
        let written = lane.writer().write(&messages);
        let afterwards = match sink {
            Some(sink) if !written.publications.is_empty() => sink.committed(written.publications),
            _ => None,
        };
        Committed { results: written.results, afterwards }
    }

    /// Runs a query on a connection of the pool.
    fn read<T>(&self, query: impl FnOnce(&mut Reader) -> QueryResult<T>) -> Result<T, StoreError> {
        let patience = if self.monitor.is_up(Side::Read) { ReadPool::PATIENCE } else { IMPATIENCE };
        let outcome = self.readers.get(patience).and_then(|mut reader| Ok(query(&mut reader)?));
        match &outcome {
            Ok(_) => self.monitor.worked(Side::Read),
            Err(error) => self.monitor.failed(Side::Read, &error.to_string()),
        }
        outcome
    }

    /// Runs a transaction about one room, on the connection that writes its messages too.
    fn write<T>(
        &self,
        channel: &Channel,
        work: impl FnOnce(&mut Connection) -> QueryResult<T>,
    ) -> Result<T, StoreError> {
        Ok(self.lanes[self.lane_of(channel)].writer().transact(work)?)
    }

    /// Runs a transaction that is about no room in particular.
    fn write_anywhere<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> QueryResult<T>,
    ) -> Result<T, StoreError> {
        Ok(self.lanes[0].writer().transact(work)?)
    }

    fn lane_of(&self, channel: &Channel) -> usize {
        (channel.stable_hash() % self.lanes.len() as u64) as usize
    }
}

impl CommitLane {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic leaves no half-done state behind: the transaction is rolled back with its connection.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
