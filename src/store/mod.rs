//! The database: rooms, their members and the log of messages, on SQLite or PostgreSQL.
//!
//! [`Store::append`] makes messages durable and passes them to the [`CommitSink`] in commit order;
//! everything else reads the log or keeps lists beside it. All calls block. The store knows
//! nothing of listeners or connections, and no other module knows SQL.

mod backup;
mod claim;
mod connection;
mod error;
mod file;
mod foreign;
mod health;
mod history;
mod lane;
mod lineage;
mod mark;
mod message;
mod models;
mod opening;
mod origin;
mod prune;
mod readers;
mod remote;
mod rooms;
mod schema;
mod watch;

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::config::Database;
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::publication::{Publication, Retention};
use crate::sync::{Mutex, lock};

use claim::Claim;
use connection::{Connection, Target};
use foreign::Foreign;
use health::{Monitor, Side};
use lane::Lanes;
use lineage::Lineage;
use readers::Readers;
use watch::{Probe, Watch};

pub(crate) use backup::{backup, restore};
pub use error::{AppendError, OpenError, Outage, StoreError};
pub use foreign::DatabaseConnection;
pub(crate) use foreign::{ForeignError, Pending};
pub use health::Health;
pub(crate) use history::History;
pub use history::{HistoryLimit, HistoryQuery};
pub(crate) use lane::Completion;
pub use lineage::Fork;
pub(crate) use message::Found;
pub use message::{Appended, CommitSink, NewMessage};
pub use models::member::Role;
pub(crate) use models::member::RoomCursor;
pub(crate) use models::room::Room;
pub use models::room::RoomKind;
pub use prune::PruneWalk;
pub(crate) use prune::Pruned;

/// An open database.
#[derive(Debug)]
pub struct Store {
    /// First, for its threads use the rest.
    _watch: Watch,
    foreign: Foreign,
    lineage: Arc<Lineage>,
    target: Target,
    lanes: Arc<Lanes>,
    readers: Arc<Readers>,
    monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
    /// Keeps other servers from a SQLite file; the last to go, after every connection.
    claim: Mutex<Option<Claim>>,
}

impl Store {
    /// Opens the database and brings it to the schema of this version. A SQLite file is created
    /// when it does not exist; a PostgreSQL database has to.
    ///
    /// # Errors
    /// [`OpenError`] says whether it could not be reached, not be migrated, or must not be used.
    pub fn open(config: &Database, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let mut target = Target::new(config);
        let claim = target.path().map(Claim::new).transpose()?;
        let mut first = opening::open(&target)?;
        let lineage = Lineage::open(&mut first, config, metrics.clone());
        let lineage = lineage.map_err(|reason| OpenError::Connect(format!("{}: {reason}", target.name())))?;
        target.watch_files(&metrics)?;
        let beside = !target.is_sqlite();
        let monitor = Arc::new(Monitor::new(metrics.clone(), lane::count(config, &target), beside));
        let system =
            |error: io::Error| OpenError::Connect(format!("the system has no thread to give: {error}"));
        let lanes = Lanes::new(config, &target, first, &lineage, (&monitor, &metrics)).map_err(system)?;
        let lanes = Arc::new(lanes);
        let readers =
            Arc::new(Readers::new(target.clone(), config.read_connections, lineage.clone(), monitor.clone()));
        let probe = Probe {
            lanes: lanes.clone(),
            readers: readers.clone(),
            monitor: monitor.clone(),
            lineage: lineage.clone(),
        };
        let watch = Watch::start(probe, target.is_sqlite());
        let foreign =
            Foreign::new(target.clone(), lanes.clone(), readers.clone(), lineage.clone(), metrics.clone());
        Ok(Self {
            _watch: watch.map_err(system)?,
            foreign,
            lineage,
            target,
            lanes,
            readers,
            monitor,
            metrics,
            claim: Mutex::new(claim),
        })
    }

    /// The name of the history that the database holds: letters. Another one when the history forks: when a
    /// copy took over for the database or an older state was put back.
    pub fn epoch(&self) -> Arc<str> {
        self.lineage.epoch()
    }

    /// Has this sink, which is that of all callers, told what happens while nobody calls: that the history forked, and
    /// that messages are stored whose commit was of unknown outcome. Without it these wait for the next commit of their
    /// lane.
    pub fn tell(&self, sink: Weak<dyn CommitSink>) {
        self.lineage.tell(sink);
    }

    /// The last fork of the history since this store was opened.
    pub fn last_fork(&self) -> Option<Fork> {
        self.lineage.last_fork()
    }

