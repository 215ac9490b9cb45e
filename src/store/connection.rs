//! One connection to either database: how it is opened, and its transactions.
//!
//! Queries are written once and compiled for both backends by `on_either!`. Diesel's own
//! `MultiConnection` was weighed: it knows neither upserts nor row-by-row loading, which are used
//! here, and it guesses the backend from the URL, so that an unreachable PostgreSQL becomes an
//! error about a SQLite file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "postgres")]
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::{Connection as _, ConnectionError, QueryResult, QueryableByName, RunQueryDsl, SqliteConnection};

use crate::config::{Database, DatabaseUrl, Durability};
use crate::limits::STORE_ANSWER_MAX;
use crate::metrics::Metrics;
use crate::store::error::OpenError;
use crate::store::file::DatabaseFiles;

/// Longest time a SQLite statement waits for another process that holds the file. A caller is answered within
/// [`STORE_ANSWER_MAX`].
pub(super) const SQLITE_BUSY: Duration = Duration::from_millis(2_500);

/// The answer of a program that was built without PostgreSQL.
#[cfg(not(feature = "postgres"))]
const WITHOUT_POSTGRES: &str = "this program was built without PostgreSQL (the feature `postgres`)";

/// Longest waits of a statement on PostgreSQL, unless the operator set shorter ones.
const PATIENCE: Patience = Patience { lock_ms: 1_000, statement_ms: 2_000 };

/// The same once a batch has failed, and it is found out which of its rooms can be written: all of it together must
/// fit into [`STORE_ANSWER_MAX`].
const SHORT_PATIENCE: Patience = Patience { lock_ms: 400, statement_ms: 600 };

const _: () = assert!(SQLITE_BUSY.as_millis() < STORE_ANSWER_MAX.as_millis());
const _: () = assert!((PATIENCE.statement_ms as u128) < STORE_ANSWER_MAX.as_millis());

/// Parameters given to libpq unless the URL says otherwise: a server that is gone is noticed within
/// seconds, however it went.
const POSTGRES_PARAMETERS: &[(&str, &str)] = &[
    ("connect_timeout", "3"),
    ("keepalives_idle", "5"),
    ("keepalives_interval", "3"),
    ("keepalives_count", "2"),
    ("tcp_user_timeout", "5000"),
    ("application_name", "roomcast"),
];

/// A connection to one of the two databases.
pub(super) enum Connection {
    /// The embedded one.
    Sqlite(SqliteConnection),
    /// A server.
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
}

/// A connection that somebody else keeps: a lane, or the application.
#[allow(unreachable_pub, missing_debug_implementations, reason = "named by a sealed public trait")]
pub enum Borrowed<'c> {
    /// The embedded one.
    Sqlite(&'c mut SqliteConnection),
    /// A server.
    #[cfg(feature = "postgres")]
    Postgres(&'c mut PgConnection),
}

/// Evaluates one expression with the connection of whichever backend it is.
macro_rules! on_either {
    ($connection:expr, $name:ident => $body:expr) => {
        match $connection {
            $crate::store::connection::Connection::Sqlite($name) => $body,
            #[cfg(feature = "postgres")]
            $crate::store::connection::Connection::Postgres($name) => $body,
        }
    };
}
pub(super) use on_either;

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Commits messages; the only writer of a SQLite file.
    Write,
    /// Reads. On PostgreSQL also the rare writes that are not messages.
    Read,
}

/// Pages of 4 KiB in SQLite's write-ahead log from which on a commit copies them into the database: each copy
/// writes a page once, however often it was changed since, so rarer copies are less work. The log stays that large.
const SQLITE_WAL_PAGES: u32 = 4000;

/// Memory of the writer's pages in KiB. SQLite's 2,000 hold less than the ends of a thousand rooms, and every
/// message then reads pages back.
const SQLITE_WRITER_CACHE_KIB: u32 = 16 * 1024;

/// Bytes of the write-ahead log that stay on the disk: one that grew beyond them, because somebody read old
/// pages for long, is cut when SQLite begins it anew.
const SQLITE_WAL_KEPT_BYTES: u32 = 64 * 1024 * 1024;

/// The database to connect to.
#[derive(Clone)]
pub(super) struct Target {
    url: DatabaseUrl,
    durability: Durability,
    /// The files of an open SQLite database.
    files: Option<Arc<DatabaseFiles>>,
}

impl fmt::Debug for Target {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("durability", &self.durability).finish_non_exhaustive()
    }
}

