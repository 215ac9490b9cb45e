//! The inside of a commit: gives each message of a batch its index in its room and writes it.
//!
//! Runs between BEGIN and COMMIT. Takes its locks in one order everywhere — users by id, rooms by
//! row, messages — so that no two lanes, and no two servers on one database, deadlock.

use std::sync::Arc;

use ahash::{HashMap, HashMapExt, HashSet};
use diesel::QueryResult;

use crate::ids::{Channel, Seq};
use crate::publication::Publication;
use crate::store::connection::Borrowed;
use crate::store::error::AppendError;
use crate::store::message::{Appended, NewMessage};
use crate::store::models::message::MessageRow;

#[cfg(feature = "postgres")]
use super::postgres;
use super::rows::{FoundKey, Grown, KeyedBy, Outcome, RoomHead, RoomShare, Stored};
use super::{rows, sqlite};

/// Writes the messages. `is_known` tells senders that certainly are rows of `users`.
pub(super) fn store(
    connection: &mut Borrowed<'_>,
    messages: &[&NewMessage],
    now_ms: i64,
    is_known: impl Fn(&str) -> bool,
) -> QueryResult<Stored> {
    let mut stored = Stored { outcomes: vec![None; messages.len()], ..Stored::default() };
    stored.users = add_senders(connection, messages, now_ms, is_known)?;
    let repeats = find_repeats(connection, messages, &mut stored.outcomes)?;
    let shares =
        share_by_room(messages, |index| stored.outcomes[index].is_none() && !repeats.contains_key(&index));
    let heads = grow_rooms(connection, &shares, now_ms)?;
    let rows = number_rows(messages, &shares, &heads, &mut stored);
    match connection {
        Borrowed::Sqlite(sqlite) => sqlite::insert_messages(sqlite, &rows)?,
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => postgres::insert_messages(postgres, &rows)?,
    }
    for (index, first) in repeats {
        let is_repeat = rows::is_repeat(messages[first], messages[index]);
        let outcome = stored.outcomes[first].clone();
        stored.outcomes[index] =
            outcome.map(|outcome| outcome.and_then(|first| repeat(first.seq(), is_repeat)));
    }
    debug_assert!(stored.outcomes.iter().all(Option::is_some), "every message has its outcome");
    Ok(stored)
}

/// Makes users of senders seen for the first time; returns them.
fn add_senders(
    connection: &mut Borrowed<'_>,
    messages: &[&NewMessage],
    now_ms: i64,
    is_known: impl Fn(&str) -> bool,
) -> QueryResult<Vec<Arc<str>>> {
    let senders = messages.iter().filter_map(|message| message.info.as_ref()).map(|info| &info.user);
    let unknown: HashSet<&Arc<str>> = senders.filter(|user| !user.is_empty() && !is_known(user)).collect();
    let mut users: Vec<Arc<str>> = unknown.into_iter().cloned().collect();
    users.sort_unstable();
    debug_assert!(users.is_sorted_by(|a, b| a < b), "users are locked in order, each once");
    match connection {
        _ if users.is_empty() => {}
        Borrowed::Sqlite(sqlite) => sqlite::insert_users(sqlite, &users, now_ms)?,
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => postgres::insert_users(postgres, &users, now_ms)?,
    }
    Ok(users)
}

