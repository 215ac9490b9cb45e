//! One lane's connection: keeps it alive, runs transactions, and tracks commits of unknown outcome.
//!
//! A commit that broke off is in doubt: its rows may be stored. The writer keeps the range of
//! numbers it would have used in each room, and reads those ranges back before it passes anything
//! else on, so that stored messages reach the listeners first and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::QueryResult;
use diesel::result::Error as DieselError;

use crate::clock;
use crate::ids::Channel;
use crate::limits::STORE_ANSWER_MAX;
use crate::publication::Publication;
use crate::store::connection::{Connection, Purpose, SQLITE_BUSY, Target};
use crate::store::error::{Fault, Outage, StoreError, is_locked_file, wants_new_connection};
use crate::store::health::{Monitor, Side};
use crate::store::message::NewMessage;
use crate::store::models::{message, meta, trial};

use super::history::LaneHistory;
use super::isolate::{self, Failed, Written};
use super::rows::{Grown, Stored};
use super::transaction;
#[cfg(feature = "postgres")]
use super::{postgres, verdict};

/// Shortest and longest pause between two attempts to connect; in between it is as long as the
/// failed attempt took, so that a server that refuses at once is tried often and one that does not
/// answer costs a caller at most every other moment.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`RECONNECT_PAUSE_MIN`].
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a sender is told whose commit was overtaken by a fork; the operator reads more of it.
const FORKED: &str = "the history of the database forked";

/// The reason for which rows are not tried whose callers have been told that they failed.
const LATE: &str = "it took too long to connect";

/// Time after which the rows of a batch that failed are not tried in smaller parts any more: their callers are
/// about to be answered.
const ISOLATE_MAX: Duration = Duration::from_secs(2);

/// An attempt that failed sooner has waited for nothing.
const WAITED_MIN: Duration = Duration::from_millis(350);

/// An attempt that failed sooner, because its connection was dead, is repeated.
const REPEAT_MAX: Duration = Duration::from_secs(1);

/// Shortest time between two connections that replace one which could still roll back.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

/// Time a trial of a store that is down waits for the file of SQLite: callers may be waiting behind it.
const TRIAL_BUSY: Duration = Duration::from_millis(100);

/// The connection of a lane and what it remembers.
pub(super) struct Writer {
    target: Target,
    side: Side,
    connection: Option<Connection>,
    /// The connection is to be replaced: one of its statements failed for the store's sake.
    is_stale: bool,
    replaced_at: Option<Instant>,
    /// Time that its statements wait for a SQLite file.
    file_wait: Duration,
    /// Time that those of whichever connection is used next are to wait.
    next_file_wait: Duration,
    reconnect_at: Option<Instant>,
    history: LaneHistory,
    /// Per room the numbers that a commit of unknown outcome would have used.
    in_doubt: Vec<Grown>,
    /// Not after that commit began.
    in_doubt_since: Instant,
    /// Not after the transactions of the last batch began.
    begun: Instant,
    /// Time at which the callers of that batch are answered, whatever has become of it.
    answer_by: Instant,
    monitor: Arc<Monitor>,
}

impl Writer {
    pub(super) fn new(
        (target, side): (Target, Side),
        connection: Option<Connection>,
        history: LaneHistory,
        monitor: Arc<Monitor>,
    ) -> Self {
        Self {
            target,
            side,
            connection,
            is_stale: false,
            replaced_at: None,
            file_wait: SQLITE_BUSY,
            next_file_wait: SQLITE_BUSY,
            reconnect_at: None,
            history,
            in_doubt: Vec::new(),
            in_doubt_since: Instant::now(),
            begun: Instant::now(),
            answer_by: Instant::now(),
            monitor,
        }
    }

    /// Stores what can be stored of the messages. Rows that cannot are refused one by one. `waited` is the time
    /// that the oldest of them has waited already. The time returned is not after the first of the transactions
    /// began whose messages are to be passed on.
    pub(super) fn write(&mut self, messages: &[NewMessage], waited: Duration) -> (Written, Instant) {
        let _operation = self.monitor.begin(self.side);
        self.wait_for_file(SQLITE_BUSY.saturating_sub(waited));
        let began = Instant::now();
        self.begun = began;
        self.answer_by = began + STORE_ANSWER_MAX.saturating_sub(waited);
        let begun = if self.is_in_doubt() { self.in_doubt_since } else { self.begun };
        // Anything passed on while a commit is in doubt would overtake what may be stored.
        let recovered = self.recover_in_doubt();
        let (mut failure, mut isolating) = (None, false);
        let written = isolate::write(messages, recovered, |messages| match &failure {
            Some(reason) if began.elapsed() > ISOLATE_MAX => Err(Failed::Store(String::clone(reason))),
            _ => {
                let done = self.attempt(messages, isolating);
                if let Err(failed) = &done {
                    isolating |= matches!(failed, Failed::Part { .. });
                    failure = Some(failed.reason());
                }
                done
            }
        });
        if std::mem::take(&mut self.is_stale) && self.may_replace() {
            self.drop_connection();
        }
        match &written.store_failure {
            Some(failure) if failure.is_partial => self.monitor.failed_in_part(self.side, &failure.reason),
            Some(failure) => self.monitor.failed(self.side, &failure.reason),
            None if written.any_committed => self.monitor.succeeded(self.side),
            None => {}
        }
        (written, begun)
    }

