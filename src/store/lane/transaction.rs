//! The inside of a commit: gives each message of a batch its place in its room and writes it.
//!
//! Runs between BEGIN and COMMIT. Takes its locks in one order everywhere — users by id, rooms by
//! row, messages — so that no two lanes, and no two servers on one database, wait for each other
//! in a circle.

use std::sync::Arc;

use ahash::{HashMap, HashMapExt, HashSet};
use diesel::QueryResult;

use crate::ids::{Channel, Seq};
use crate::publication::Publication;
use crate::store::connection::Connection;
use crate::store::error::AppendError;

use super::{Appended, NewMessage, Outcome, postgres, sqlite};

/// A room as a batch found or left it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoomHead {
    pub(super) id: i64,
    pub(super) head: i64,
}

/// What a batch wants of one room.
#[derive(Debug)]
pub(super) struct RoomShare<'m> {
    pub(super) channel: &'m Channel,
    pub(super) auto_create: bool,
    /// New messages, as places in the batch.
    pub(super) places: Vec<usize>,
}

/// A row of `messages` about to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewRow<'m> {
    pub(super) room_id: i64,
    pub(super) seq: i64,
    pub(super) message: &'m NewMessage,
}

/// A client key with everything that makes it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyedBy<'m> {
    pub(super) channel: &'m Channel,
    pub(super) sender: &'m str,
    pub(super) key: &'m str,
}

impl<'m> KeyedBy<'m> {
    fn of(message: &'m NewMessage) -> Option<Self> {
        let key = message.key.as_deref()?;
        Some(Self { channel: &message.channel, sender: sender(message).unwrap_or(""), key })
    }
}

/// The sender's user id; `None` for the server API, empty for an anonymous client.
pub(super) fn sender(message: &NewMessage) -> Option<&str> {
    message.info.as_ref().map(|info| &*info.user)
}

/// What a transaction has done, true once it is committed.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// One per message.
    pub(super) outcomes: Vec<Option<Outcome>>,
    /// The new ones, in commit order.
    pub(super) publications: Vec<Publication>,
    /// Per room that grew: the head before and after.
    pub(super) grown: Vec<(Channel, Seq, Seq)>,
    /// Senders that are rows of `users` now.
    pub(super) users: Vec<Arc<str>>,
}

/// Writes the messages. `is_known` tells senders that certainly are rows of `users`.
pub(super) fn store(
    connection: &mut Connection,
    messages: &[&NewMessage],
    now_ms: i64,
    is_known: impl Fn(&str) -> bool,
) -> QueryResult<Stored> {
    let mut stored = Stored { outcomes: vec![None; messages.len()], ..Stored::default() };
    stored.users = add_senders(connection, messages, now_ms, is_known)?;
    let repeats = find_repeats(connection, messages, &mut stored.outcomes)?;
    let shares =
        share_by_room(messages, |place| stored.outcomes[place].is_none() && !repeats.contains_key(&place));
    let heads = grow_rooms(connection, &shares, now_ms)?;
    let rows = number_rows(messages, &shares, &heads, &mut stored);
    match connection {
        Connection::Sqlite(sqlite) => sqlite::insert_messages(sqlite, &rows, now_ms)?,
        Connection::Postgres(postgres) => postgres::insert_messages(postgres, &rows, now_ms)?,
    }
    for (place, first) in repeats {
        let outcome = stored.outcomes[first].clone();
        stored.outcomes[place] = outcome.map(|outcome| outcome.map(|first| Appended::Duplicate(first.seq())));
    }
    stored.publications = rows.iter().map(|row| publication(row, now_ms)).collect();
    Ok(stored)
}

/// Makes users of senders seen for the first time; returns them.
fn add_senders(
    connection: &mut Connection,
    messages: &[&NewMessage],
    now_ms: i64,
    is_known: impl Fn(&str) -> bool,
) -> QueryResult<Vec<Arc<str>>> {
    let senders = messages.iter().filter_map(|message| message.info.as_ref()).map(|info| &info.user);
    let unknown: HashSet<&Arc<str>> = senders.filter(|user| !user.is_empty() && !is_known(user)).collect();
    let mut users: Vec<Arc<str>> = unknown.into_iter().cloned().collect();
    users.sort_unstable();
    match connection {
        _ if users.is_empty() => {}
        Connection::Sqlite(sqlite) => sqlite::insert_users(sqlite, &users, now_ms)?,
        Connection::Postgres(postgres) => postgres::insert_users(postgres, &users, now_ms)?,
    }
    Ok(users)
}

