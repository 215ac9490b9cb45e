//! The statements of a commit. The one place where the two databases are spoken to differently,
//! because it pays: SQLite runs cached single inserts, PostgreSQL one statement a batch.

use ahash::AHashMap;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Nullable, Text};

use super::connection::{Connection, on};
use super::message::NewRow;
use super::rooms::RoomKind;
use super::schema::{messages, rooms, users};
use crate::ids::{Channel, Seq};
use crate::publication::Publication;

pub(super) fn find_room(connection: &mut Connection, channel: &Channel) -> QueryResult<Option<i64>> {
    let query = rooms::table.filter(rooms::name.eq(channel.as_str())).select(rooms::id);
    on!(Connection, connection, connection => query.first(connection).optional())
}

pub(super) fn find_or_create_room(
    connection: &mut Connection,
    channel: &Channel,
    now: i64,
) -> QueryResult<i64> {
    if let Some(id) = find_room(connection, channel)? {
        return Ok(id);
    }
    let row = (
        rooms::name.eq(channel.as_str()),
        rooms::kind.eq(RoomKind::Public.as_str()),
        rooms::created_at.eq(now),
    );
    on!(Connection, connection, connection => {
        diesel::insert_into(rooms::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    // Another node may have been faster; either way there is one now.
    find_room(connection, channel)?.ok_or(diesel::result::Error::NotFound)
}

pub(super) fn insert_user(connection: &mut Connection, user: &str, now: i64) -> QueryResult<()> {
    let row = (users::id.eq(user), users::created_at.eq(now));
    on!(Connection, connection, connection => {
        diesel::insert_into(users::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    Ok(())
}

/// Locks rooms until the end of the transaction, in the order of their ids. SQLite has one writer,
/// who has locked everything already.
pub(super) fn lock_rooms(connection: &mut Connection, mut ids: Vec<i64>) -> QueryResult<()> {
    if let Connection::Postgres(connection) = connection {
        ids.sort_unstable();
        ids.dedup();
        let rows = rooms::table.filter(rooms::id.eq_any(ids)).order(rooms::id).select(rooms::id);
        rows.for_update().load::<i64>(connection)?;
    }
    Ok(())
}

/// The seq of the message that a room, sender and key already stand for; the room must be locked.
pub(super) fn seq_of_key(
    connection: &mut Connection,
    (room_id, sender, key): (i64, Option<&str>, &str),
) -> QueryResult<Option<Seq>> {
    let keyed = messages::table
        .filter(messages::room_id.eq(room_id))
        .filter(messages::client_key.eq(key))
        .select(messages::seq);
    let seq: Option<i64> = on!(Connection, connection, connection => match sender {
        Some(sender) => keyed.filter(messages::sender.eq(sender)).first(connection),
        None => keyed.filter(messages::sender.is_null()).first(connection),
    }
    .optional())?;
    Ok(seq.and_then(|seq| Seq::try_from(seq).ok()))
}

/// Moves the heads of the rooms forward by these counts; the first free seq of each. Rooms are taken
/// in the order of their ids, so that two nodes cannot wait for each other.
pub(super) fn take_seqs(
    connection: &mut Connection,
    counts: &mut [(i64, i64)],
    now: i64,
) -> QueryResult<AHashMap<i64, i64>> {
    counts.sort_unstable();
    if counts.len() > 1 {
        lock_rooms(connection, counts.iter().map(|(id, _)| *id).collect())?;
    }
    let heads = match connection {
        Connection::Postgres(connection) if counts.len() > 1 => take_seqs_at_once(connection, counts, now)?,
        _ => take_seqs_one_by_one(connection, counts, now)?,
    };
    let firsts = counts.iter().filter_map(|(id, count)| heads.get(id).map(|head| (*id, head - count + 1)));
    Ok(firsts.collect())
}

fn take_seqs_one_by_one(
    connection: &mut Connection,
    counts: &[(i64, i64)],
    now: i64,
) -> QueryResult<AHashMap<i64, i64>> {
    let mut heads = AHashMap::with_capacity(counts.len());
    for (id, count) in counts {
        let moved = (rooms::head_seq.eq(rooms::head_seq + count), rooms::last_active_at.eq(now));
        let head: Option<i64> = on!(Connection, connection, connection => {
            diesel::update(rooms::table.filter(rooms::id.eq(id)))
                .set(moved)
                .returning(rooms::head_seq)
                .get_result(connection)
                .optional()
        })?;
        if let Some(head) = head {
            heads.insert(*id, head);
        }
    }
    Ok(heads)
}

/// One statement for all rooms, which must be locked.
fn take_seqs_at_once(
    connection: &mut PgConnection,
    counts: &[(i64, i64)],
    now: i64,
) -> QueryResult<AHashMap<i64, i64>> {
    #[derive(QueryableByName)]
    struct Head {
        #[diesel(sql_type = BigInt)]
        id: i64,
        #[diesel(sql_type = BigInt)]
        head_seq: i64,
    }
    let (ids, numbers): (Vec<i64>, Vec<i64>) = counts.iter().copied().unzip();
    let heads: Vec<Head> = diesel::sql_query(
        "UPDATE rooms SET head_seq = rooms.head_seq + taken.count, last_active_at = $3 \
         FROM unnest($1, $2) AS taken (id, count) WHERE rooms.id = taken.id \
         RETURNING rooms.id, rooms.head_seq",
    )
    .bind::<Array<BigInt>, _>(&ids)
    .bind::<Array<BigInt>, _>(&numbers)
    .bind::<BigInt, _>(now)
    .load(connection)?;
    Ok(heads.into_iter().map(|head| (head.id, head.head_seq)).collect())
}

pub(super) fn insert_messages(connection: &mut Connection, rows: &[NewRow<'_>]) -> QueryResult<()> {
    match (connection, rows) {
        (_, []) => {}
        (Connection::Postgres(connection), [row]) => {
            diesel::insert_into(messages::table).values(row).execute(connection)?;
        }
        (Connection::Postgres(connection), rows) => insert_at_once(connection, rows)?,
        (Connection::Sqlite(connection), rows) => {
            for row in rows {
                diesel::insert_into(messages::table).values(row).execute(connection)?;
            }
        }
    }
    Ok(())
}

fn insert_at_once(connection: &mut PgConnection, rows: &[NewRow<'_>]) -> QueryResult<()> {
    fn column<'a, T>(rows: &'a [NewRow<'_>], value: impl Fn(&'a NewRow<'_>) -> T) -> Vec<T> {
        rows.iter().map(value).collect()
    }
    diesel::sql_query(
        "INSERT INTO messages \
         (room_id, seq, sender, client, conn_info, chan_info, data, tags, client_key, created_at) \
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind::<Array<BigInt>, _>(column(rows, |row| row.room_id))
    .bind::<Array<BigInt>, _>(column(rows, |row| row.seq))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.sender))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.client))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.conn_info))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.chan_info))
    .bind::<Array<Text>, _>(column(rows, |row| row.data))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.tags))
    .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.client_key))
    .bind::<Array<BigInt>, _>(column(rows, |row| row.created_at))
    .execute(connection)?;
    Ok(())
}

/// True when exactly this message is stored in its place.
pub(super) fn is_stored(
    connection: &mut Connection,
    room_id: i64,
    publication: &Publication,
) -> QueryResult<bool> {
    let seq = i64::try_from(publication.seq).unwrap_or(i64::MAX);
    let same = messages::table
        .filter(messages::room_id.eq(room_id))
        .filter(messages::seq.eq(seq))
        .filter(messages::created_at.eq(publication.created_at_ms))
        .filter(messages::data.eq(&*publication.data));
    on!(Connection, connection, connection => diesel::select(diesel::dsl::exists(same)).get_result(connection))
}
