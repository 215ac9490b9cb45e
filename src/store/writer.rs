//! The writing end of a commit lane: one connection, and how a batch becomes one transaction.
//!
//! Only the leader of the lane is here. A batch either commits, or fails as a whole because the
//! database does; a message that the database refuses for its own sake is found by halving the
//! batch and left out, so that no seq is used up by it.

use std::sync::Arc;
use std::time::Instant;

use ahash::{AHashMap, AHashSet};
use diesel::QueryResult;
use diesel::result::Error;

use super::Appended;
use super::connection::{Connection, connect};
use super::error::{AppendError, is_about_a_row};
use super::health::Monitor;
use super::message::NewMessage;
use super::statements;
use crate::clock;
use crate::config::Database;
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::publication::Publication;

/// Rooms and users a writer remembers so that it need not ask; forgotten all at once when full.
const REMEMBERED_MAX: usize = 100_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    config: Database,
    connection: Option<Connection>,
    rooms: AHashMap<Channel, i64>,
    users: AHashSet<Arc<str>>,
    /// Messages whose commit was cut off before the database said how it ended.
    in_doubt: Vec<(i64, Publication)>,
    monitor: Arc<Monitor>,
    metrics: Arc<Metrics>,
}

/// What a batch came to.
#[derive(Debug)]
pub(super) struct Written {
    /// One a message.
    pub(super) results: Vec<Result<Appended, AppendError>>,
    /// What is now durable and was not handed over yet, in the order of its commit.
    pub(super) publications: Vec<Publication>,
}

/// Where a message of a transaction ended up.
enum Place {
    /// In this row.
    Row {
        room_id: i64,
        seq: Seq,
    },
    /// It is the same as a stored one, or as an earlier one of its batch.
    Duplicate(Seq),
    UnknownRoom,
}

