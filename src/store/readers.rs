//! The connections that only read (on PostgreSQL they also make the rare writes that are no
//! messages). They never wait for a commit, and no caller waits for them for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::{ConnectionError, QueryResult};
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

use crate::limits::STORE_ANSWER_MAX;
use crate::store::connection::{Connection, Purpose, Target};
use crate::store::error::{Outage, StoreError, TOO_LATE};
use crate::store::health::{Monitor, Operation, Side};
use crate::store::lineage::Lineage;
use crate::store::models::trial;
use crate::store::origin::NoOrigin;
use crate::store::remote::Remote;
use crate::sync::{blocking, deadline};

/// Time a caller waits for a connection while the database is known to be down: callers get their error fast.
const CHECKOUT_TIMEOUT_WHILE_DOWN: Duration = Duration::from_secs(1);

/// Time after its deadline in which a server may say that it has given up a query, as it was told: its connection can
/// be kept then.
const GIVEN_UP_WITHIN: Duration = Duration::from_millis(150);

/// Time with which a query that fails has failed for lack of nothing else.
const UNHURRIED: Duration = Duration::from_millis(2_000);

/// A query that failed later has waited for something, and is not tried on another connection.
const FAILED_AT_ONCE: Duration = Duration::from_millis(500);

/// Threads that open the connections of the pool.
const POOL_THREADS: usize = 3;

/// A pool of reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    pool: r2d2::Pool<Opener>,
    monitor: Arc<Monitor>,
}

/// Opens and judges the pool's connections.
#[derive(Debug)]
struct Opener {
    target: Target,
    lineage: Arc<Lineage>,
    monitor: Arc<Monitor>,
    /// Connections whose callers went away because they hang.
    hanging: Arc<AtomicUsize>,
    hanging_max: usize,
}

/// A pooled connection.
struct Pooled {
    /// `None` once it has failed.
    line: Option<Line>,
    /// Number of outages before it was opened.
    outages: u64,
    /// The history it shows, see [`Lineage::generation`].
    generation: u64,
}

/// The way to a database.
enum Line {
    /// A file, whose locks are waited for no longer than SQLite is told.
    Here(Connection),
    /// A server, which may be frozen: a thread waits for it, so that its caller need not.
    Away(Remote),
}

impl r2d2::ManageConnection for Opener {
    type Connection = Pooled;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Pooled, ConnectionError> {
        // SQLite would create what is missing.
        self.target.check_files().map_err(ConnectionError::BadConnection)?;
        if self.hanging.load(Ordering::Acquire) >= self.hanging_max {
            let reason = "the server does not answer on as many connections as there may be";
            return Err(ConnectionError::BadConnection(reason.to_owned()));
        }
        let outages = self.monitor.outages();
        let mut connection = self.target.connect(Purpose::Read)?;
        let admitted = self.lineage.admit(&mut connection);
        let generation = admitted.map_err(|reason| ConnectionError::BadConnection(reason.to_string()))?;
        let line = match self.target.is_sqlite() {
            true => Line::Here(connection),
            false => Line::Away(
                Remote::new(connection, self.hanging.clone())
                    .map_err(|error| ConnectionError::BadConnection(error.to_string()))?,
            ),
        };
        Ok(Pooled { line: Some(line), outages, generation })
    }

    /// A connection from before an outage may lead to a server that is none any more, or to an old copy. A file is
    /// the same.
    fn is_valid(&self, pooled: &mut Pooled) -> Result<(), ConnectionError> {
        let is_young = self.target.is_sqlite() || pooled.outages == self.monitor.outages();
        match is_young && pooled.generation == self.lineage.generation() {
            true => Ok(()),
            false => Err(ConnectionError::BadConnection("it is older than an outage or a fork".to_owned())),
        }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.line.is_none()
    }
}

/// Keeps r2d2 from printing errors: the monitor reports them once.
#[derive(Debug)]
struct Quiet;

impl r2d2::HandleError<ConnectionError> for Quiet {
    fn handle_error(&self, error: ConnectionError) {
        tracing::debug!(%error, "a reading connection could not be opened");
    }
}

impl Readers {
    pub(super) fn new(
        target: Target,
        connections: u32,
        lineage: Arc<Lineage>,
        monitor: Arc<Monitor>,
    ) -> Self {
        let connections = connections.max(1);
        let hanging_max = connections as usize;
        let opener =
            Opener { target, lineage, monitor: monitor.clone(), hanging: Arc::default(), hanging_max };
        // By default its threads would wait for what is planned, half a minute after everything else has ended.
        let threads = ScheduledThreadPool::builder()
            .num_threads(POOL_THREADS)
            .thread_name_pattern("r2d2-worker-{}")
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build();
        let pool = r2d2::Pool::builder()
            .max_size(connections)
            .min_idle(Some(1))
            .connection_timeout(STORE_ANSWER_MAX)
            .error_handler(Box::new(Quiet))
            .thread_pool(Arc::new(threads))
            .build_unchecked(opener);
        Self { pool, monitor }
    }