    /// Gives the history another name unless it has another one than `epoch` already. The name it has now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, StoreError> {
        let (now, meta) = self.lineage.names();
        if *now != *epoch {
            return Ok(now);
        }
        let meta = self.write(move |connection| Ok(models::meta::renew_epoch(connection, &meta)?))?;
        Ok(self.lineage.rename(meta))
    }

    /// Stores messages and passes them to the sink; returns once every one is durable and passed on,
    /// or refused. The results are in the order of the messages. Messages of one room get their
    /// numbers in the order given.
    ///
    /// What has not become durable within 3 seconds is answered with [`AppendError::Unavailable`]. A commit that had
    /// begun may still succeed; then it is passed to the sink, and a second try with a key finds it.
    ///
    /// The messages of other callers may be committed together with these and are then passed to the sink of one
    /// of them, so all callers of one store give the same sink.
    pub fn append<S: CommitSink + 'static>(
        &self,
        messages: Vec<NewMessage>,
        sink: &Arc<S>,
    ) -> Vec<Result<Appended, AppendError>> {
        let sink: Arc<dyn CommitSink> = sink.clone();
        self.lanes.append(messages, &sink)
    }

    /// Stores messages by a transaction of the application's, all of them or none: their numbers, which hold when
    /// it is committed, and what [`pass_on`](Self::pass_on) looks at then. They are passed to the sink of
    /// [`tell`](Self::tell) after the commit, whether it is called or not.
    ///
    /// # Errors
    /// [`ForeignError`]; the transaction is as it was before.
    pub(crate) fn append_in(
        &self,
        connection: &mut impl DatabaseConnection,
        messages: &[NewMessage],
    ) -> Result<(Vec<Seq>, Vec<Pending>), ForeignError> {
        self.foreign.append(connection, messages)
    }

    /// Passes what [`append_in`](Self::append_in) stored to the sink. False when it is not committed, or not yet.
    pub(crate) fn pass_on(&self, pending: &[Pending]) -> bool {
        self.foreign.pass_on(pending)
    }

    /// Has the transactions of the application's looked at now.
    pub(crate) fn look_at_foreign(&self) {
        self.foreign.wake();
    }

    /// Number of the commit lane of a channel.
    pub(crate) fn lane_of(&self, channel: &Channel) -> usize {
        self.lanes.of(channel)
    }

    /// Hands messages of one lane over and returns at once; `completion` is told when every one is durable and
    /// passed on, or refused. True when nobody commits for this lane: then the caller has
    /// [`lead`](Self::lead) called, by a thread that may wait. Messages of one room get their numbers in the
    /// order given, over all calls that do not overlap. Their sender waits `since` then, and is answered accordingly;
    /// at once when his time is over and the lane is known to be down.
    pub(crate) fn append_and_go(
        &self,
        lane: usize,
        messages: Vec<NewMessage>,
        completion: Arc<dyn Completion<Result<Appended, AppendError>>>,
        since: Instant,
    ) -> bool {
        self.lanes.submit_and_go(lane, messages, completion, since)
    }

    /// Commits what waits in a lane, for a caller that was told to have it led.
    pub(crate) fn lead(&self, lane: usize, sink: &dyn CommitSink) {
        self.lanes.lead(lane, sink);
    }

    /// Messages of a room with numbers in (after, until], oldest first: at most
    /// [`crate::limits::PAGE_PUBLICATIONS_MAX`] of them and [`crate::limits::PAGE_BYTES_MAX`]
    /// bytes, but at least one if there is any.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        retention: Retention,
    ) -> Result<Vec<Publication>, StoreError> {
        let channel = channel.clone();
        self.readers.read(move |connection| history::page(connection, &channel, (after, until), retention))
    }

    /// Answers the history command. The caller compares the epoch.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn history(
        &self,
        channel: &Channel,
        query: HistoryQuery,
        retention: Retention,
    ) -> Result<History, StoreError> {
        let read = || {
            let channel = channel.clone();
            self.readers.read(move |connection| history::history(connection, &channel, query, retention))
        };
        let (epoch, history) = self.lineage.in_one_history(read)?;
        Ok(History { epoch, ..history })
    }

    /// Messages stored since it was opened.
    pub(crate) fn stored_total(&self) -> u64 {
        self.lanes.stored_total()
    }

    /// Deletes some rows that are outside the retention of their rooms, continuing a walk over all
    /// rooms: at most `rows_max` rows, and a bounded number of rooms looked at. Heads never change.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the walk stays where it was.
    pub fn prune(
        &self,
        walk: &mut PruneWalk,
        rows_max: usize,
        retention_of: &dyn Fn(&Channel) -> Retention,
    ) -> Result<Pruned, StoreError> {
        let (from, looking) = (*walk, Instant::now());
        let rooms = self.readers.read(move |connection| prune::next_rooms(connection, from))?;
        let rooms = prune::Rooms::new(rooms, retention_of);
        let plan = self.readers.read(move |connection| prune::plan(connection, from, rows_max, &rooms))?;
        let (held, reading) = (Duration::ZERO, looking.elapsed());
        let mut pruned = Pruned { rows: 0, finished: plan.finished, held, reading };
        if !plan.ranges.is_empty() {
            let (rows, started) = self.write(move |connection| {
                let started = Instant::now();
                Ok((models::message::delete(connection, &plan.ranges)?, started))
            })?;
            pruned.rows = rows;
            pruned.held = started.elapsed();
            self.metrics.pruned_messages_total.inc_by(pruned.rows as u64);
        }
        debug_assert!(pruned.rows <= rows_max, "a step deletes a bounded number of rows");
        *walk = plan.walk;
        Ok(pruned)
    }

    /// Brings the metrics that nothing else moves up to date.
    pub(crate) fn measure(&self) {
        self.target.measure_files();
    }

    /// The health of the database: of the last operations, or of the last trial while it is down or idle. Asking
    /// waits for nothing.
    pub fn health(&self) -> Health {
        if let Err(reason) = self.target.check_files() {
            self.monitor.failed(Side::Lane(0), &reason);
        }
        self.monitor.health()
    }

    /// Lets another server have a SQLite file, although somebody may still hold this store. The caller writes
    /// no more.
    pub(crate) fn release(&self) {
        self.sign_off();
        lock(&self.claim).take();
    }

    /// Writes the last mark of a SQLite file, while it is certainly ours.
    fn sign_off(&self) {
        if lock(&self.claim).is_some() {
            self.lineage.close_mark();
        }
    }

    /// Runs a change that is no message in a transaction of its own: on SQLite by its one writer,
    /// on PostgreSQL beside the lanes.
    fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        if self.target.is_sqlite() { self.lanes.write_beside(work) } else { self.readers.write(work) }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.sign_off();
    }
}
