//! The statements of a commit on SQLite.
//!
//! Statements of one row each, which are prepared once per connection: inside one transaction a
//! loop over them is faster than a multi-row insert, which would be parsed anew every time.

use std::sync::Arc;

use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Text};
use diesel::sqlite::Sqlite;

use crate::store::message::NewMessage;
use crate::store::models::message::{MessageRow, client_keys, insert_binary};
use crate::store::schema::{messages, rooms, users};

use super::rows::{FoundKey, KeyedBy, RoomHead, RoomShare};
use super::statement::prepared;

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

/// Finds which keys are stored, and with what; the transaction already holds the only write lock.
pub(super) fn find_keys(
    connection: &mut SqliteConnection,
    messages: &[&NewMessage],
    keyed: &[(KeyedBy<'_>, usize)],
) -> QueryResult<Vec<FoundKey>> {
    let mut found = Vec::new();
    for &(keyed, index) in keyed {
        let message = messages[index];
        let is_same_origin = messages::sender.is_null().eq(message.info.is_none());
        let is_repeat = is_same_origin
            .and(messages::data.eq(message.json()))
            .and(messages::data_bytes.is(message.data.as_binary()))
            .and(messages::tags.is(message.tags.as_deref()));
        let row: Option<(i64, bool)> = messages::table
            .inner_join(rooms::table)
            .filter(rooms::name.eq(keyed.channel.as_str()))
            .filter(messages::client_key.eq(keyed.key))
            .filter(client_keys::coalesce(messages::sender, "").eq(keyed.sender))
            .select((messages::seq, is_repeat))
            .first(connection)
            .optional()?;
        found.extend(row.map(|(seq, is_repeat)| FoundKey { index, seq, is_repeat }));
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

/// Counts new messages in a room that exists.
struct GrowRoom<'m> {
    name: &'m str,
    added: i64,
    now_ms: i64,
}
prepared!(GrowRoom for SqliteConnection => (BigInt, BigInt, BigInt));

impl QueryFragment<Sqlite> for GrowRoom<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE rooms SET head_seq = head_seq + ");
        out.push_bind_param::<BigInt, _>(&self.added)?;
        out.push_sql(", last_active_at = max(last_active_at, ");
        out.push_bind_param::<BigInt, _>(&self.now_ms)?;
        out.push_sql(") WHERE name = ");
        out.push_bind_param::<Text, _>(self.name)?;
        out.push_sql(" RETURNING id, head_seq, last_active_at");
        Ok(())
    }
}

fn grow_room(
    connection: &mut SqliteConnection,
    share: &RoomShare<'_>,
    now_ms: i64,
) -> QueryResult<Option<RoomHead>> {
    let name = share.channel.as_str();
    let added = share.indices.len() as i64;
    let grown: Option<(i64, i64, i64)> =
        GrowRoom { name, added, now_ms }.get_result(connection).optional()?;
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
                .returning((rooms::id, rooms::head_seq, rooms::last_active_at))
                .get_result(connection)?,
        ),
        grown => grown,
    };
    Ok(room.map(|(id, head, active_ms)| RoomHead { id, head, active_ms }))
}

pub(super) fn insert_messages(connection: &mut SqliteConnection, rows: &[MessageRow<'_>]) -> QueryResult<()> {
    for row in rows {
        match row.data_bytes {
            None => diesel::insert_into(messages::table).values(*row).execute(connection)?,
            Some(bytes) => insert_binary!(connection, row, bytes)?,
        };
    }
    Ok(())
}
