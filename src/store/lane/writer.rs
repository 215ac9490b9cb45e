//! One lane's connection: keeps it alive, turns a batch into commits, finds the rows that can not
//! be stored, and remembers what it does not know.
//!
//! What it may not know is whether a commit that broke off has happened. It keeps the range of
//! numbers such a commit would have used per room, and looks there before it hands anything else
//! on: what is stored after all reaches the listeners first and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::HashSet;
use diesel::QueryResult;
use diesel::result::Error as DieselError;

use crate::clock;
use crate::ids::{Channel, Seq};
use crate::limits::{INFO_BYTES_MAX, PUBLISH_KEY_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::publication::Publication;
use crate::store::connection::{Connection, Purpose, Target};
use crate::store::error::{AppendError, Fault, StoreError};
use crate::store::file::FileIdentity;
use crate::store::health::{Monitor, Side};
use crate::store::message::NewMessage;
use crate::store::models::message;

use super::rows::{Outcome, Stored};
use super::{postgres, transaction};

/// Senders a lane remembers to be rows of `users`, so that it need not ask per message.
const KNOWN_USERS_MAX: usize = 16 * 1024;

/// Shortest and longest pause between two attempts to connect; in between it is as long as the
/// failed attempt took, so that a server that refuses at once is tried often and one that does not
/// answer costs a caller at most every other moment.
const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`RECONNECT_PAUSE_MIN`].
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What became of a batch.
pub(super) struct Written {
    pub(super) outcomes: Vec<Outcome>,
    /// For the sink, in commit order.
    pub(super) publications: Vec<Publication>,
    /// What failed, if it was not a row's own fault.
    pub(super) store_failure: Option<String>,
}

/// Why an attempt to store rows failed.
enum Failed {
    /// One of the rows is to blame, certainly or perhaps.
    Rows { reason: String, certain: bool },
    /// The store is to blame.
    Store(String),
}

/// The connection of a lane and what it remembers.
pub(super) struct Writer {
    target: Target,
    connection: Option<Connection>,
    reconnect_at: Option<Instant>,
    file: Option<FileIdentity>,
    known_users: HashSet<Arc<str>>,
    /// Per room the numbers (after, until] that a commit with unknown outcome would have used.
    unsure: BTreeMap<Channel, (Seq, Seq)>,
    /// Time of the last batch: `created_at` never runs backwards within a room.
    last_ms: i64,
    monitor: Arc<Monitor>,
}

impl Writer {
    pub(super) fn new(target: Target, connection: Option<Connection>, monitor: Arc<Monitor>) -> Self {
        let file = target.path().and_then(FileIdentity::of);
        Self {
            target,
            connection,
            reconnect_at: None,
            file,
            known_users: HashSet::default(),
            unsure: BTreeMap::new(),
            last_ms: 0,
            monitor,
        }
    }

    /// Stores what can be stored of the messages. Rows that can not are refused one by one.
    pub(super) fn write(&mut self, messages: &[NewMessage]) -> Written {
        self.last_ms = clock::unix_ms().max(self.last_ms);
        let mut batch = Batch::new(messages);
        match self.recover_unsure() {
            Ok(recovered) => batch.publications = recovered,
            // Anything handed on now would overtake what may be stored.
            Err(reason) => batch.store_failure = Some(reason),
        }
        let places = batch.open_places();
        if !places.is_empty() {
            self.write_isolating(&mut batch, &places);
        }
        let any_committed = batch.any_committed;
        let written = batch.finish();
        match &written.store_failure {
            Some(reason) => self.monitor.failed(Side::Write, reason),
            None if any_committed => self.monitor.succeeded(Side::Write),
            None => {}
        }
        written
    }

    /// Stores the rows at these places; when one of them is in the way, halves them until it is
    /// alone. Halves are stored in order, so the order of the batch holds.
    fn write_isolating(&mut self, batch: &mut Batch<'_>, places: &[usize]) {
        if batch.store_failure.is_some() {
            return;
        }
        match self.attempt(&batch.messages_at(places)) {
            Ok(stored) => batch.settle(places, stored),
            Err(Failed::Rows { reason, certain }) => match places {
                [place] if batch.may_be_overtaken(*place) => self.write_isolating(batch, places),
                [place] => batch.blame(*place, reason, certain),
                _ => {
                    let (first, second) = places.split_at(places.len() / 2);
                    self.write_isolating(batch, first);
                    self.write_isolating(batch, second);
                }
            },
            Err(Failed::Store(reason)) => batch.store_failure = Some(reason),
        }
    }

