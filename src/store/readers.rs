//! The connections that only read (on PostgreSQL they also make the rare writes that are no
//! messages). They never wait for a commit.

use std::sync::Arc;
use std::time::Duration;

use diesel::{ConnectionError, QueryResult};

use crate::store::connection::{Connection, Purpose, Target};
use crate::store::error::StoreError;
use crate::store::health::{Monitor, Side};
use crate::store::lineage::Lineage;
use crate::sync::blocking;

/// Time a caller waits for a connection while all are in use.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(5);

/// The same while the database is known to be down: callers get their error fast.
const CHECKOUT_TIMEOUT_WHILE_DOWN: Duration = Duration::from_millis(200);

/// A pool of reading connections.
#[derive(Debug)]
pub(super) struct Readers {
    pool: r2d2::Pool<Opener>,
    lineage: Arc<Lineage>,
    monitor: Arc<Monitor>,
}

/// Opens and judges the pool's connections.
#[derive(Debug)]
struct Opener {
    target: Target,
    lineage: Arc<Lineage>,
}

/// A pooled connection; `None` once it has failed.
struct Pooled {
    connection: Option<Connection>,
    /// The history it shows, see [`Lineage::generation`].
    generation: u64,
}

impl r2d2::ManageConnection for Opener {
    type Connection = Pooled;
    type Error = ConnectionError;

    fn connect(&self) -> Result<Pooled, ConnectionError> {
        // SQLite would create what is missing.
        self.target.check_files().map_err(ConnectionError::BadConnection)?;
        let mut connection = self.target.connect(Purpose::Read)?;
        let admitted = self.lineage.admit(&mut connection);
        let generation = admitted.map_err(|reason| ConnectionError::BadConnection(reason.to_string()))?;
        Ok(Pooled { connection: Some(connection), generation })
    }

    fn is_valid(&self, _: &mut Pooled) -> Result<(), ConnectionError> {
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.connection.is_none()
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
        let pool = r2d2::Pool::builder()
            .max_size(connections.max(1))
            .min_idle(Some(1))
            .connection_timeout(CHECKOUT_TIMEOUT)
            .test_on_check_out(false)
            .error_handler(Box::new(Quiet))
            .build_unchecked(Opener { target, lineage: lineage.clone() });
        Self { pool, lineage, monitor }
    }

    /// Runs a query. It is tried again on another connection when the one at hand turns out to be
    /// dead, until one that was opened since has failed too.
    pub(super) fn read<T>(&self, query: impl Fn(&mut Connection) -> QueryResult<T>) -> Result<T, StoreError> {
        self.with_connection(Side::Read, |connection| Ok(query(connection)?))
    }

    /// Runs `work` in a transaction of its own.
    pub(super) fn write<T>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_connection(Side::Write, |connection| connection.transaction(&work))
    }

    fn with_connection<T>(
        &self,
        side: Side,
        work: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        blocking::waiting(|| self.with_any_connection(side, work))
    }

    fn with_any_connection<T>(
        &self,
        side: Side,
        work: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut last = String::new();
        for _ in 0..=self.pool.max_size() {
            let mut pooled = match self.checkout() {
                Ok(pooled) => pooled,
                Err(error) => {
                    if last.is_empty() {
                        last = error.to_string();
                    }
                    break;
                }
            };
            // Out of its place while in use: what fails or panics is not used again.
            let Some(mut connection) = pooled.connection.take() else { continue };
            if pooled.generation != self.lineage.generation() {
                "it showed a history that forked".clone_into(&mut last);
                continue;
            }
            match work(&mut connection) {
                Err(StoreError::Unavailable(reason)) => last = reason,
                done => {
                    pooled.connection = Some(connection);
                    self.monitor.succeeded(side);
                    return done;
                }
            }
        }
        debug_assert!(!last.is_empty(), "a failure has a reason");
        self.monitor.failed(side, &last);
        Err(StoreError::Unavailable(last))
    }

    fn checkout(&self) -> Result<r2d2::PooledConnection<Opener>, r2d2::Error> {
        let down = self.monitor.is_down(Side::Read) || self.monitor.is_down(Side::Write);
        self.pool.get_timeout(if down { CHECKOUT_TIMEOUT_WHILE_DOWN } else { CHECKOUT_TIMEOUT })
    }
}