    /// One transaction over all the rows. When it fails at once, for the store's sake and before anything was
    /// committed, it is tried once more on a new connection: the old one may be dead, lead to a server that takes
    /// no writes any more, or remember what is not true any more.
    fn attempt(&mut self, messages: &[&NewMessage], isolating: bool) -> Result<Stored, Failed> {
        let (was_fresh, mut began) = (self.connection.is_none(), Instant::now());
        let done = self.attempt_once(messages, isolating);
        let took = began.elapsed();
        match done {
            Err((Failed::Part { .. }, Stage::BeforeCommit))
                if took < WAITED_MIN && !was_fresh && !isolating && self.may_replace() =>
            {
                self.drop_connection();
                began = Instant::now();
                self.attempt_once(messages, isolating)
            }
            Err((Failed::Store(_), Stage::WentBack)) => self.attempt_once(messages, isolating),
            Err((Failed::Store(_), Stage::BeforeCommit))
                if took < REPEAT_MAX && !was_fresh && self.connection.is_none() =>
            {
                self.attempt_once(messages, isolating)
            }
            done => done,
        }
        .map_err(|(failed, _)| failed.after(began.elapsed() >= WAITED_MIN))
        .map_err(|failed| self.judge(failed, messages))
    }

    /// A row that failed alone and at once, for a reason that diesel does not tell, may be bad after all.
    fn judge(&mut self, failed: Failed, messages: &[&NewMessage]) -> Failed {
        let (Failed::Part { reason, waited: false }, [message]) = (&failed, messages) else { return failed };
        if !self.connection.as_mut().is_some_and(|connection| is_bad(connection, message)) {
            return failed;
        }
        self.is_stale = false;
        Failed::Row(reason.clone())
    }

    /// The connection is out of its place while it is used, so that a panic cannot leave it
    /// behind in the middle of a transaction.
    fn attempt_once(&mut self, messages: &[&NewMessage], isolating: bool) -> Result<Stored, (Failed, Stage)> {
        debug_assert!(self.in_doubt.is_empty(), "nothing is stored while a commit is in doubt");
        let mut connection =
            self.take_connection().map_err(|reason| (Failed::Store(reason), Stage::BeforeCommit))?;
        if Instant::now() >= self.answer_by {
            // A server that was away may have let the connection wait.
            self.connection = Some(connection);
            return Err((Failed::Store(LATE.to_owned()), Stage::BeforeCommit));
        }
        let begun = if isolating { connection.begin_impatiently() } else { connection.begin() };
        let stored = begun.and_then(|()| {
            let history = &self.history;
            transaction::store(&mut connection.borrow(), messages, clock::unix_ms(), |user| {
                history.knows_user(user)
            })
        });
        let stored = match stored {
            Ok(stored) if self.history.went_back(&stored.grown) => {
                return Err((self.start_anew(connection), Stage::WentBack));
            }
            Ok(stored) => stored,
            Err(error) => return Err((self.give_up(connection, &error).0, Stage::BeforeCommit)),
        };
        match connection.commit() {
            Ok(()) if !self.history.is_current() => {
                // Another connection shows another history; whether this one's is lost, that will tell.
                self.note_in_doubt(stored);
                Err((Failed::Store(FORKED.to_owned()), Stage::Commit))
            }
            Ok(()) => {
                self.connection = Some(connection);
                self.history.note(&stored);
                Ok(stored)
            }
            Err(error) => {
                let (failed, ended) = self.give_up(connection, &error);
                if ended == Ended::Unknown {
                    self.note_in_doubt(stored);
                }
                Err((failed, Stage::Commit))
            }
        }
    }