    /// Runs a query. It is tried again on another connection when the one at hand turns out to be
    /// dead, until one that was opened since has failed too.
    pub(super) fn read<T: Send + 'static>(
        &self,
        query: impl Fn(&mut Connection) -> QueryResult<T> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.with_connection(Side::Reads, move |connection| Ok(query(connection)?))
    }

    /// Runs `work` in a transaction of its own.
    pub(super) fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.with_connection(Side::Changes, move |connection| connection.transaction(&work))
    }

    /// Asks every table whether it can be read.
    pub(super) fn try_reading(&self) -> Result<(), StoreError> {
        self.read(trial::read)
    }

    /// Asks every table whether it takes rows.
    pub(super) fn try_writing(&self, now_ms: i64) -> Result<(), StoreError> {
        self.write(move |connection| {
            trial::write(connection, trial::ALL_TABLES, now_ms)?;
            Ok(trial::delete(connection)?)
        })
    }

    /// Asks whether the database still holds the history that it held.
    pub(super) fn compare_history(&self, lineage: &Arc<Lineage>) -> Result<(), StoreError> {
        let lineage = lineage.clone();
        self.with_connection(Side::Reads, move |connection| match lineage.admit(connection) {
            Ok(_) => Ok(()),
            Err(NoOrigin::Failed(error)) => Err(error.into()),
            Err(reason) => Err(StoreError::Unavailable(Outage::whole(reason))),
        })
    }

    fn with_connection<T: Send + 'static>(
        &self,
        side: Side,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let answer_by = deadline::after(STORE_ANSWER_MAX);
        let is_hurried = answer_by.saturating_duration_since(Instant::now()) < UNHURRIED;
        let done = blocking::waiting(|| self.with_any_connection(side, &Arc::new(work), answer_by));
        match &done {
            // It might have worked, had there been more time.
            Err(StoreError::Unavailable(_)) if is_hurried && Instant::now() >= answer_by => {}
            Err(StoreError::Unavailable(outage)) => self.monitor.failed_for(side, outage),
            _ => self.monitor.succeeded(side),
        }
        done
    }

    fn with_any_connection<T: Send + 'static>(
        &self,
        side: Side,
        work: &Arc<impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static>,
        answer_by: Instant,
    ) -> Result<T, StoreError> {
        let mut last = None;
        for _ in 0..=self.pool.max_size() {
            let began = Instant::now();
            if began >= answer_by {
                break;
            }
            let mut pooled = match self.checkout(answer_by) {
                Ok(pooled) => pooled,
                Err(error) => return Err(last.unwrap_or(StoreError::Unavailable(no_connection(&error)))),
            };
            // Out of its place while in use: what fails or panics is not used again.
            let Some(line) = pooled.line.take() else { continue };
            let (line, done) = line.run(work, self.monitor.begin(side), answer_by);
            match done {
                Err(error @ StoreError::Unavailable(_)) if began.elapsed() < FAILED_AT_ONCE => {
                    last = Some(error);
                }
                Err(error @ StoreError::Unavailable(_)) => return Err(error),
                done => {
                    pooled.line = line;
                    return done;
                }
            }
        }
        let is_late = Instant::now() >= answer_by;
        let reason = if is_late { TOO_LATE } else { "no connection works" };
        Err(last.unwrap_or(StoreError::Unavailable(Outage::whole(reason))))
    }

    fn checkout(&self, answer_by: Instant) -> Result<r2d2::PooledConnection<Opener>, r2d2::Error> {
        let left = answer_by.saturating_duration_since(Instant::now());
        let down = self.monitor.is_down(Side::Reads) || self.monitor.is_down(Side::Changes);
        self.pool.get_timeout(if down { left.min(CHECKOUT_TIMEOUT_WHILE_DOWN) } else { left })
    }
}

/// Why there is no connection: all of them are in use, unless an attempt to open one failed, which r2d2 then adds.
fn no_connection(error: &r2d2::Error) -> Outage {
    match error.to_string() {
        failed if failed.contains(": ") => Outage::whole(failed),
        busy => Outage::in_part(busy),
    }
}

impl Line {
    /// Runs `work`; gives the line back unless its thread is still at it.
    fn run<T: Send + 'static>(
        self,
        work: &Arc<impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static>,
        operation: Operation,
        answer_by: Instant,
    ) -> (Option<Self>, Result<T, StoreError>) {
        let left = answer_by.saturating_duration_since(Instant::now());
        match self {
            Self::Here(mut connection) => {
                let done = connection.hurried(left, |connection| work(connection));
                drop(operation);
                (Some(Self::Here(connection)), done)
            }
            Self::Away(remote) => {
                let work = work.clone();
                let work = move |connection: &mut Connection| {
                    let _operation = operation;
                    connection.hurried(left, |connection| work(connection))
                };
                let (remote, done) = remote.run(work, answer_by + GIVEN_UP_WITHIN);
                let late =
                    || Err(StoreError::Unavailable(Outage::whole("the server has not answered in time")));
                (remote.map(Self::Away), done.unwrap_or_else(late))
            }
        }
    }
}
