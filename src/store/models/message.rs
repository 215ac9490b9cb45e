//! `messages`: the log.

use std::sync::Arc;

use diesel::connection::DefaultLoadingMode;
#[cfg(feature = "postgres")]
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
#[cfg(feature = "postgres")]
use diesel::sql_types::{Array, BigInt};

use crate::ids::{Channel, Seq};
use crate::limits::{PAGE_BYTES_MAX, PAGE_PUBLICATIONS_MAX};
use crate::publication::{ClientInfo, Content, Publication};
use crate::store::connection::{Connection, on_either};
use crate::store::message::NewMessage;
use crate::store::schema::{messages, rooms};

/// SQL functions of the index that makes client keys unique.
pub(in crate::store) mod client_keys {
    use diesel::sql_types::{Nullable, Text};

    diesel::define_sql_function! {
        /// The first value, or the second when that is NULL.
        fn coalesce(value: Nullable<Text>, otherwise: Text) -> Text;
    }
}

/// A row to be written.
#[derive(Insertable, Debug, Clone, Copy)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(in crate::store) struct MessageRow<'m> {
    pub(in crate::store) room_id: i64,
    pub(in crate::store) seq: i64,
    pub(in crate::store) sender: Option<&'m str>,
    pub(in crate::store) client_id: Option<&'m str>,
    pub(in crate::store) conn_info: Option<&'m str>,
    pub(in crate::store) chan_info: Option<&'m str>,
    pub(in crate::store) data: &'m str,
    pub(in crate::store) tags: Option<&'m str>,
    pub(in crate::store) client_key: Option<&'m str>,
    pub(in crate::store) created_at: i64,
    /// The payload that is no JSON, which few rows have: they are inserted by `insert_binary`.
    #[diesel(skip_insertion)]
    pub(in crate::store) data_bytes: Option<&'m [u8]>,
}

impl<'m> MessageRow<'m> {
    pub(in crate::store) fn new(room_id: i64, seq: i64, message: &'m NewMessage, now_ms: i64) -> Self {
        let info = message.info.as_deref();
        Self {
            room_id,
            seq,
            sender: info.map(|info| &*info.user),
            client_id: info.map(|info| &*info.client),
            conn_info: info.and_then(|info| info.conn_info.as_deref()),
            chan_info: info.and_then(|info| info.chan_info.as_deref()),
            data: message.json(),
            tags: message.tags.as_deref(),
            client_key: message.key.as_deref(),
            created_at: now_ms,
            data_bytes: message.data.as_binary(),
        }
    }
}

/// Inserts a row whose payload is no JSON, on either database.
macro_rules! insert_binary {
    ($connection:expr, $row:expr, $bytes:expr) => {
        diesel::insert_into(messages::table)
            .values((*$row, messages::data_bytes.eq($bytes)))
            .execute($connection)
    };
}
pub(in crate::store) use insert_binary;

/// The columns of a [`StoredMessage`], in its order. (`Selectable` would tie a query to one backend.)
type Columns = (
    messages::seq,
    messages::sender,
    messages::client_id,
    messages::conn_info,
    messages::chan_info,
    messages::data,
    messages::data_bytes,
    messages::tags,
    messages::created_at,
);
const COLUMNS: Columns = (
    messages::seq,
    messages::sender,
    messages::client_id,
    messages::conn_info,
    messages::chan_info,
    messages::data,
    messages::data_bytes,
    messages::tags,
    messages::created_at,
);

/// A row as it is read.
#[derive(Queryable, Debug)]
struct StoredMessage {
    seq: i64,
    sender: Option<String>,
    client_id: Option<String>,
    conn_info: Option<String>,
    chan_info: Option<String>,
    data: String,
    data_bytes: Option<Vec<u8>>,
    tags: Option<String>,
    created_at: i64,
}

impl StoredMessage {
    fn into_publication(self, channel: &Channel) -> Publication {
        let text = |text: Option<String>| text.map(Arc::from);
        let info = self.sender.map(|user| {
            Arc::new(ClientInfo {
                user: user.into(),
                client: self.client_id.unwrap_or_default().into(),
                conn_info: text(self.conn_info),
                chan_info: text(self.chan_info),
            })
        });
        Publication {
            channel: channel.clone(),
            seq: self.seq as Seq,
            data: self.data_bytes.map_or_else(|| self.data.into(), |bytes| Content::binary(&bytes)),
            info,
            tags: text(self.tags),
            created_at_ms: self.created_at,
        }
    }
}

