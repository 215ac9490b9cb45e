//! The statements of a commit on SQLite.
//!
//! Typed statements of one row each, which diesel prepares once per connection: inside one
//! transaction a loop over them is as fast as a multi-row insert, which would be parsed anew
//! every time.

use std::sync::Arc;

use diesel::prelude::*;

use crate::store::models::message::{MessageRow, client_keys};
use crate::store::schema::{messages, rooms, users};

use super::transaction::{KeyedBy, NewRow, RoomHead, RoomShare};

pub(super) fn insert_users(
    connection: &mut SqliteConnection,
    ids: &[Arc<str>],
    now_ms: i64,
) -> QueryResult<()> {
    for id in ids {
        diesel::insert_into(users::table)
            .values((users::id.eq(&**id), users::created_at.eq(now_ms)))
            .on_conflict_do_nothing()
            .execute(connection)?;
    }
    Ok(())
}

/// Finds which keys are stored; the transaction already holds the only write lock.
pub(super) fn find_keys(
    connection: &mut SqliteConnection,
    keyed: &[(KeyedBy<'_>, usize)],
) -> QueryResult<Vec<(usize, i64)>> {
    let mut found = Vec::new();
    for (keyed, place) in keyed {
        let seq = messages::table
            .inner_join(rooms::table)
            .filter(rooms::name.eq(keyed.channel.as_str()))
            .filter(messages::client_key.eq(keyed.key))
            .filter(client_keys::coalesce(messages::sender, "").eq(keyed.sender))
            .select(messages::seq)
            .first::<i64>(connection)
            .optional()?;
        found.extend(seq.map(|seq| (*place, seq)));
    }
    Ok(found)
}

pub(super) fn grow_rooms(
    connection: &mut SqliteConnection,
    shares: &[RoomShare<'_>],
    now_ms: i64,
) -> QueryResult<Vec<Option<RoomHead>>> {
    shares.iter().map(|share| grow_room(connection, share, now_ms)).collect()
}

fn grow_room(
    connection: &mut SqliteConnection,
    share: &RoomShare<'_>,
    now_ms: i64,
) -> QueryResult<Option<RoomHead>> {
    let name = share.channel.as_str();
    let added = share.places.len() as i64;
    let grown = diesel::update(rooms::table.filter(rooms::name.eq(name)))
        .set((rooms::head_seq.eq(rooms::head_seq + added), rooms::last_active_at.eq(now_ms)))
        .returning((rooms::id, rooms::head_seq))
        .get_result::<(i64, i64)>(connection)
        .optional()?;
    let room = match grown {
        None if share.auto_create => Some(
            diesel::insert_into(rooms::table)
                .values((
                    rooms::name.eq(name),
                    rooms::kind.eq("public"),
                    rooms::head_seq.eq(added),
                    rooms::created_at.eq(now_ms),
                    rooms::last_active_at.eq(now_ms),
                ))
                .returning((rooms::id, rooms::head_seq))
                .get_result(connection)?,
        ),
        grown => grown,
    };
    Ok(room.map(|(id, head)| RoomHead { id, head }))
}

pub(super) fn insert_messages(
    connection: &mut SqliteConnection,
    rows: &[NewRow<'_>],
    now_ms: i64,
) -> QueryResult<()> {
    for row in rows {
        diesel::insert_into(messages::table)
            .values(MessageRow::new(row.room_id, row.seq, row.message, now_ms))
            .execute(connection)?;
    }
    Ok(())
}