    /// Rolls back after an error. A connection that cannot even do that is dropped, as is one that failed for the
    /// store's sake, whatever is asked of it: another one may lead to a server that works.
    fn give_up(&mut self, mut connection: Connection, error: &DieselError) -> (Failed, Ended) {
        let reason = error.to_string();
        let ended = match connection.rollback() {
            Ok(()) => Ended::RolledBack,
            // There is no transaction yet.
            Err(_) if is_locked_file(error) => Ended::RolledBack,
            Err(_) => Ended::Unknown,
        };
        let fault = if ended == Ended::RolledBack { Fault::of(error) } else { Fault::Store };
        let is_usable = !wants_new_connection(error) || fault == Fault::Part;
        if ended == Ended::RolledBack && is_usable {
            self.connection = Some(connection);
        } else {
            drop(connection);
            self.drop_connection();
        }
        self.is_stale |= fault == Fault::Part;
        let failed = match fault {
            Fault::Row => Failed::Row(reason),
            Fault::Part => Failed::Part { reason, waited: false },
            Fault::Store => Failed::Store(reason),
        };
        (failed, ended)
    }

    /// The next statement gets a new connection, perhaps to another server.
    fn drop_connection(&mut self) {
        self.connection = None;
        self.replaced_at = Some(Instant::now());
    }

    fn may_replace(&self) -> bool {
        self.replaced_at.is_none_or(|at| at.elapsed() > REPLACE_PAUSE)
    }

    /// Bounds the time that statements on SQLite wait for another process: in steps, for that is a statement too.
    fn wait_for_file(&mut self, longest: Duration) {
        const STEP_MS: u64 = 500;
        let steps = longest.as_millis() as u64 / STEP_MS;
        self.next_file_wait = Duration::from_millis(steps * STEP_MS).max(TRIAL_BUSY);
    }

    /// Gives up a transaction whose numbers were given before, and names the history anew. The connection is
    /// replaced, as all are.
    fn start_anew(&mut self, mut connection: Connection) -> Failed {
        let renewed = connection.rollback().and_then(|()| self.history.renew_epoch(&mut connection));
        Failed::Store(renewed.err().map_or(FORKED.to_owned(), |error| error.to_string()))
    }

    /// An open connection, which waits for the file as long as it is to, or why there is none.
    fn take_connection(&mut self) -> Result<Connection, String> {
        let mut connection = self.take_or_open()?;
        if self.next_file_wait != self.file_wait {
            connection.wait_for_file(self.next_file_wait).map_err(|error| error.to_string())?;
            self.file_wait = self.next_file_wait;
        }
        Ok(connection)
    }

