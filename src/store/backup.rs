//! Copies of a SQLite database: made while a server runs, and put back while none does.
//!
//! A copy holds the epoch of its original. One that is put back gets another, because what was committed after
//! the copy was made is gone, and its numbers are given again.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use diesel::Connection as _;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;

use crate::clock;
use crate::config::{Database, DatabaseUrl};
use crate::store::claim::{self, Claim};
use crate::store::connection::{Connection, sqlite_name};
use crate::store::mark::{MarkFile, beside};
use crate::store::models::meta;
use crate::store::opening;

/// A copy that was not made or not put back.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// The database is in PostgreSQL, which has tools of its own.
    NotSqlite,
    /// There is no such file.
    Missing(PathBuf),
    /// There is a file of that name already.
    Exists(PathBuf),
    /// Somebody has the database open.
    InUse(PathBuf),
    /// The file is no database that the server would open, or a damaged one.
    Unfit(PathBuf, String),
    /// A step failed.
    Failed(String),
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSqlite => f.write_str("this is for SQLite; PostgreSQL has pg_dump and pg_restore"),
            Self::Missing(path) => write!(f, "there is no file {}", path.display()),
            Self::Exists(path) => write!(f, "{} exists already", path.display()),
            Self::InUse(path) => write!(f, "{} is in use; stop the server first", path.display()),
            Self::Unfit(path, reason) => {
                write!(f, "{} cannot be put back: {reason}", path.display())
            }
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for CopyError {}

impl From<diesel::result::Error> for CopyError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ConnectionError> for CopyError {
    fn from(error: ConnectionError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The outcome of putting a copy back.
#[derive(Debug)]
pub(crate) struct Restored {
    /// The file that the copy is now.
    pub(crate) database: PathBuf,
    /// The epoch it was given.
    pub(crate) epoch: String,
    /// Where the file is kept that was there before.
    pub(crate) replaced: Option<PathBuf>,
}

/// Makes a copy of a SQLite database, which may be in use; all of it is of one moment. The copy is durable when
/// this returns.
///
/// # Errors
/// [`CopyError`]; a file that was begun is removed.
pub(crate) fn backup(config: &Database, copy: &Path) -> Result<(), CopyError> {
    let database = file_of(config)?;
    if !database.exists() {
        return Err(CopyError::Missing(database.to_owned()));
    }
    if copy.exists() {
        return Err(CopyError::Exists(copy.to_owned()));
    }
    let draft = beside(copy, ".new");
    let made = vacuum_into(database, &draft).and_then(|()| put(&draft, copy));
    if made.is_err() {
        let _ = fs::remove_file(&draft);
    }
    made
}

/// Puts a copy in the place of a SQLite database that nobody has open, and gives it another epoch. The file that
/// was there is kept.
///
/// # Errors
/// [`CopyError`]; the database is as it was then.
pub(crate) fn restore(config: &Database, copy: &Path) -> Result<Restored, CopyError> {
    let database = file_of(config)?.to_owned();
    if !copy.exists() {
        return Err(CopyError::Missing(copy.to_owned()));
    }
    // Held until the copy is in place. One of a file that does not exist would make it.
    let claim = database.exists().then(|| Claim::new(&database)).transpose();
    let in_use = || CopyError::InUse(database.clone());
    let _claim = claim.map_err(|_| in_use())?;
    if database.exists() && is_in_use(&database) {
        return Err(in_use());
    }
    let draft = beside(&database, ".new");
    let _ = fs::remove_file(&draft);
    let done = draft_of(copy, &draft).and_then(|epoch| {
        let replaced = set_aside(&database)?;
        MarkFile::beside(&database).remove()?;
        put(&draft, &database)?;
        Ok(Restored { database: database.clone(), epoch, replaced })
    });
    if done.is_err() {
        let _ = fs::remove_file(&draft);
    }
    done
}

fn file_of(config: &Database) -> Result<&Path, CopyError> {
    match &config.url {
        DatabaseUrl::Sqlite(path) => Ok(path),
        DatabaseUrl::Postgres(_) => Err(CopyError::NotSqlite),
    }
}

fn open(path: &Path) -> Result<SqliteConnection, CopyError> {
    let mut connection = SqliteConnection::establish(&sqlite_name(path)?)?;
    connection.batch_execute("PRAGMA busy_timeout = 5000")?;
    Ok(connection)
}

/// Copies what a reader of the database sees now into a new file, without the space of deleted rows. Only its owner
/// may read it from the beginning: it holds what people said.
fn vacuum_into(database: &Path, copy: &Path) -> Result<(), CopyError> {
    let mut connection = open(database)?;
    claim::create(copy)?;
    diesel::sql_query("VACUUM INTO ?").bind::<Text, _>(sqlite_name(copy)?).execute(&mut connection)?;
    Ok(())
}

/// A copy of the copy, checked as a start of the server checks it, with an epoch of its own, which is returned.
fn draft_of(copy: &Path, draft: &Path) -> Result<String, CopyError> {
    let unfit = |reason: String| CopyError::Unfit(copy.to_owned(), reason);
    vacuum_into(copy, draft).map_err(|error| unfit(error.to_string()))?;
    let mut connection = open(draft)?;
    let flaws = diesel::dsl::sql::<Text>("PRAGMA quick_check(1)").get_result::<String>(&mut connection)?;
    if flaws != "ok" {
        return Err(unfit(flaws));
    }
    let mut connection = Connection::Sqlite(connection);
    opening::try_file(&mut connection).map_err(unfit)?;
    let epoch = meta::epoch_if_any(&mut connection).map_err(|error| unfit(error.to_string()))?;
    let Some(epoch) = epoch else { return Err(unfit("it has no epoch".to_owned())) };
    Ok(meta::renew_epoch(&mut connection, &epoch)?)
}

/// True when another connection has the database open: leaving the mode of the write-ahead log, which also
/// empties that log into the file, needs all others to be gone. A damaged file counts as free.
fn is_in_use(database: &Path) -> bool {
    let left = SqliteConnection::establish(&database.to_string_lossy())
        .map_err(CopyError::from)
        .and_then(|mut connection| Ok(connection.batch_execute("PRAGMA journal_mode = DELETE")?));
    matches!(left, Err(CopyError::Failed(reason)) if reason.contains("locked"))
}

/// Moves a database away, with its write-ahead log if it has one; where it is now.
fn set_aside(database: &Path) -> Result<Option<PathBuf>, CopyError> {
    if !database.exists() {
        return Ok(None);
    }
    let aside = beside(database, &format!("-replaced-{}", clock::unix_seconds()));
    if aside.exists() {
        return Err(CopyError::Exists(aside));
    }
    for suffix in ["-wal", "-shm"] {
        let part = beside(database, suffix);
        if part.exists() {
            fs::rename(&part, beside(&aside, suffix))?;
        }
    }
    fs::rename(database, &aside)?;
    Ok(Some(aside))
}

/// Gives a finished file its name, durably.
fn put(draft: &Path, path: &Path) -> Result<(), CopyError> {
    File::options().write(true).open(draft)?.sync_all()?;
    fs::rename(draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    Ok(())
}
