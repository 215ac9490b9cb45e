//! The statements of a commit on PostgreSQL: one per table, however many rows, with the values as
//! arrays. Measured: several times as fast as a loop of single inserts, and faster than `VALUES`.

use std::sync::Arc;

use ahash::{HashMap, HashSet};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Binary, Nullable, Text};

use crate::store::message::NewMessage;
use crate::store::models::message::{MessageRow, insert_binary};
use crate::store::schema::messages;

use super::rows::{FoundKey, KeyedBy, RoomHead, RoomShare};
use super::statement::prepared;

type Texts = Array<Text>;
type Numbers = Array<BigInt>;
type OptionalTexts = Array<Nullable<Text>>;

struct InsertUsers<'m> {
    ids: Vec<&'m str>,
    now_ms: i64,
}
prepared!(InsertUsers for PgConnection);

impl QueryFragment<Pg> for InsertUsers<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("INSERT INTO users (id, created_at) SELECT u.id, ");
        out.push_bind_param::<BigInt, _>(&self.now_ms)?;
        out.push_sql(" FROM unnest(");
        out.push_bind_param::<Texts, _>(&self.ids)?;
        out.push_sql(") AS u(id) ON CONFLICT DO NOTHING");
        Ok(())
    }
}

pub(super) fn insert_users(connection: &mut PgConnection, ids: &[Arc<str>], now_ms: i64) -> QueryResult<()> {
    let ids = ids.iter().map(|id| &**id).collect();
    InsertUsers { ids, now_ms }.execute(connection).map(drop)
}

/// Takes the locks of rooms before their keys are looked at, so that no other server adds one in
/// between.
struct LockRooms<'m> {
    names: Vec<&'m str>,
}
prepared!(LockRooms for PgConnection);

impl QueryFragment<Pg> for LockRooms<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT id FROM rooms WHERE name = ANY(");
        out.push_bind_param::<Texts, _>(&self.names)?;
        out.push_sql(") ORDER BY id FOR NO KEY UPDATE");
        Ok(())
    }
}

pub(super) fn lock_rooms<'m>(
    connection: &mut PgConnection,
    names: impl Iterator<Item = &'m str>,
) -> QueryResult<()> {
    LockRooms { names: names.collect() }.execute(connection).map(drop)
}

struct FindKeys<'m> {
    names: Vec<&'m str>,
    senders: Vec<&'m str>,
    keys: Vec<&'m str>,
    indices: Vec<i64>,
}
prepared!(FindKeys for PgConnection => (BigInt, BigInt, BigInt));

impl QueryFragment<Pg> for FindKeys<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT k.index, m.seq, m.id FROM unnest(");
        out.push_bind_param::<Texts, _>(&self.names)?;
        out.push_sql(", ");
        out.push_bind_param::<Texts, _>(&self.senders)?;
        out.push_sql(", ");
        out.push_bind_param::<Texts, _>(&self.keys)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.indices)?;
        out.push_sql(
            ") AS k(name, sender, key, index) JOIN rooms r ON r.name = k.name \
             JOIN messages m ON m.room_id = r.id AND m.client_key = k.key \
             AND coalesce(m.sender, '') = k.sender",
        );
        Ok(())
    }
}

/// Finds which rows hold what their messages hold. Asked only when keys were found, which is seldom: so what is
/// published once goes to the database once.
struct FindRepeats<'m> {
    ids: Vec<i64>,
    data: Vec<&'m str>,
    data_bytes: Vec<Option<&'m [u8]>>,
    tags: Vec<Option<&'m str>>,
    /// 1: sent by the server API; 0: by a client.
    of_api: Vec<i64>,
    indices: Vec<i64>,
}
prepared!(FindRepeats for PgConnection => BigInt);

impl QueryFragment<Pg> for FindRepeats<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT k.index FROM unnest(");
        out.push_bind_param::<Numbers, _>(&self.ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Texts, _>(&self.data)?;
        out.push_sql(", ");
        out.push_bind_param::<Array<Nullable<Binary>>, _>(&self.data_bytes)?;
        out.push_sql(", ");
        out.push_bind_param::<OptionalTexts, _>(&self.tags)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.of_api)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.indices)?;
        out.push_sql(
            ") AS k(id, data, data_bytes, tags, of_api, index) JOIN messages m ON m.id = k.id \
             WHERE m.data = k.data AND m.data_bytes IS NOT DISTINCT FROM k.data_bytes AND m.tags IS NOT DISTINCT FROM k.tags \
             AND (m.sender IS NULL) = (k.of_api = 1)",
        );
        Ok(())
    }
}