    fn take_or_open(&mut self) -> Result<Connection, String> {
        self.target.check_files()?;
        if let Some(connection) = self.connection.take().filter(|_| self.history.is_current()) {
            return Ok(connection);
        }
        let started = Instant::now();
        if self.reconnect_at.is_some_and(|at| started < at) {
            return Err("the database was not reachable a moment ago".to_owned());
        }
        let connected = self.target.connect(Purpose::Write).map_err(|error| error.to_string());
        let admitted = connected.and_then(|mut connection| match self.history.admit(&mut connection) {
            Ok(()) => Ok(connection),
            Err(reason) => Err(reason.to_string()),
        });
        match admitted {
            Ok(connection) => {
                self.file_wait = SQLITE_BUSY;
                self.reconnect_at = None;
                Ok(connection)
            }
            Err(error) => {
                let pause = started.elapsed().clamp(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
                self.reconnect_at = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }

    /// Notes that a commit may or may not have happened.
    fn note_in_doubt(&mut self, stored: Stored) {
        debug_assert!(self.connection.is_none(), "a live connection knows the outcome of its commit");
        debug_assert!(self.in_doubt.is_empty(), "one commit in doubt at a time");
        debug_assert!(stored.grown.iter().all(|grown| grown.before < grown.head), "a range holds numbers");
        self.in_doubt = stored.grown;
        self.in_doubt_since = self.begun;
    }

    /// Reads back what a commit in doubt did store. It stays in doubt when that fails.
    fn recover_in_doubt(&mut self) -> Result<Vec<Publication>, String> {
        if self.in_doubt.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.take_connection()?;
        let recovered = connection
            .transaction(|connection| read_in_doubt(connection, &self.in_doubt))
            .map_err(|error: DieselError| {
                self.drop_connection();
                error.to_string()
            })?;
        self.connection = Some(connection);
        self.in_doubt.clear();
        Ok(recovered)
    }

    /// True while it is not known whether the last commit has stored anything.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.in_doubt.is_empty()
    }

    /// Reads back what a commit in doubt did store, while nobody has anything to write; not after that commit began.
    pub(super) fn resolve_doubt(&mut self) -> (Vec<Publication>, Instant) {
        let _operation = self.monitor.begin(self.side);
        let resolved = self.recover_in_doubt().unwrap_or_else(|reason| {
            self.monitor.failed(self.side, &reason);
            Vec::new()
        });
        (resolved, self.in_doubt_since)
    }

    /// Runs another write in a transaction of its own, which waits for the file for about as long as `left`.
    pub(super) fn write_beside<T>(
        &mut self,
        left: Duration,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _operation = self.monitor.begin(self.side);
        self.wait_for_file(left);
        let none = |reason: String| StoreError::Unavailable(Outage::whole(reason));
        let done = self.take_connection().map_err(none).and_then(|mut connection| {
            let done = connection.transaction(work);
            match done {
                Err(StoreError::Unavailable(_)) => self.drop_connection(),
                _ => self.connection = Some(connection),
            }
            done
        });
        match &done {
            Err(StoreError::Unavailable(outage)) => self.monitor.failed_for(self.side, outage),
            _ => self.monitor.succeeded(self.side),
        }
        done
    }

    /// Finds out whether a store that is down works again, or one that is idle still does; without waiting for
    /// anybody who holds it.
    pub(super) fn probe(&mut self) {
        if self.monitor.is_down(self.side) {
            self.try_writing();
        } else if self.connection.is_some() {
            self.ask_whether_writable();
        }
    }

    /// Writes and deletes a row of no room, and asks each table that is written to with this connection.
    fn try_writing(&mut self) {
        let now_ms = clock::unix_ms();
        let tables = if self.target.is_sqlite() { trial::ALL_TABLES } else { trial::TABLES_OF_COMMITS };
        let written =
            self.write_beside(TRIAL_BUSY, |connection| Ok(trial::write(connection, tables, now_ms)?));
        if written.is_ok()
            && let Err(error) = self.write_beside(TRIAL_BUSY, |connection| Ok(trial::delete(connection)?))
        {
            tracing::debug!(%error, "a trial row stays until the next trial");
        }
    }

    /// Asks without writing: an idle server writes nothing. A connection that has died is replaced first.
    fn ask_whether_writable(&mut self) {
        let _operation = self.monitor.begin(self.side);
        let ask = |writer: &mut Self| {
            let mut connection = writer.take_connection()?;
            let writable = meta::is_writable(&mut connection).map_err(|error| error.to_string());
            match writable {
                Ok(true) => {
                    writer.connection = Some(connection);
                    Ok(())
                }
                Ok(false) => {
                    writer.drop_connection();
                    Err("the server takes no writes".to_owned())
                }
                Err(reason) => {
                    writer.drop_connection();
                    Err(reason)
                }
            }
        };
        match ask(self).or_else(|_: String| ask(self)) {
            Ok(()) => self.monitor.succeeded(self.side),
            Err(reason) => self.monitor.failed(self.side, &reason),
        }
    }
}

impl Failed {
    fn reason(&self) -> String {
        match self {
            Self::Row(reason) | Self::Part { reason, .. } | Self::Store(reason) => reason.clone(),
        }
    }

    /// Notes whether the attempt took long.
    fn after(self, long: bool) -> Self {
        match self {
            Self::Part { reason, .. } => Self::Part { reason, waited: long },
            other => other,
        }
    }
}

/// True when the database says that one of the message's values is what it refuses.
#[cfg(feature = "postgres")]
fn is_bad(connection: &mut Connection, message: &NewMessage) -> bool {
    match connection {
        Connection::Sqlite(_) => false,
        Connection::Postgres(postgres) => verdict::is_bad(postgres, message),
    }
}

/// SQLite tells.
#[cfg(not(feature = "postgres"))]
fn is_bad(_connection: &mut Connection, _message: &NewMessage) -> bool {
    false
}

/// What became of a transaction that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Nothing of it is stored.
    RolledBack,
    /// It cannot be asked.
    Unknown,
}

/// The outcome of an attempt.
enum Stage {
    /// Nothing can have been stored.
    BeforeCommit,
    /// The commit was asked for.
    Commit,
    /// Its numbers were given before, and it was given up.
    WentBack,
}

/// Waits for transactions that are still at work in these rooms, then reads the ranges in doubt.
fn read_in_doubt(connection: &mut Connection, in_doubt: &[Grown]) -> QueryResult<Vec<Publication>> {
    #[cfg(feature = "postgres")]
    if let Connection::Postgres(postgres) = connection {
        postgres::lock_rooms(postgres, in_doubt.iter().map(|grown| Channel::as_str(&grown.channel)))?;
    }
    let mut publications = Vec::new();
    for Grown { channel, before, head } in in_doubt {
        let found = message::range(connection, channel, *before, *head)?;
        debug_assert!(found.is_sorted_by(|a, b| a.seq < b.seq), "a range is read in order");
        debug_assert!(found.iter().all(|row| row.seq > *before && row.seq <= *head), "only the range");
        publications.extend(found);
    }
    Ok(publications)
}