/// Answers messages whose key is stored already; returns those that repeat another message of
/// this batch, with the index of that one. (Left to the unique index, a batch full of one key would
/// be taken apart row by row.)
fn find_repeats(
    connection: &mut Borrowed<'_>,
    messages: &[&NewMessage],
    outcomes: &mut [Option<Outcome>],
) -> QueryResult<HashMap<usize, usize>> {
    let keyed_by = |index: usize| KeyedBy::of(messages[index]).map(|keyed| (keyed, index));
    let keyed: Vec<(KeyedBy<'_>, usize)> = (0..messages.len()).filter_map(keyed_by).collect();
    let found = match connection {
        _ if keyed.is_empty() => return Ok(HashMap::new()),
        Borrowed::Sqlite(sqlite) => sqlite::find_keys(sqlite, messages, &keyed)?,
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => postgres::find_keys(postgres, messages, &keyed)?,
    };
    for FoundKey { index, seq, is_repeat } in found {
        outcomes[index] = Some(repeat(seq as Seq, is_repeat));
    }
    let mut firsts: HashMap<KeyedBy<'_>, usize> = HashMap::new();
    let mut repeats = HashMap::new();
    for (keyed, index) in keyed.into_iter().filter(|(_, index)| outcomes[*index].is_none()) {
        let first = *firsts.entry(keyed).or_insert(index);
        if first != index {
            repeats.insert(index, first);
        }
    }
    Ok(repeats)
}

/// The answer to a message whose key is that of the message at `first`.
fn repeat(first: Seq, is_repeat: bool) -> Outcome {
    if is_repeat { Ok(Appended::Duplicate(first)) } else { Err(AppendError::KeyTaken) }
}

/// Groups the messages for which `is_new` holds by room, rooms in the order of their first message.
fn share_by_room<'m>(messages: &[&'m NewMessage], is_new: impl Fn(usize) -> bool) -> Vec<RoomShare<'m>> {
    let mut shares: Vec<RoomShare<'m>> = Vec::new();
    let mut by_channel: HashMap<&Channel, usize> = HashMap::new();
    for (index, &message) in messages.iter().enumerate().filter(|(index, _)| is_new(*index)) {
        let at = *by_channel.entry(&message.channel).or_insert_with(|| {
            shares.push(RoomShare { channel: &message.channel, auto_create: false, indices: Vec::new() });
            shares.len() - 1
        });
        shares[at].auto_create |= message.auto_create;
        shares[at].indices.push(index);
    }
    shares
}

/// Counts the new messages in their rooms' rows, creating rooms where that is allowed. Returns per
/// share the room after that, or `None` when there is none.
fn grow_rooms(
    connection: &mut Borrowed<'_>,
    shares: &[RoomShare<'_>],
    now_ms: i64,
) -> QueryResult<Vec<Option<RoomHead>>> {
    match connection {
        _ if shares.is_empty() => Ok(Vec::new()),
        Borrowed::Sqlite(sqlite) => sqlite::grow_rooms(sqlite, shares, now_ms),
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(postgres) => postgres::grow_rooms(postgres, shares, now_ms),
    }
}

/// Numbers the new messages: the last of a room gets the room's head. Rows are in the order of
/// the batch, so commit order is the order of arrival. Their time is the room's, which never runs backwards:
/// otherwise a room could not be kept by age from some message on.
fn number_rows<'m>(
    messages: &[&'m NewMessage],
    shares: &[RoomShare<'m>],
    heads: &[Option<RoomHead>],
    stored: &mut Stored,
) -> Vec<MessageRow<'m>> {
    debug_assert_eq!(heads.len(), shares.len(), "one head a room");
    let mut numbered = Vec::with_capacity(messages.len());
    for (share, room) in shares.iter().zip(heads) {
        let Some(room) = room else {
            for &index in &share.indices {
                stored.outcomes[index] = Some(Err(AppendError::UnknownRoom));
            }
            continue;
        };
        let before = room.head - share.indices.len() as i64;
        debug_assert!(before >= 0, "a head counts every message of its room");
        stored.grown.push(Grown {
            channel: share.channel.clone(),
            before: before as Seq,
            head: room.head as Seq,
        });
        for (&index, seq) in share.indices.iter().zip(before + 1..) {
            stored.outcomes[index] = Some(Ok(Appended::New(seq as Seq)));
            numbered.push((index, *room, seq));
        }
    }
    numbered.sort_unstable_by_key(|(index, ..)| *index);
    stored.publications = numbered
        .iter()
        .map(|(index, room, seq)| publication(messages[*index], *seq, room.active_ms))
        .collect();
    let row = |(index, room, seq): (usize, RoomHead, i64)| {
        MessageRow::new(room.id, seq, messages[index], room.active_ms)
    };
    numbered.into_iter().map(row).collect()
}

fn publication(message: &NewMessage, seq: i64, created_at_ms: i64) -> Publication {
    Publication {
        channel: message.channel.clone(),
        seq: seq as Seq,
        data: message.data.clone(),
        info: message.info.clone(),
        tags: message.tags.clone(),
        created_at_ms,
    }
}