/// Locks the rooms of the keys and finds which keys are stored, and with what.
pub(super) fn find_keys(
    connection: &mut PgConnection,
    messages: &[&NewMessage],
    keyed: &[(KeyedBy<'_>, usize)],
) -> QueryResult<Vec<FoundKey>> {
    lock_rooms(connection, keyed.iter().map(|(keyed, _)| keyed.channel.as_str()))?;
    let found: Vec<(i64, i64, i64)> = FindKeys {
        names: keyed.iter().map(|(keyed, _)| keyed.channel.as_str()).collect(),
        senders: keyed.iter().map(|(keyed, _)| keyed.sender).collect(),
        keys: keyed.iter().map(|(keyed, _)| keyed.key).collect(),
        indices: keyed.iter().map(|(_, index)| *index as i64).collect(),
    }
    .load(connection)?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let message = |(index, ..): &(i64, i64, i64)| messages[*index as usize];
    let repeats: Vec<i64> = FindRepeats {
        ids: found.iter().map(|(.., id)| *id).collect(),
        data: found.iter().map(|row| message(row).json()).collect(),
        data_bytes: found.iter().map(|row| message(row).data.as_binary()).collect(),
        tags: found.iter().map(|row| message(row).tags.as_deref()).collect(),
        of_api: found.iter().map(|row| i64::from(message(row).info.is_none())).collect(),
        indices: found.iter().map(|(index, ..)| *index).collect(),
    }
    .load(connection)?;
    let repeats: HashSet<i64> = repeats.into_iter().collect();
    let row = |(index, seq, _)| FoundKey { index: index as usize, seq, is_repeat: repeats.contains(&index) };
    Ok(found.into_iter().map(row).collect())
}

/// Counts new messages in rooms that exist, locking them in the order of their ids. The lock is
/// the one an update takes anyway; a stronger one would wait for new members.
struct GrowRooms<'m> {
    names: Vec<&'m str>,
    added: Vec<i64>,
    now_ms: i64,
}
prepared!(GrowRooms for PgConnection => (Text, BigInt, BigInt, BigInt));

impl QueryFragment<Pg> for GrowRooms<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("WITH share AS (SELECT r.id, w.added FROM unnest(");
        out.push_bind_param::<Texts, _>(&self.names)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.added)?;
        out.push_sql(
            ") AS w(name, added) JOIN rooms r ON r.name = w.name ORDER BY r.id FOR NO KEY UPDATE OF r) \
             UPDATE rooms SET head_seq = head_seq + share.added, last_active_at = greatest(last_active_at, ",
        );
        out.push_bind_param::<BigInt, _>(&self.now_ms)?;
        out.push_sql(
            ") FROM share WHERE rooms.id = share.id \
             RETURNING rooms.name, rooms.id, rooms.head_seq, rooms.last_active_at",
        );
        Ok(())
    }
}

/// Creates rooms with their first messages counted; another server may be faster.
struct CreateRooms<'m>(GrowRooms<'m>);
prepared!(CreateRooms for PgConnection => (Text, BigInt, BigInt, BigInt));

impl QueryFragment<Pg> for CreateRooms<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO rooms (name, kind, head_seq, created_at, last_active_at) \
             SELECT w.name, 'public', w.added, ",
        );
        out.push_bind_param::<BigInt, _>(&self.0.now_ms)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.0.now_ms)?;
        out.push_sql(" FROM unnest(");
        out.push_bind_param::<Texts, _>(&self.0.names)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.0.added)?;
        out.push_sql(
            ") AS w(name, added) ON CONFLICT (name) DO UPDATE SET \
             head_seq = rooms.head_seq + excluded.head_seq, \
             last_active_at = greatest(rooms.last_active_at, excluded.last_active_at) \
             RETURNING name, id, head_seq, last_active_at",
        );
        Ok(())
    }
}