impl Target {
    pub(super) fn new(config: &Database) -> Self {
        Self { url: config.url.clone(), durability: config.durability, files: None }
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn is_sqlite(&self) -> bool {
        matches!(self.url, DatabaseUrl::Sqlite(_))
    }

    /// Its name in messages to the operator: the file, or "PostgreSQL", whose URL may hold a password.
    pub(super) fn name(&self) -> String {
        match self.path() {
            Some(path) => path.display().to_string(),
            None => "PostgreSQL".to_owned(),
        }
    }

    /// The file of a SQLite database.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.url {
            DatabaseUrl::Sqlite(path) => Some(path),
            DatabaseUrl::Postgres(_) => None,
        }
    }

    /// Has the files of a SQLite database, which is open, watched from now on.
    pub(super) fn watch_files(&mut self, metrics: &Arc<Metrics>) -> Result<(), OpenError> {
        let Some(path) = self.path() else { return Ok(()) };
        let unopened = |error: String| OpenError::Connect(format!("{}: {error}", path.display()));
        let anchor = self.connect_sqlite(path, Purpose::Read).map_err(|error| unopened(error.to_string()))?;
        let files = DatabaseFiles::watch(path, anchor, metrics.clone());
        self.files = Some(Arc::new(files.map_err(|error| unopened(error.to_string()))?));
        Ok(())
    }

    /// Tells which file of a SQLite database is not in its place any more, if there is one.
    pub(super) fn check_files(&self) -> Result<(), String> {
        self.files.as_ref().map_or(Ok(()), |files| files.check())
    }

    /// Brings the metrics of a SQLite database's files up to date.
    pub(super) fn measure_files(&self) {
        if let Some(files) = &self.files {
            files.measure();
        }
    }

    /// Opens a connection with all its settings.
    pub(super) fn connect(&self, purpose: Purpose) -> Result<Connection, ConnectionError> {
        let mut connection = self.connect_patiently(purpose)?;
        connection.bound_waits().map_err(ConnectionError::CouldntSetupConfiguration)?;
        if purpose == Purpose::Write {
            connection.keep_to_indexes().map_err(ConnectionError::CouldntSetupConfiguration)?;
        }
        Ok(connection)
    }

    /// Opens a connection whose statements may take as long as the operator allows: a migration is one
    /// statement over a whole table. [`Connection::bound_waits`] ends that.
    pub(super) fn connect_patiently(&self, purpose: Purpose) -> Result<Connection, ConnectionError> {
        match &self.url {
            DatabaseUrl::Sqlite(path) => self.connect_sqlite(path, purpose).map(Connection::Sqlite),
            #[cfg(feature = "postgres")]
            DatabaseUrl::Postgres(url) => self.connect_postgres(url).map(Connection::Postgres),
            #[cfg(not(feature = "postgres"))]
            DatabaseUrl::Postgres(_) => Err(ConnectionError::BadConnection(WITHOUT_POSTGRES.to_owned())),
        }
    }

    /// Refuses a way to PostgreSQL on which connections share their sessions. `first` is one of them.
    ///
    /// # Errors
    /// [`OpenError::Refused`] when they do, [`OpenError::Connect`] when they cannot be asked.
    #[cfg(feature = "postgres")]
    pub(super) fn check_sessions(&self, first: &mut Connection) -> Result<(), OpenError> {
        let Connection::Postgres(first) = first else { return Ok(()) };
        let failed = |reason: String| OpenError::Connect(format!("{}: {reason}", self.name()));
        let second = self.connect_patiently(Purpose::Read).map_err(|error| failed(error.to_string()))?;
        let Connection::Postgres(mut second) = second else { return Ok(()) };
        match share_a_session(first, &mut second) {
            Ok(false) => Ok(()),
            Ok(true) => Err(OpenError::Refused(format!("{}: {SHARED_SESSIONS}", self.name()))),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn connect_sqlite(&self, path: &Path, purpose: Purpose) -> Result<SqliteConnection, ConnectionError> {
        let mut connection = SqliteConnection::establish(&sqlite_name(path)?)?;
        let synchronous = match self.durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        let busy_ms = SQLITE_BUSY.as_millis();
        let rest = match purpose {
            Purpose::Write => format!(
                "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; \
                 PRAGMA wal_autocheckpoint = {SQLITE_WAL_PAGES}; PRAGMA cache_size = -{SQLITE_WRITER_CACHE_KIB}; \
                 PRAGMA journal_size_limit = {SQLITE_WAL_KEPT_BYTES};"
            ),
            Purpose::Read => "PRAGMA query_only = ON;".to_owned(),
        };
        connection
            .batch_execute(&format!(
                "PRAGMA busy_timeout = {busy_ms}; PRAGMA synchronous = {synchronous}; {rest}"
            ))
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    }

    #[cfg(feature = "postgres")]
    fn connect_postgres(&self, url: &str) -> Result<PgConnection, ConnectionError> {
        let mut connection = PgConnection::establish(&with_parameters(url))?;
        let synchronous = match self.durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        connection
            .batch_execute(&format!("SET synchronous_commit = {synchronous}"))
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(connection)
    }
}

impl Connection {
    pub(super) fn borrow(&mut self) -> Borrowed<'_> {
        match self {
            Self::Sqlite(connection) => Borrowed::Sqlite(connection),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => Borrowed::Postgres(connection),
        }
    }

    pub(super) fn is_postgres(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }

    /// Runs `work` with a connection that may write, also when it was opened to read.
    pub(super) fn allow_writes<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> QueryResult<T>,
    ) -> QueryResult<T> {
        let reads_only = match self {
            Self::Sqlite(connection) => sqlite_reads_only(connection)?,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        };
        if !reads_only {
            return work(self);
        }
        on_either!(self, c => c.batch_execute("PRAGMA query_only = OFF"))?;
        let done = work(self);
        on_either!(self, c => c.batch_execute("PRAGMA query_only = ON"))?;
        done
    }

    /// Bounds the time that statements wait on PostgreSQL. On SQLite they wait for nothing but the file.
    pub(super) fn bound_waits(&mut self) -> QueryResult<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.batch_execute(&PATIENCE.statement(false)),
        }
    }

    /// Has PostgreSQL find every row by an index. The statements of a commit ask for rows by their keys only; each is
    /// planned once, on a new database while the tables are empty, and a plan that reads a whole table is kept until
    /// the statistics are renewed. By then it may have read 100,000 rooms for each commit.
    pub(super) fn keep_to_indexes(&mut self) -> QueryResult<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.batch_execute(
                "SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off",
            ),
        }
    }

    /// Runs `work` with statements that wait for no longer than `left`, if that is less than usual.
    ///
    /// # Errors
    /// The error of `work`; or of the database, when the usual waits could not be set again.
    pub(super) fn hurried<T, E: From<diesel::result::Error>>(
        &mut self,
        left: Duration,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        match self {
            Self::Sqlite(_) if left < SQLITE_BUSY => {
                self.wait_for_file(left)?;
                let done = work(self);
                self.wait_for_file(SQLITE_BUSY)?;
                done
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) if left < Duration::from_millis(PATIENCE.statement_ms.into()) => {
                let left_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
                let lock_ms = PATIENCE.lock_ms.min(left_ms);
                connection.batch_execute(&Patience { lock_ms, statement_ms: left_ms }.statement(false))?;
                let done = work(self);
                on_either!(self, c => c.batch_execute("RESET lock_timeout; RESET statement_timeout"))?;
                self.bound_waits()?;
                done
            }
            _ => work(self),
        }
    }

    /// Sets how long the next statements on SQLite wait for another process that holds the file.
    pub(super) fn wait_for_file(&mut self, longest: Duration) -> QueryResult<()> {
        match self {
            Self::Sqlite(connection) => {
                connection.batch_execute(&format!("PRAGMA busy_timeout = {}", longest.as_millis()))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Starts a transaction like [`begin`](Self::begin) whose statements wait for hardly anything.
    pub(super) fn begin_impatiently(&mut self) -> QueryResult<()> {
        self.begin()?;
        match self {
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.batch_execute(&SHORT_PATIENCE.statement(true)),
        }
    }

    /// Starts a transaction that will write. On SQLite it takes the write lock at once, since a
    /// lock that is taken later can fail instead of wait.
    pub(super) fn begin(&mut self) -> QueryResult<()> {
        match self {
            Self::Sqlite(connection) => connection.batch_execute("BEGIN IMMEDIATE"),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => connection.batch_execute("BEGIN"),
        }
    }

    /// Ends the transaction; after an error it is not known whether its rows are stored.
    pub(super) fn commit(&mut self) -> QueryResult<()> {
        on_either!(self, c => c.batch_execute("COMMIT"))
    }

    /// Gives the transaction up.
    pub(super) fn rollback(&mut self) -> QueryResult<()> {
        on_either!(self, c => c.batch_execute("ROLLBACK"))
    }

    /// Runs `work` in a transaction of its own; an error gives it up.
    pub(super) fn transaction<T, E: From<diesel::result::Error>>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin()?;
        let done = work(self).and_then(|value| {
            self.commit()?;
            Ok(value)
        });
        if done.is_err()
            && let Err(error) = self.rollback()
        {
            // SQLite has already given up the transaction on some errors; a broken PostgreSQL
            // connection is replaced by its owner.
            tracing::debug!(%error, "a rollback had nothing to do");
        }
        done
    }
}

fn sqlite_reads_only(connection: &mut SqliteConnection) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = diesel::sql_types::Bool)]
        query_only: bool,
    }
    let row: Row = diesel::sql_query("PRAGMA query_only").get_result(connection)?;
    Ok(row.query_only)
}

