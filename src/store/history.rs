//! Reading messages back: pages for resumes and slow listeners, history for people, and retention.

use diesel::connection::DefaultLoadingMode;
use diesel::prelude::*;

use super::Store;
use super::connection::{Connection, Reader, on};
use super::error::StoreError;
use super::message::Row;
use super::rooms::to_seq;
use super::schema::{messages, rooms};
use crate::clock;
use crate::ids::{Channel, Seq};
use crate::limits::{PAGE_BYTES_MAX, PAGE_PUBLICATIONS_MAX, PRUNE_ROWS_PER_STEP};
use crate::publication::{Publication, Retention};

/// How many messages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryLimit {
    /// Only the head of the room.
    None,
    /// As many as one answer holds.
    All,
    /// At most so many.
    N(usize),
}

/// Which messages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// After this seq, or before it if reverse.
    pub since: Option<Seq>,
    /// How many.
    pub limit: HistoryLimit,
    /// The newest first.
    pub reverse: bool,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct History {
    /// In the order asked for; at most [`PAGE_PUBLICATIONS_MAX`] and [`PAGE_BYTES_MAX`].
    pub publications: Vec<Publication>,
    /// Seq of the newest message of the room.
    pub head: Seq,
}

/// Which rows are wanted, in the words of the database.
struct Span {
    room_id: i64,
    after: i64,
    until: i64,
    /// Not older than this, milliseconds since 1970 UTC.
    not_before: i64,
    limit: i64,
    reverse: bool,
}

impl Store {
    /// Messages `after < seq <= until`, oldest first: as many as a page holds, at least one if there
    /// is one that retention lets be read.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        retention: Retention,
    ) -> Result<Vec<Publication>, StoreError> {
        self.read(|reader| {
            let Some((room_id, head)) = find(reader, channel)? else { return Ok(Vec::new()) };
            let span = Span {
                room_id,
                after: to_i64(after).max(first_kept(head, retention) - 1),
                until: to_i64(until),
                not_before: oldest_kept(retention),
                limit: PAGE_PUBLICATIONS_MAX as i64,
                reverse: false,
            };
            rows(reader, channel, &span)
        })
    }

    /// Messages as a person pages through them.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn history(
        &self,
        channel: &Channel,
        query: HistoryQuery,
        retention: Retention,
    ) -> Result<History, StoreError> {
        self.read(|reader| {
            let Some((room_id, head)) = find(reader, channel)? else {
                return Ok(History { publications: Vec::new(), head: 0 });
            };
            let limit = match query.limit {
                HistoryLimit::None => 0,
                HistoryLimit::All => PAGE_PUBLICATIONS_MAX,
                HistoryLimit::N(count) => count.min(PAGE_PUBLICATIONS_MAX),
            };
            let since = query.since.map(to_i64);
            let span = Span {
                room_id,
                after: since.filter(|_| !query.reverse).unwrap_or(0).max(first_kept(head, retention) - 1),
                until: since.filter(|_| query.reverse).map_or(head, |since| head.min(since - 1)),
                not_before: oldest_kept(retention),
                limit: limit as i64,
                reverse: query.reverse,
            };
            let publications = if limit == 0 { Vec::new() } else { rows(reader, channel, &span)? };
            Ok(History { publications, head: to_seq(head) })
        })
    }

    /// Removes a bounded number of messages that retention hides, from the rooms of one namespace;
    /// how many. Heads never change.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn prune(&self, namespace: &str, retention: Retention) -> Result<usize, StoreError> {
        let not_before = oldest_kept(retention);
        let size = if retention.size == 0 { i64::MAX } else { to_i64(retention.size) };
        let doomed = self.read(|reader| {
            let (prefix, private) = (format!("{namespace}:%"), format!("${namespace}:%"));
            on!(Reader, reader, connection => {
                let query = messages::table
                    .inner_join(rooms::table.on(rooms::id.eq(messages::room_id)))
                    .filter(
                        messages::seq
                            .le(rooms::head_seq - size)
                            .or(messages::created_at.lt(not_before)),
                    )
                    .select(messages::id)
                    .limit(PRUNE_ROWS_PER_STEP);
                match namespace {
                    "" => query.filter(rooms::name.not_like("%:%")).load::<i64>(&mut **connection),
                    _ => query
                        .filter(rooms::name.like(prefix).or(rooms::name.like(private)))
                        .load::<i64>(&mut **connection),
                }
            })
        })?;
        if doomed.is_empty() {
            return Ok(0);
        }
        let removed = self.write_anywhere(|connection| {
            let doomed = messages::table.filter(messages::id.eq_any(&doomed));
            on!(Connection, connection, connection => diesel::delete(doomed).execute(connection))
        })?;
        self.metrics.pruned_messages_total.inc_by(removed as u64);
        Ok(removed)
    }
}

fn find(reader: &mut Reader, channel: &Channel) -> QueryResult<Option<(i64, i64)>> {
    let query = rooms::table.filter(rooms::name.eq(channel.as_str())).select((rooms::id, rooms::head_seq));
    on!(Reader, reader, connection => query.first(&mut **connection).optional())
}

/// Rows of a span, cut where a page ends.
fn rows(reader: &mut Reader, channel: &Channel, span: &Span) -> QueryResult<Vec<Publication>> {
    let query = messages::table
        .filter(messages::room_id.eq(span.room_id))
        .filter(messages::seq.gt(span.after))
        .filter(messages::seq.le(span.until))
        .filter(messages::created_at.ge(span.not_before))
        .limit(span.limit);
    on!(Reader, reader, connection => {
        let connection = &mut **connection;
        let query = query.select(Row::as_select());
        match span.reverse {
            true => first_page(query.order(messages::seq.desc()).load_iter::<Row, DefaultLoadingMode>(connection)?, channel),
            false => first_page(query.order(messages::seq.asc()).load_iter::<Row, DefaultLoadingMode>(connection)?, channel),
        }
    })
}

/// As many rows as a page holds; at least one.
fn first_page(
    rows: impl Iterator<Item = QueryResult<Row>>,
    channel: &Channel,
) -> QueryResult<Vec<Publication>> {
    let mut page = Vec::new();
    let mut bytes = 0;
    for row in rows {
        let publication = row?.publication(channel);
        bytes += publication.data.len();
        if bytes > PAGE_BYTES_MAX && !page.is_empty() {
            break;
        }
        page.push(publication);
    }
    Ok(page)
}

/// The oldest seq that a bound on the number of messages lets be read.
fn first_kept(head: i64, retention: Retention) -> i64 {
    if retention.size == 0 { 1 } else { head.saturating_sub(to_i64(retention.size)) + 1 }
}

/// The oldest time that a bound on the age lets be read.
fn oldest_kept(retention: Retention) -> i64 {
    retention
        .ttl
        .map_or(0, |ttl| clock::unix_ms().saturating_sub(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
}

fn to_i64(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