/// Settles messages whose key is stored already; returns those that repeat another message of
/// this batch, with the place of that one. (Left to the unique index, a batch full of one key would
/// be taken apart row by row.)
fn find_repeats(
    connection: &mut Connection,
    messages: &[&NewMessage],
    outcomes: &mut [Option<Outcome>],
) -> QueryResult<HashMap<usize, usize>> {
    let mut firsts: HashMap<KeyedBy<'_>, usize> = HashMap::new();
    let mut repeats = HashMap::new();
    for (place, message) in messages.iter().enumerate() {
        if let Some(keyed) = KeyedBy::of(message) {
            let first = *firsts.entry(keyed).or_insert(place);
            if first != place {
                repeats.insert(place, first);
            }
        }
    }
    if firsts.is_empty() {
        return Ok(repeats);
    }
    let keyed: Vec<(KeyedBy<'_>, usize)> = firsts.into_iter().collect();
    let found = match connection {
        Connection::Sqlite(sqlite) => sqlite::find_keys(sqlite, &keyed)?,
        Connection::Postgres(postgres) => postgres::find_keys(postgres, &keyed)?,
    };
    for (place, seq) in found {
        outcomes[place] = Some(Ok(Appended::Duplicate(seq as Seq)));
    }
    Ok(repeats)
}

/// Groups the messages for which `is_new` holds by room, rooms in the order of their first message.
fn share_by_room<'m>(messages: &[&'m NewMessage], is_new: impl Fn(usize) -> bool) -> Vec<RoomShare<'m>> {
    let mut shares: Vec<RoomShare<'m>> = Vec::new();
    let mut by_channel: HashMap<&Channel, usize> = HashMap::new();
    for (place, &message) in messages.iter().enumerate().filter(|(place, _)| is_new(*place)) {
        let at = *by_channel.entry(&message.channel).or_insert_with(|| {
            shares.push(RoomShare { channel: &message.channel, auto_create: false, places: Vec::new() });
            shares.len() - 1
        });
        shares[at].auto_create |= message.auto_create;
        shares[at].places.push(place);
    }
    shares
}

/// Counts the new messages in their rooms' rows, creating rooms where that is allowed. Returns per
/// share the room after that, or `None` when there is none.
fn grow_rooms(
    connection: &mut Connection,
    shares: &[RoomShare<'_>],
    now_ms: i64,
) -> QueryResult<Vec<Option<RoomHead>>> {
    match connection {
        _ if shares.is_empty() => Ok(Vec::new()),
        Connection::Sqlite(sqlite) => sqlite::grow_rooms(sqlite, shares, now_ms),
        Connection::Postgres(postgres) => postgres::grow_rooms(postgres, shares, now_ms),
    }
}

/// Numbers the new messages: the last of a room gets the room's head. Rows are in the order of
/// the batch, so commit order is the order of arrival.
fn number_rows<'m>(
    messages: &[&'m NewMessage],
    shares: &[RoomShare<'m>],
    heads: &[Option<RoomHead>],
    stored: &mut Stored,
) -> Vec<NewRow<'m>> {
    let mut rows = Vec::with_capacity(messages.len());
    for (share, room) in shares.iter().zip(heads) {
        let Some(room) = room else {
            for &place in &share.places {
                stored.outcomes[place] = Some(Err(AppendError::UnknownRoom));
            }
            continue;
        };
        let before = room.head - share.places.len() as i64;
        stored.grown.push((share.channel.clone(), before as Seq, room.head as Seq));
        for (&place, seq) in share.places.iter().zip(before + 1..) {
            stored.outcomes[place] = Some(Ok(Appended::New(seq as Seq)));
            rows.push((place, NewRow { room_id: room.id, seq, message: messages[place] }));
        }
    }
    rows.sort_unstable_by_key(|(place, _)| *place);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn publication(row: &NewRow<'_>, now_ms: i64) -> Publication {
    Publication {
        channel: row.message.channel.clone(),
        seq: row.seq as Seq,
        data: Arc::clone(&row.message.data),
        info: row.message.info.clone(),
        tags: row.message.tags.clone(),
        created_at_ms: now_ms,
    }
}