/// The longest waits of a statement on PostgreSQL, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// For one lock.
    lock_ms: u32,
    /// For everything.
    statement_ms: u32,
}

impl Patience {
    /// The statement that sets these waits where longer ones, or none, are set; `local`: for this transaction.
    fn statement(self, local: bool) -> String {
        let Self { lock_ms, statement_ms } = self;
        format!(
            "SELECT set_config(name, CASE WHEN setting::bigint BETWEEN 1 AND longest THEN setting \
             ELSE longest::text END, {local}) FROM pg_settings JOIN (VALUES ('lock_timeout', {lock_ms}), \
             ('statement_timeout', {statement_ms})) AS bounds (name, longest) USING (name)"
        )
    }
}

/// Settings, prepared statements and locks belong to a session.
#[cfg(feature = "postgres")]
const SHARED_SESSIONS: &str = "several connections share one session, as behind PgBouncer with pool_mode = \
     transaction; let the pooler use pool_mode = session, or connect without it";

/// True when two open connections are served by one process of the server, now or the next time.
#[cfg(feature = "postgres")]
fn share_a_session(first: &mut PgConnection, second: &mut PgConnection) -> QueryResult<bool> {
    let process = |connection: &mut PgConnection| {
        diesel::dsl::sql::<diesel::sql_types::Integer>("SELECT pg_backend_pid()")
            .get_result::<i32>(connection)
    };
    for _ in 0..3 {
        if process(first)? == process(second)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file name in a form that SQLite cannot take for a URI.
pub(super) fn sqlite_name(path: &Path) -> Result<String, ConnectionError> {
    let absolute: PathBuf =
        std::path::absolute(path).map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|_| ConnectionError::InvalidConnectionUrl("the file name is not UTF-8".to_owned()))
}

/// The URL with [`POSTGRES_PARAMETERS`] it does not set itself.
fn with_parameters(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in POSTGRES_PARAMETERS {
        let given = url
            .split_once('?')
            .is_some_and(|(_, query)| query.split('&').any(|pair| pair.split('=').next() == Some(name)));
        if !given {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={value}"));
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hurry_ends_with_what_was_hurried() {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Integer)]
            timeout: i32,
        }
        fn wait_ms(connection: &mut Connection) -> QueryResult<i32> {
            let Connection::Sqlite(connection) = connection else { panic!("not SQLite") };
            let row: Row = diesel::sql_query("PRAGMA busy_timeout").get_result(connection)?;
            Ok(row.timeout)
        }
        let mut connection = Connection::Sqlite(SqliteConnection::establish(":memory:").unwrap());
        connection.wait_for_file(SQLITE_BUSY).unwrap();
        assert_eq!(connection.hurried(Duration::from_millis(70), wait_ms), Ok(70));
        assert_eq!(connection.hurried(Duration::from_secs(60), wait_ms), Ok(2500));
        let failed = connection.hurried(Duration::ZERO, |_| Err::<(), _>(diesel::result::Error::NotFound));
        assert_eq!((failed, wait_ms(&mut connection)), (Err(diesel::result::Error::NotFound), Ok(2500)));
    }

    #[test]
    fn parameters_of_the_url_win() {
        let url = with_parameters("postgres://h/db?connect_timeout=1");
        assert!(url.starts_with("postgres://h/db?connect_timeout=1&keepalives_idle=5&"));
        assert_eq!(url.matches("connect_timeout").count(), 1);
        assert!(with_parameters("postgres://h/db").starts_with("postgres://h/db?connect_timeout=3&"));
    }
}
