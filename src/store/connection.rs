//! Connections to either database, and the pools they come from.
//!
//! Queries are written once in diesel's own language and compiled for both: [`on!`] runs an
//! expression on whichever connection there is.

use std::fmt;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::r2d2::ConnectionManager;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, ConnectionError, QueryResult};
use r2d2::{Builder, CustomizeConnection, HandleError, ManageConnection, Pool, PooledConnection};

use super::error::StoreError;
use crate::config::{Database, DatabaseUrl, Durability};

/// Time a query of ours waits for another process that writes the SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Time a reader waits for a connection of the pool, and a connection for its server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One connection.
pub(super) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite(_) => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        })
    }
}

/// One connection of the read pool.
pub(super) enum Reader {
    Sqlite(PooledConnection<ConnectionManager<SqliteConnection>>),
    Postgres(PooledConnection<ConnectionManager<PgConnection>>),
}

/// Runs an expression on a [`Connection`] or a [`Reader`], whichever database it belongs to.
macro_rules! on {
    ($kind:ident, $connection:expr, $name:ident => $body:expr) => {
        match $connection {
            $kind::Sqlite($name) => $body,
            $kind::Postgres($name) => $body,
        }
    };
}
pub(super) use on;

/// The pool of connections that only read. They never wait for the writer: SQLite runs in WAL mode,
/// PostgreSQL has row versions.
#[derive(Debug)]
pub(super) enum ReadPool {
    Sqlite(Pool<ConnectionManager<SqliteConnection>>),
    Postgres(Pool<ConnectionManager<PgConnection>>),
}

impl ReadPool {
    pub(super) fn new(config: &Database) -> Result<Self, StoreError> {
        match &config.url {
            DatabaseUrl::Sqlite(path) => {
                let builder = Pool::builder().connection_customizer(Box::new(ReadOnly));
                let manager = ConnectionManager::new(path.to_string_lossy());
                // A file does not go away like a server does: no test query before each use.
                let builder = builder.test_on_check_out(false);
                Ok(Self::Sqlite(sized(builder, config).build_unchecked(manager)))
            }
            DatabaseUrl::Postgres(url) => {
                let manager = ConnectionManager::new(with_time_limits(url));
                Ok(Self::Postgres(sized(Pool::builder(), config).build_unchecked(manager)))
            }
        }
    }

    pub(super) fn get(&self, patience: Duration) -> Result<Reader, StoreError> {
        match self {
            Self::Sqlite(pool) => pool.get_timeout(patience).map(Reader::Sqlite),
            Self::Postgres(pool) => pool.get_timeout(patience).map(Reader::Postgres),
        }
        .map_err(|error| StoreError::new(format!("no connection: {error}")))
    }

    /// The usual time to wait for a connection.
    pub(super) const PATIENCE: Duration = CONNECT_TIMEOUT;
}

fn sized<M: ManageConnection>(builder: Builder<M>, config: &Database) -> Builder<M> {
    builder
        .max_size(config.read_connections.max(1))
        .min_idle(Some(0))
        .connection_timeout(CONNECT_TIMEOUT)
        .error_handler(Box::new(QuietErrors))
}

/// The store logs a failing database once; the pool would do so at every try.
#[derive(Debug)]
struct QuietErrors;

impl<E: std::error::Error> HandleError<E> for QuietErrors {
    fn handle_error(&self, error: E) {
        tracing::debug!(%error, "a read connection could not be made");
    }
}

/// Makes a SQLite connection one that only reads.
#[derive(Debug)]
struct ReadOnly;

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for ReadOnly {
    fn on_acquire(&self, connection: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        let setup = format!("PRAGMA busy_timeout = {}; PRAGMA query_only = ON;", BUSY_TIMEOUT.as_millis());
        connection.batch_execute(&setup).map_err(diesel::r2d2::Error::QueryError)
    }
}

/// Opens a connection that writes, with the durability that is configured.
pub(super) fn connect(config: &Database) -> Result<Connection, ConnectionError> {
    let setup_failed = ConnectionError::CouldntSetupConfiguration;
    match &config.url {
        DatabaseUrl::Sqlite(path) => {
            let mut connection = SqliteConnection::establish(&path.to_string_lossy())?;
            let synchronous = match config.durability {
                Durability::Full => "FULL",
                Durability::Normal => "NORMAL",
            };
            let setup = format!(
                "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; \
                 PRAGMA foreign_keys = ON;",
                BUSY_TIMEOUT.as_millis()
            );
            connection.batch_execute(&setup).map_err(setup_failed)?;
            Ok(Connection::Sqlite(connection))
        }
        DatabaseUrl::Postgres(url) => {
            let mut connection = PgConnection::establish(&with_time_limits(url))?;
            let synchronous = match config.durability {
                Durability::Full => "on",
                Durability::Normal => "off",
            };
            let setup = format!("SET synchronous_commit = {synchronous}; SET client_min_messages = warning");
            connection.batch_execute(&setup).map_err(setup_failed)?;
            Ok(Connection::Postgres(connection))
        }
    }
}

/// The URL with limits on how long a server that vanished is waited for, unless it has its own. A
/// power cut sends no goodbye: without them a commit would wait for the system's two hours.
fn with_time_limits(url: &str) -> String {
    let connect = CONNECT_TIMEOUT.as_secs().to_string();
    let limits = [
        ("connect_timeout", connect.as_str()),
        ("keepalives_idle", "10"),
        ("keepalives_interval", "5"),
        ("keepalives_count", "3"),
        ("tcp_user_timeout", "25000"),
    ];
    let mut url = url.to_owned();
    for (name, value) in limits {
        if !url.contains(&format!("{name}=")) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={value}"));
        }
    }
    url
}

impl Connection {
    /// Runs `work` in a transaction that is the only one to write the rooms it touches: SQLite takes
    /// its write lock at once, PostgreSQL locks row by row.
    pub(super) fn write<T>(&mut self, work: impl FnOnce(&mut Self) -> QueryResult<T>) -> QueryResult<T> {
        self.execute(match self {
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        })?;
        match work(self) {
            Ok(value) => {
                self.execute("COMMIT")?;
                Ok(value)
            }
            Err(error) => {
                // A failed rollback leaves a connection that is thrown away by whoever sees the error.
                let _ = self.execute("ROLLBACK");
                Err(error)
            }
        }
    }

    fn execute(&mut self, sql: &str) -> QueryResult<()> {
        on!(Self, self, connection => connection.batch_execute(sql))
    }
}