    /// One transaction over all the rows. A connection that turns out to be dead before anything
    /// was committed is replaced once.
    fn attempt(&mut self, messages: &[&NewMessage]) -> Result<Stored, Failed> {
        let was_fresh = self.connection.is_none();
        match self.attempt_once(messages) {
            Err((Failed::Store(_), Stage::BeforeCommit)) if !was_fresh && self.connection.is_none() => {
                self.attempt_once(messages).map_err(|(failed, _)| failed)
            }
            done => done.map_err(|(failed, _)| failed),
        }
    }

    /// The connection is out of its place while it is used, so that a panic can not leave it
    /// behind in the middle of a transaction.
    fn attempt_once(&mut self, messages: &[&NewMessage]) -> Result<Stored, (Failed, Stage)> {
        let mut connection =
            self.take_connection().map_err(|reason| (Failed::Store(reason), Stage::BeforeCommit))?;
        let stored = connection.begin().and_then(|()| {
            let known = &self.known_users;
            transaction::store(&mut connection, messages, self.last_ms, |user| known.contains(user))
        });
        match stored {
            Err(error) => Err((self.give_up(connection, &error), Stage::BeforeCommit)),
            Ok(stored) => match connection.commit() {
                Ok(()) => {
                    self.connection = Some(connection);
                    self.remember(&stored.users);
                    Ok(stored)
                }
                Err(error) => {
                    let failed = self.give_up(connection, &error);
                    if self.connection.is_none() {
                        self.doubt(&stored);
                    }
                    Err((failed, Stage::Commit))
                }
            },
        }
    }

    /// Rolls back after an error. A connection that can not even do that is dropped.
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

