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
use crate::publication::Publication;
use crate::store::connection::{Connection, Purpose, Target};
use crate::store::error::{Fault, StoreError};
use crate::store::health::{Monitor, Side};
use crate::store::message::NewMessage;
use crate::store::models::message;

use super::history::LaneHistory;
use super::isolate::{self, Failed, Written};
use super::rows::{Grown, Stored};
use super::{postgres, transaction};

/// Shortest and longest pause between two attempts to connect; in between it is as long as the
/// failed attempt took, so that a server that refuses at once is tried often and one that does not
/// answer costs a caller at most every other moment.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`RECONNECT_PAUSE_MIN`].
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What a sender is told whose commit was overtaken by a fork; the operator reads more of it.
const FORKED: &str = "the history of the database forked";

/// The connection of a lane and what it remembers.
pub(super) struct Writer {
    target: Target,
    connection: Option<Connection>,
    reconnect_at: Option<Instant>,
    history: LaneHistory,
    /// Per room the numbers that a commit of unknown outcome would have used.
    in_doubt: Vec<Grown>,
    /// Not after that commit began.
    in_doubt_since: Instant,
    /// Not after the transactions of the last batch began.
    begun: Instant,
    monitor: Arc<Monitor>,
}

impl Writer {
    pub(super) fn new(
        target: Target,
        connection: Option<Connection>,
        history: LaneHistory,
        monitor: Arc<Monitor>,
    ) -> Self {
        Self {
            target,
            connection,
            reconnect_at: None,
            history,
            in_doubt: Vec::new(),
            in_doubt_since: Instant::now(),
            begun: Instant::now(),
            monitor,
        }
    }

    /// Stores what can be stored of the messages. Rows that cannot are refused one by one. The time is not
    /// after the first of the transactions began whose messages are to be passed on.
    pub(super) fn write(&mut self, messages: &[NewMessage]) -> (Written, Instant) {
        self.begun = Instant::now();
        let begun = if self.in_doubt.is_empty() { self.begun } else { self.in_doubt_since };
        // Anything passed on while a commit is in doubt would overtake what may be stored.
        let recovered = self.recover_in_doubt();
        let written = isolate::write(messages, recovered, |messages| self.attempt(messages));
        match &written.store_failure {
            Some(reason) => self.monitor.failed(Side::Write, reason),
            None if written.any_committed => self.monitor.succeeded(Side::Write),
            None => {}
        }
        (written, begun)
    }

    /// One transaction over all the rows. A connection that turns out to be dead before anything
    /// was committed is replaced once.
    fn attempt(&mut self, messages: &[&NewMessage]) -> Result<Stored, Failed> {
        let was_fresh = self.connection.is_none();
        match self.attempt_once(messages) {
            Err((Failed::Store(_), Stage::BeforeCommit)) if !was_fresh && self.connection.is_none() => {
                self.attempt_once(messages).map_err(|(failed, _)| failed)
            }
            Err((Failed::Store(_), Stage::WentBack)) => {
                self.attempt_once(messages).map_err(|(failed, _)| failed)
            }
            done => done.map_err(|(failed, _)| failed),
        }
    }

    /// The connection is out of its place while it is used, so that a panic cannot leave it
    /// behind in the middle of a transaction.
    fn attempt_once(&mut self, messages: &[&NewMessage]) -> Result<Stored, (Failed, Stage)> {
        debug_assert!(self.in_doubt.is_empty(), "nothing is stored while a commit is in doubt");
        let mut connection =
            self.take_connection().map_err(|reason| (Failed::Store(reason), Stage::BeforeCommit))?;
        let stored = connection.begin().and_then(|()| {
            let history = &self.history;
            transaction::store(&mut connection, messages, clock::unix_ms(), |user| history.knows_user(user))
        });
        match stored {
            Err(error) => Err((self.give_up(connection, &error), Stage::BeforeCommit)),
            Ok(stored) if self.history.went_back(&stored.grown) => {
                Err((self.start_anew(connection), Stage::WentBack))
            }
            Ok(stored) => match connection.commit() {
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
                    let failed = self.give_up(connection, &error);
                    if self.connection.is_none() {
                        self.note_in_doubt(stored);
                    }
                    Err((failed, Stage::Commit))
                }
            },
        }
    }

    /// Rolls back after an error. A connection that cannot even do that is dropped.
    fn give_up(&mut self, mut connection: Connection, error: &DieselError) -> Failed {
        let reason = error.to_string();
        match connection.rollback() {
            Ok(()) => self.connection = Some(connection),
            Err(_) => return Failed::Store(reason),
        }
        match Fault::of(error) {
            Fault::Row => Failed::Rows { reason, certain: true },
            Fault::Unclear => Failed::Rows { reason, certain: false },
            Fault::Store => Failed::Store(reason),
        }
    }

    /// Gives up a transaction whose numbers were given before, and names the history anew. The connection is
    /// replaced, as all are.
    fn start_anew(&mut self, mut connection: Connection) -> Failed {
        let renewed = connection.rollback().and_then(|()| self.history.renew_epoch(&mut connection));
        Failed::Store(renewed.err().map_or(FORKED.to_owned(), |error| error.to_string()))
    }

    /// An open connection, or why there is none.
    fn take_connection(&mut self) -> Result<Connection, String> {
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
            .map_err(|error: DieselError| error.to_string())?;
        self.connection = Some(connection);
        self.in_doubt.clear();
        Ok(recovered)
    }

    /// Runs another write in a transaction of its own.
    pub(super) fn write_beside<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let done = self.take_connection().map_err(StoreError::Unavailable).and_then(|mut connection| {
            let done = connection.transaction(work);
            if !matches!(done, Err(StoreError::Unavailable(_))) {
                self.connection = Some(connection);
            }
            done
        });
        match &done {
            Err(StoreError::Unavailable(reason)) => self.monitor.failed(Side::Write, reason),
            _ => self.monitor.succeeded(Side::Write),
        }
        done
    }

    /// Writes and deletes a row of no room, so that a store that works again is known to without
    /// a message.
    pub(super) fn probe(&mut self) {
        let now_ms = clock::unix_ms();
        let written = self.write_beside(|connection| Ok(message::write_trial(connection, now_ms)?));
        if written.is_ok()
            && let Err(error) = self.write_beside(|connection| Ok(message::delete_trials(connection)?))
        {
            tracing::debug!(%error, "a trial row stays until the next trial");
        }
    }
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