impl<'m> GrowRooms<'m> {
    fn new(mut shares: Vec<&RoomShare<'m>>, now_ms: i64) -> Self {
        shares.sort_unstable_by_key(|share| share.channel);
        Self {
            names: shares.iter().map(|share| share.channel.as_str()).collect(),
            added: shares.iter().map(|share| share.indices.len() as i64).collect(),
            now_ms,
        }
    }
}

pub(super) fn grow_rooms(
    connection: &mut PgConnection,
    shares: &[RoomShare<'_>],
    now_ms: i64,
) -> QueryResult<Vec<Option<RoomHead>>> {
    let mut grown = by_name(GrowRooms::new(shares.iter().collect(), now_ms).load(connection)?);
    if grown.len() < shares.len() {
        let missing: Vec<_> = shares
            .iter()
            .filter(|share| share.auto_create && !grown.contains_key(share.channel.as_str()))
            .collect();
        if !missing.is_empty() {
            grown.extend(by_name(CreateRooms(GrowRooms::new(missing, now_ms)).load(connection)?));
        }
    }
    Ok(shares.iter().map(|share| grown.get(share.channel.as_str()).copied()).collect())
}

fn by_name(rows: Vec<(String, i64, i64, i64)>) -> HashMap<String, RoomHead> {
    let head = |(name, id, head, active_ms)| (name, RoomHead { id, head, active_ms });
    rows.into_iter().map(head).collect()
}

/// The rows of a batch, column by column.
struct InsertMessages<'m> {
    room_ids: Vec<i64>,
    seqs: Vec<i64>,
    senders: Vec<Option<&'m str>>,
    client_ids: Vec<Option<&'m str>>,
    conn_infos: Vec<Option<&'m str>>,
    chan_infos: Vec<Option<&'m str>>,
    data: Vec<&'m str>,
    tags: Vec<Option<&'m str>>,
    client_keys: Vec<Option<&'m str>>,
    created_at: Vec<i64>,
}
prepared!(InsertMessages for PgConnection);

impl<'m> InsertMessages<'m> {
    fn new(rows: &[&MessageRow<'m>]) -> Self {
        Self {
            room_ids: rows.iter().map(|row| row.room_id).collect(),
            seqs: rows.iter().map(|row| row.seq).collect(),
            senders: rows.iter().map(|row| row.sender).collect(),
            client_ids: rows.iter().map(|row| row.client_id).collect(),
            conn_infos: rows.iter().map(|row| row.conn_info).collect(),
            chan_infos: rows.iter().map(|row| row.chan_info).collect(),
            data: rows.iter().map(|row| row.data).collect(),
            tags: rows.iter().map(|row| row.tags).collect(),
            client_keys: rows.iter().map(|row| row.client_key).collect(),
            created_at: rows.iter().map(|row| row.created_at).collect(),
        }
    }
}

impl QueryFragment<Pg> for InsertMessages<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO messages (room_id, seq, sender, client_id, conn_info, chan_info, data, tags, \
             client_key, created_at) SELECT * FROM unnest(",
        );
        out.push_bind_param::<Numbers, _>(&self.room_ids)?;
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.seqs)?;
        for column in [&self.senders, &self.client_ids, &self.conn_infos, &self.chan_infos] {
            out.push_sql(", ");
            out.push_bind_param::<OptionalTexts, _>(column)?;
        }
        out.push_sql(", ");
        out.push_bind_param::<Texts, _>(&self.data)?;
        for column in [&self.tags, &self.client_keys] {
            out.push_sql(", ");
            out.push_bind_param::<OptionalTexts, _>(column)?;
        }
        out.push_sql(", ");
        out.push_bind_param::<Numbers, _>(&self.created_at)?;
        out.push_sql(")");
        Ok(())
    }
}

pub(super) fn insert_messages(connection: &mut PgConnection, rows: &[MessageRow<'_>]) -> QueryResult<()> {
    let (json, binary): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.data_bytes.is_none());
    if !json.is_empty() {
        InsertMessages::new(&json).execute(connection)?;
    }
    for row in binary {
        insert_binary!(connection, row, row.data_bytes)?;
    }
    Ok(())
}
