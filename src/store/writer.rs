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
use super::health::{Monitor, Side};
use super::message::{NewMessage, NewRow};
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
    /// In a row that is yet to be made.
    New,
    /// In this row.
    Row {
        room_id: i64,
        seq: Seq,
    },
    /// It is the same as a stored one.
    Duplicate(Seq),
    /// It is the same as the message at this position of the batch.
    SameAs(usize),
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
            Ok(_) => self.monitor.worked(Side::Write),
            Err(error) if is_about_a_row(error) => {}
            Err(error) => self.give_up(error),
        }
        result
    }

    fn write_or_halve(&mut self, messages: &[&NewMessage], written: &mut Written) {
        let now = clock::unix_ms();
        match self.try_write(messages, now) {
            Ok(places) => {
                self.monitor.worked(Side::Write);
                for (message, place) in messages.iter().zip(&places) {
                    written.results.push(result_of(place, &places));
                    if let Place::Row { seq, .. } = place {
                        written.publications.push(message.publication(*seq, now));
                    }
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
        self.forget_some();
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

    /// Finds the row of every message and inserts it, inside a transaction. Locks are taken in one
    /// order everywhere, rooms before users and each sorted, so that two lanes or two nodes never
    /// wait for each other.
    fn place(
        &mut self,
        connection: &mut Connection,
        messages: &[&NewMessage],
        now: i64,
    ) -> QueryResult<Vec<Place>> {
        let room_ids = self.room_ids(connection, messages, now)?;
        let mut places = find_known(connection, messages, &room_ids)?;
        let mut next_seqs = statements::take_seqs(connection, &mut counts(&room_ids, &places), now)?;
        self.know_users(connection, messages, now)?;
        let mut rows = Vec::with_capacity(messages.len());
        for ((message, place), room_id) in messages.iter().zip(&mut places).zip(room_ids) {
            let (Place::New, Some(room_id)) = (&*place, room_id) else { continue };
            // A room that is gone was removed by hand since we looked it up.
            let next = next_seqs.get_mut(&room_id).ok_or(Error::NotFound)?;
            rows.push(NewRow::new(message, room_id, *next, now));
            *place = Place::Row { room_id, seq: Seq::try_from(*next).unwrap_or(0) };
            *next += 1;
        }
        statements::insert_messages(connection, &rows)?;
        Ok(places)
    }

    /// The id of each message's room; `None` where there is no such room and it may not come to be.
    fn room_ids(
        &mut self,
        connection: &mut Connection,
        messages: &[&NewMessage],
        now: i64,
    ) -> QueryResult<Vec<Option<i64>>> {
        let mut unknown: Vec<&NewMessage> =
            messages.iter().copied().filter(|message| !self.rooms.contains_key(&message.channel)).collect();
        unknown.sort_by(|one, other| one.channel.cmp(&other.channel));
        unknown.dedup_by(|one, other| one.channel == other.channel);
        for message in unknown {
            self.find_room(connection, message, now)?;
        }
        Ok(messages.iter().map(|message| self.rooms.get(&message.channel).copied()).collect())
    }

    fn find_room(&mut self, connection: &mut Connection, message: &NewMessage, now: i64) -> QueryResult<()> {
        let id = match message.auto_create {
            true => Some(statements::find_or_create_room(connection, &message.channel, now)?),
            false => statements::find_room(connection, &message.channel)?,
        };
        if let Some(id) = id {
            self.rooms.insert(message.channel.clone(), id);
        }
        Ok(())
    }

    /// Makes sure that the senders are in the users table.
    fn know_users(
        &mut self,
        connection: &mut Connection,
        messages: &[&NewMessage],
        now: i64,
    ) -> QueryResult<()> {
        let senders = messages.iter().filter_map(|message| Some(&message.info.as_ref()?.user));
        let mut unknown: Vec<&Arc<str>> =
            senders.filter(|user| !user.is_empty() && !self.users.contains(*user)).collect();
        unknown.sort();
        unknown.dedup();
        for user in unknown {
            statements::insert_user(connection, user, now)?;
            self.users.insert(user.clone());
        }
        Ok(())
    }

    /// Keeps what is remembered bounded; between two transactions, because one relies on it.
    fn forget_some(&mut self) {
        if self.rooms.len() > REMEMBERED_MAX {
            self.rooms.clear();
        }
        if self.users.len() > REMEMBERED_MAX {
            self.users.clear();
        }
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
        self.monitor.failed(Side::Write, &error.to_string());
    }
}

/// What the sender of a message is told, given the places of its whole batch.
fn result_of(place: &Place, places: &[Place]) -> Result<Appended, AppendError> {
    match place {
        Place::Row { seq, .. } => Ok(Appended::New(*seq)),
        Place::Duplicate(seq) => Ok(Appended::Duplicate(*seq)),
        Place::SameAs(first) => match places.get(*first) {
            Some(Place::Row { seq, .. } | Place::Duplicate(seq)) => Ok(Appended::Duplicate(*seq)),
            _ => Err(AppendError::Unavailable),
        },
        Place::UnknownRoom => Err(AppendError::UnknownRoom),
        // The transaction gave every message a place, or it failed.
        Place::New => Err(AppendError::Unavailable),
    }
}

/// Tells new messages from those that are stored already, by their keys.
fn find_known(
    connection: &mut Connection,
    messages: &[&NewMessage],
    room_ids: &[Option<i64>],
) -> QueryResult<Vec<Place>> {
    let keyed = messages.iter().zip(room_ids).filter(|(message, _)| message.key.is_some());
    let mut locked: Vec<i64> = keyed.filter_map(|(_, room_id)| *room_id).collect();
    if !locked.is_empty() {
        // All of the batch, not only the keyed ones: a lock taken later would break the order.
        locked = room_ids.iter().copied().flatten().collect();
        statements::lock_rooms(connection, locked)?;
    }
    let mut firsts: AHashMap<(i64, Option<&str>, &str), usize> = AHashMap::new();
    let mut places = Vec::with_capacity(messages.len());
    for (position, (message, room_id)) in messages.iter().zip(room_ids).enumerate() {
        let key = message.key.as_deref().zip(*room_id).map(|(key, room_id)| (room_id, message.sender(), key));
        places.push(match (room_id, key) {
            (None, _) => Place::UnknownRoom,
            (Some(_), None) => Place::New,
            (Some(_), Some(key)) => match firsts.get(&key) {
                Some(first) => Place::SameAs(*first),
                None => {
                    firsts.insert(key, position);
                    statements::seq_of_key(connection, key)?.map_or(Place::New, Place::Duplicate)
                }
            },
        });
    }
    Ok(places)
}

/// How many new messages each room gets.
fn counts(room_ids: &[Option<i64>], places: &[Place]) -> Vec<(i64, i64)> {
    let new = room_ids.iter().zip(places).filter(|(_, place)| matches!(place, Place::New));
    let mut counts: AHashMap<i64, i64> = AHashMap::new();
    for room_id in new.filter_map(|(room_id, _)| *room_id) {
        *counts.entry(room_id).or_default() += 1;
    }
    counts.into_iter().collect()
}