/// Which rows of a room are wanted.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Wanted {
    pub(in crate::store) room_id: i64,
    /// Only larger numbers.
    pub(in crate::store) after: Seq,
    /// Only numbers up to this one.
    pub(in crate::store) until: Seq,
    /// Only younger rows, milliseconds since 1970 UTC.
    pub(in crate::store) newer_than_ms: i64,
    /// Most rows; never more than a page.
    pub(in crate::store) limit: usize,
    /// Newest first.
    pub(in crate::store) descending: bool,
}

/// The wanted rows, cut at the size of a page. Rows are taken from the database one by one, so
/// that a page of large messages never is in memory as a whole.
pub(in crate::store) fn page(
    connection: &mut Connection,
    channel: &Channel,
    wanted: &Wanted,
) -> QueryResult<Vec<Publication>> {
    debug_assert!(wanted.limit > 0, "a query for nothing runs no statement");
    let limit = wanted.limit.min(PAGE_PUBLICATIONS_MAX) as i64;
    let rows = messages::table
        .filter(messages::room_id.eq(wanted.room_id))
        .filter(messages::seq.gt(signed(wanted.after)))
        .filter(messages::seq.le(signed(wanted.until)))
        .filter(messages::created_at.gt(wanted.newer_than_ms))
        .limit(limit)
        .select(COLUMNS);
    // Two statements, not one boxed one, which diesel would prepare anew every time.
    if wanted.descending {
        let rows = rows.order(messages::seq.desc());
        match connection {
            Connection::Sqlite(c) => cut_to_page(rows.load_iter::<_, DefaultLoadingMode>(c)?, channel),
            #[cfg(feature = "postgres")]
            Connection::Postgres(c) => cut_to_page(rows.load_iter::<_, PgRowByRowLoadingMode>(c)?, channel),
        }
    } else {
        let rows = rows.order(messages::seq.asc());
        match connection {
            Connection::Sqlite(c) => cut_to_page(rows.load_iter::<_, DefaultLoadingMode>(c)?, channel),
            #[cfg(feature = "postgres")]
            Connection::Postgres(c) => cut_to_page(rows.load_iter::<_, PgRowByRowLoadingMode>(c)?, channel),
        }
    }
}

/// Takes rows while they fit the bytes of a page, at least one.
fn cut_to_page(
    rows: impl Iterator<Item = QueryResult<StoredMessage>>,
    channel: &Channel,
) -> QueryResult<Vec<Publication>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let publication = row?.into_publication(channel);
        bytes += publication.wire_bytes();
        if bytes > PAGE_BYTES_MAX && !page.is_empty() {
            break;
        }
        page.push(publication);
    }
    debug_assert!(page.len() <= PAGE_PUBLICATIONS_MAX, "a page is bounded");
    Ok(page)
}

/// All rows of a room with numbers in (after, until]; for ranges known to be short.
pub(in crate::store) fn range(
    connection: &mut Connection,
    channel: &Channel,
    after: Seq,
    until: Seq,
) -> QueryResult<Vec<Publication>> {
    let query = messages::table
        .inner_join(rooms::table)
        .filter(rooms::name.eq(channel.as_str()))
        .filter(messages::seq.gt(signed(after)))
        .filter(messages::seq.le(signed(until)))
        .order(messages::seq)
        .select(COLUMNS);
    let rows: Vec<StoredMessage> = on_either!(connection, c => query.load(c))?;
    Ok(rows.into_iter().map(|row| row.into_publication(channel)).collect())
}

/// A row that may have to be pruned.
#[derive(Queryable, Debug, Clone, Copy)]
pub(in crate::store) struct OldRow {
    pub(in crate::store) seq: i64,
    pub(in crate::store) created_at: i64,
}

/// Numbers of a room, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct SeqRange {
    pub(in crate::store) room_id: i64,
    pub(in crate::store) first: i64,
    pub(in crate::store) last: i64,
}