impl Writer {
    pub(super) fn new(config: Database, monitor: Arc<Monitor>, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            connection: None,
            rooms: AHashMap::new(),
            users: AHashSet::new(),
            in_doubt: Vec::new(),
            monitor,
            metrics,
        }
    }

    /// Stores a batch durably.
    pub(super) fn write(&mut self, messages: &[&NewMessage]) -> Written {
        let started = Instant::now();
        let mut written = Written { results: Vec::with_capacity(messages.len()), publications: Vec::new() };
        if let Err(error) = self.settle_doubts(&mut written.publications) {
            self.give_up(&error);
            written.results.resize(messages.len(), Err(AppendError::Unavailable));
            return written;
        }
        self.write_or_halve(messages, &mut written);
        self.metrics.commit_batch_rows.observe(messages.len() as f64);
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        written
    }

    /// Runs something that is not a batch of messages in a transaction of its own.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> QueryResult<T>,
    ) -> Result<T, Error> {
        let result = self.connected().and_then(|connection| connection.write(work));
        match &result {
            Ok(_) => self.monitor.worked(),
            Err(error) if is_about_a_row(error) => {}
            Err(error) => self.give_up(error),
        }
        result
    }

    fn write_or_halve(&mut self, messages: &[&NewMessage], written: &mut Written) {
        let now = clock::unix_ms();
        match self.try_write(messages, now) {
            Ok(places) => {
                self.monitor.worked();
                for (message, place) in messages.iter().zip(places) {
                    written.results.push(match place {
                        Place::Row { seq, .. } => {
                            written.publications.push(message.publication(seq, now));
                            Ok(Appended::New(seq))
                        }
                        Place::Duplicate(seq) => Ok(Appended::Duplicate(seq)),
                        Place::UnknownRoom => Err(AppendError::UnknownRoom),
                    });
                }
            }
            Err(error) if is_about_a_row(&error) && messages.len() > 1 => {
                let (first, second) = messages.split_at(messages.len() / 2);
                self.write_or_halve(first, written);
                self.write_or_halve(second, written);
            }
            Err(error) if is_about_a_row(&error) => {
                written.results.push(Err(AppendError::Rejected(error.to_string())));
            }
            Err(error) => {
                self.metrics.commit_failures_total.inc();
                self.give_up(&error);
                written.results.extend(messages.iter().map(|_| Err(AppendError::Unavailable)));
            }
        }
    }

    fn try_write(&mut self, messages: &[&NewMessage], now: i64) -> QueryResult<Vec<Place>> {
        self.connected()?;
        let mut connection = self.connection.take().ok_or(Error::NotInTransaction)?;
        let mut places = Vec::new();
        let outcome = connection.write(|connection| {
            places = self.place(connection, messages, now)?;
            Ok(())
        });
        self.connection = Some(connection);
        if let Err(error) = outcome {
            // With places known, what failed is the commit: it may have happened all the same.
            if !is_about_a_row(&error) {
                self.doubt(messages, &places, now);
            }
            self.rooms.clear();
            self.users.clear();
            return Err(error);
        }
        Ok(places)
    }

    /// Finds the row of every message and inserts it, inside a transaction.
    fn place(
        &mut self,
        connection: &mut Connection,
        messages: &[&NewMessage],
        now: i64,
    ) -> QueryResult<Vec<Place>> {
        let mut places: Vec<Option<Place>> = Vec::with_capacity(messages.len());
        let mut keys: AHashMap<(i64, Option<&str>, &str), usize> = AHashMap::new();
        let mut same_as: AHashMap<usize, usize> = AHashMap::new();
        let mut counts: Vec<(i64, i64)> = Vec::new();
        let mut room_ids = Vec::with_capacity(messages.len());
        for (number, message) in messages.iter().enumerate() {
            let Some(room_id) = self.room_id(connection, message, now)? else {
                room_ids.push(0);
                places.push(Some(Place::UnknownRoom));
                continue;
            };
            room_ids.push(room_id);
            let key = message.key.as_deref().map(|key| (room_id, message.sender(), key));
            if let Some(first) = key.and_then(|key| keys.get(&key)) {
                same_as.insert(number, *first);
                places.push(None);
                continue;
            }
            if let Some(seq) = statements::seq_of_key(connection, key)? {
                places.push(Some(Place::Duplicate(seq)));
                continue;
            }
            if let Some(key) = key {
                keys.insert(key, number);
            }
            self.know_user(connection, message, now)?;
            match counts.iter_mut().find(|(id, _)| *id == room_id) {
                Some((_, count)) => *count += 1,
                None => counts.push((room_id, 1)),
            }
            places.push(None);
        }
        let mut next_seqs = statements::take_seqs(connection, &mut counts, now)?;
        let mut rows = Vec::with_capacity(messages.len());
        for (number, place) in places.iter_mut().enumerate() {
            if place.is_some() || same_as.contains_key(&number) {
                continue;
            }
            let room_id = room_ids[number];
            // A room that is gone was removed by hand since we looked it up.
            let next = next_seqs.get_mut(&room_id).ok_or(Error::NotFound)?;
            rows.push(super::message::NewRow::new(messages[number], room_id, *next, now));
            *place = Some(Place::Row { room_id, seq: Seq::try_from(*next).unwrap_or(0) });
            *next += 1;
        }
        statements::insert_messages(connection, &rows)?;
        for (number, first) in same_as {
            if let Some(Place::Row { seq, .. }) = places[first] {
                places[number] = Some(Place::Duplicate(seq));
            }
        }
        Ok(places.into_iter().map(|place| place.unwrap_or(Place::UnknownRoom)).collect())
    }

    /// The id of a message's room; `None` when there is no such room and it may not come to be.
    fn room_id(
        &mut self,
        connection: &mut Connection,
        message: &NewMessage,
        now: i64,
    ) -> QueryResult<Option<i64>> {
        if let Some(id) = self.rooms.get(&message.channel) {
            return Ok(Some(*id));
        }
        let id = match message.auto_create {
            true => Some(statements::find_or_create_room(connection, &message.channel, now)?),
            false => statements::find_room(connection, &message.channel)?,
        };
        if let Some(id) = id {
            if self.rooms.len() >= REMEMBERED_MAX {
                self.rooms.clear();
            }
            self.rooms.insert(message.channel.clone(), id);
        }
        Ok(id)
    }

    /// Makes sure that the sender is in the users table.
    fn know_user(&mut self, connection: &mut Connection, message: &NewMessage, now: i64) -> QueryResult<()> {
        let Some(user) = message.info.as_ref().map(|info| &info.user).filter(|user| !user.is_empty()) else {
            return Ok(());
        };
        if self.users.contains(user) {
            return Ok(());
        }
        statements::insert_user(connection, user, now)?;
        if self.users.len() >= REMEMBERED_MAX {
            self.users.clear();
        }
        self.users.insert(user.clone());
        Ok(())
    }

    /// Remembers what a commit that was cut off may have stored.
    fn doubt(&mut self, messages: &[&NewMessage], places: &[Place], now: i64) {
        for (message, place) in messages.iter().zip(places) {
            if let Place::Row { room_id, seq } = place {
                self.in_doubt.push((*room_id, message.publication(*seq, now)));
            }
        }
    }

    /// Looks up what became of doubtful messages; those that are stored are to be handed over now,
    /// before anything newer of their rooms. Their senders were told to try again, which is all that
    /// can be said of a commit whose end nobody heard.
    fn settle_doubts(&mut self, publications: &mut Vec<Publication>) -> QueryResult<()> {
        if self.in_doubt.is_empty() {
            return Ok(());
        }
        self.connected()?;
        let Some(connection) = self.connection.as_mut() else { return Err(Error::NotInTransaction) };
        let mut stored = Vec::new();
        for (room_id, publication) in &self.in_doubt {
            if statements::is_stored(connection, *room_id, publication)? {
                stored.push(publication.clone());
            }
        }
        self.in_doubt.clear();
        publications.extend(stored);
        Ok(())
    }

    fn connected(&mut self) -> QueryResult<&mut Connection> {
        if self.connection.is_none() {
            let connection = connect(&self.config).map_err(|error| {
                let reason = error.to_string();
                Error::DatabaseError(diesel::result::DatabaseErrorKind::ClosedConnection, Box::new(reason))
            })?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or(Error::NotInTransaction)
    }

    /// The database failed: the connection is not trusted any more.
    fn give_up(&mut self, error: &Error) {
        self.connection = None;
        self.monitor.failed(&error.to_string());
    }
}