    /// An open connection, or why there is none.
    fn take_connection(&mut self) -> Result<Connection, String> {
        if let (Some(path), Some(file)) = (self.target.path(), &self.file)
            && FileIdentity::of(path).as_ref() != Some(file)
        {
            return Err("the database file was moved or deleted".to_owned());
        }
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let started = Instant::now();
        if self.reconnect_at.is_some_and(|at| started < at) {
            return Err("the database was not reachable a moment ago".to_owned());
        }
        match self.target.connect(Purpose::Write) {
            Ok(connection) => {
                self.reconnect_at = None;
                Ok(connection)
            }
            Err(error) => {
                let pause = started.elapsed().clamp(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
                self.reconnect_at = Some(Instant::now() + pause);
                Err(error.to_string())
            }
        }
    }

    fn remember(&mut self, users: &[Arc<str>]) {
        if self.known_users.len() + users.len() > KNOWN_USERS_MAX {
            self.known_users.clear();
        }
        self.known_users.extend(users.iter().cloned());
    }

    /// Notes that a commit may or may not have happened.
    fn doubt(&mut self, stored: &Stored) {
        for grown in &stored.grown {
            let range = self.unsure.entry(grown.channel.clone()).or_insert((grown.before, grown.head));
            range.1 = range.1.max(grown.head);
        }
    }

    /// Reads back what doubtful commits did store. Keeps the doubt when that fails.
    fn recover_unsure(&mut self) -> Result<Vec<Publication>, String> {
        if self.unsure.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.take_connection()?;
        let recovered = connection
            .transaction(|connection| read_unsure(connection, &self.unsure))
            .map_err(|error: DieselError| error.to_string())?;
        self.connection = Some(connection);
        self.unsure.clear();
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

/// How far an attempt came.
enum Stage {
    /// Nothing can have been stored.
    BeforeCommit,
    /// The commit was asked for.
    Commit,
}

/// Waits for transactions that are still at work in these rooms, then reads the doubtful ranges.
fn read_unsure(
    connection: &mut Connection,
    unsure: &BTreeMap<Channel, (Seq, Seq)>,
) -> QueryResult<Vec<Publication>> {
    if let Connection::Postgres(postgres) = connection {
        postgres::lock_rooms(postgres, unsure.keys().map(Channel::as_str))?;
    }
    let mut publications = Vec::new();
    for (channel, (after, until)) in unsure {
        publications.extend(message::range(connection, channel, *after, *until)?);
    }
    Ok(publications)
}

/// A batch while it is being written.
struct Batch<'m> {
    messages: &'m [NewMessage],
    outcomes: Vec<Option<Outcome>>,
    publications: Vec<Publication>,
    /// Rows that failed alone, without the database saying whose fault it was.
    suspects: Vec<(usize, String)>,
    /// At least one transaction was committed.
    any_committed: bool,
    store_failure: Option<String>,
    /// A row that was given a second try because of its key.
    second_try: Option<usize>,
}

impl<'m> Batch<'m> {
    fn new(messages: &'m [NewMessage]) -> Self {
        let refused = |message| refusal(message).map(|reason| Err(AppendError::Rejected(reason.to_owned())));
        Self {
            messages,
            outcomes: messages.iter().map(refused).collect(),
            publications: Vec::new(),
            suspects: Vec::new(),
            any_committed: false,
            store_failure: None,
            second_try: None,
        }
    }

    fn open_places(&self) -> Vec<usize> {
        (0..self.messages.len()).filter(|place| self.outcomes[*place].is_none()).collect()
    }

    fn messages_at(&self, places: &[usize]) -> Vec<&'m NewMessage> {
        places.iter().map(|place| &self.messages[*place]).collect()
    }

    fn settle(&mut self, places: &[usize], stored: Stored) {
        for (place, outcome) in places.iter().zip(stored.outcomes) {
            self.outcomes[*place] = outcome;
        }
        self.publications.extend(stored.publications);
        self.any_committed = true;
    }

    /// True once for a row with a key: another server may have stored the same key in a room that
    /// this batch was about to create, when there was no row to lock. A second try finds it.
    fn may_be_overtaken(&mut self, place: usize) -> bool {
        self.messages[place].key.is_some() && self.second_try.replace(place) != Some(place)
    }

    /// A row failed alone. When the database does not say whose fault that is, a second such row
    /// while none was stored speaks against the store.
    fn blame(&mut self, place: usize, reason: String, certain: bool) {
        if certain {
            self.outcomes[place] = Some(Err(AppendError::Rejected(reason)));
            return;
        }
        if !self.any_committed && !self.suspects.is_empty() {
            self.store_failure = Some(reason.clone());
        }
        self.suspects.push((place, reason));
    }

    /// Judges the suspects: bad rows if others could be stored, else victims.
    fn finish(mut self) -> Written {
        if self.any_committed && self.store_failure.is_none() {
            for (place, reason) in self.suspects.drain(..) {
                self.outcomes[place] = Some(Err(AppendError::Rejected(reason)));
            }
        }
        let store_failure = self.store_failure.or_else(|| self.suspects.pop().map(|(_, reason)| reason));
        let outcomes =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(AppendError::Unavailable)));
        Written { outcomes: outcomes.collect(), publications: self.publications, store_failure }
    }
}

/// Why a message can not be stored on either database, if so; found before any statement runs.
fn refusal(message: &NewMessage) -> Option<&'static str> {
    let info = message.info.as_deref();
    let texts = [
        Some(&message.data),
        message.tags.as_ref(),
        message.key.as_ref(),
        info.map(|info| &info.user),
        info.map(|info| &info.client),
        info.and_then(|info| info.conn_info.as_ref()),
        info.and_then(|info| info.chan_info.as_ref()),
    ];
    let longer = |text: Option<&Arc<str>>, max: usize| text.is_some_and(|text| text.len() > max);
    if texts.into_iter().flatten().any(|text| text.contains('\0')) {
        Some("it holds a NUL character")
    } else if longer(message.key.as_ref(), PUBLISH_KEY_BYTES_MAX) {
        Some("its key is too long")
    } else if longer(info.map(|info| &info.user), USER_ID_BYTES_MAX) {
        Some("its sender's user id is too long")
    } else if longer(info.and_then(|info| info.conn_info.as_ref()), INFO_BYTES_MAX)
        || longer(info.and_then(|info| info.chan_info.as_ref()), INFO_BYTES_MAX)
    {
        Some("its sender's info is too long")
    } else {
        None
    }
}