impl SeqRange {
    /// Most rows it can hold.
    pub(in crate::store) fn rows_max(&self) -> usize {
        debug_assert!(self.first <= self.last, "a range holds numbers");
        usize::try_from(self.last - self.first + 1).unwrap_or(0)
    }
}

/// The number of the oldest row of each room, `None` for a room without rows.
pub(in crate::store) fn oldest_of_each(
    connection: &mut Connection,
    room_ids: &[i64],
) -> QueryResult<Vec<(i64, Option<i64>)>> {
    if room_ids.is_empty() {
        return Ok(Vec::new());
    }
    // A subquery for each room, which looks at one entry of the index; grouping would read all of them.
    let oldest = messages::table
        .filter(messages::room_id.eq(rooms::id))
        .order(messages::seq)
        .limit(1)
        .select(messages::seq)
        .single_value();
    let query = rooms::table.filter(rooms::id.eq_any(room_ids)).order(rooms::id).select((rooms::id, oldest));
    match connection {
        Connection::Sqlite(c) => query.load(c),
        #[cfg(feature = "postgres")]
        Connection::Postgres(c) => query.load(c),
    }
}

/// The rows of a room from a number on, at most `limit`.
pub(in crate::store) fn from(
    connection: &mut Connection,
    room_id: i64,
    first: i64,
    limit: i64,
) -> QueryResult<Vec<OldRow>> {
    let query = messages::table
        .filter(messages::room_id.eq(room_id))
        .filter(messages::seq.ge(first))
        .order(messages::seq)
        .limit(limit)
        .select((messages::seq, messages::created_at));
    on_either!(connection, c => query.load(c))
}

/// Deletes the rows with these numbers; how many there were.
pub(in crate::store) fn delete(connection: &mut Connection, ranges: &[SeqRange]) -> QueryResult<usize> {
    match connection {
        Connection::Sqlite(c) => delete_one_by_one(c, ranges),
        #[cfg(feature = "postgres")]
        Connection::Postgres(c) => delete_at_once(c, ranges),
    }
}

fn delete_one_by_one(connection: &mut SqliteConnection, ranges: &[SeqRange]) -> QueryResult<usize> {
    let mut deleted = 0;
    for range in ranges {
        let rows = messages::table
            .filter(messages::room_id.eq(range.room_id))
            .filter(messages::seq.ge(range.first))
            .filter(messages::seq.le(range.last));
        deleted += diesel::delete(rows).execute(connection)?;
    }
    Ok(deleted)
}

/// One statement, for each costs a way to the server and back. By places of rows, which leave the planner no
/// choice: it would rather read the whole table than look up some hundred ranges.
#[cfg(feature = "postgres")]
fn delete_at_once(connection: &mut PgConnection, ranges: &[SeqRange]) -> QueryResult<usize> {
    let column = |number: fn(&SeqRange) -> i64| ranges.iter().map(number).collect::<Vec<i64>>();
    diesel::sql_query(
        "DELETE FROM messages WHERE ctid = ANY (ARRAY( \
            SELECT m.ctid FROM unnest($1, $2, $3) AS r (room_id, first, last), \
            LATERAL (SELECT ctid FROM messages \
                WHERE room_id = r.room_id AND seq BETWEEN r.first AND r.last OFFSET 0) AS m))",
    )
    .bind::<Array<BigInt>, _>(column(|range| range.room_id))
    .bind::<Array<BigInt>, _>(column(|range| range.first))
    .bind::<Array<BigInt>, _>(column(|range| range.last))
    .execute(connection)
}

/// The room of the newest message there is, and its head.
pub(in crate::store) fn newest_room(connection: &mut Connection) -> QueryResult<Option<(Channel, Seq)>> {
    let query = messages::table
        .inner_join(rooms::table)
        .order(messages::id.desc())
        .limit(1)
        .select((rooms::name, rooms::head_seq));
    let found = on_either!(connection, c => query.first::<(String, i64)>(c).optional())?;
    Ok(found.and_then(|(name, head)| Some((Channel::new(&name).ok()?, head as Seq))))
}

/// A number as the database keeps it; larger ones, which a client may name, are behind every row.
pub(in crate::store) fn signed(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
