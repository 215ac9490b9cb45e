//! Reading a room's log: pages for resumes, and the history command.

use std::sync::Arc;

use diesel::QueryResult;

use crate::clock;
use crate::ids::{Channel, Seq};
use crate::limits::PAGE_PUBLICATIONS_MAX;
use crate::publication::{Publication, Retention};
use crate::store::connection::Connection;
use crate::store::models::message::{self, Wanted};
use crate::store::models::room::{self, Room};

/// The range of messages that the history command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only messages after this one, or before it when `reverse`.
    pub since: Option<Seq>,
    /// The number of messages.
    pub limit: HistoryLimit,
    /// Newest first.
    pub reverse: bool,
}

/// The number of messages asked for. An answer never holds more than a page
/// ([`PAGE_PUBLICATIONS_MAX`] and [`crate::limits::PAGE_BYTES_MAX`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryLimit {
    /// Only the position.
    None,
    /// As many as there are.
    All,
    /// At most so many.
    Count(usize),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// In the order asked for.
    pub publications: Vec<Publication>,
    /// Number of the room's newest message; 0 when there is no such room or no message.
    pub head: Seq,
    /// Name of the history that this was read from.
    pub epoch: Arc<str>,
}

/// Messages of a room in (after, until], oldest first: at most a page, at least one if there is any.
pub(super) fn page(
    connection: &mut Connection,
    channel: &Channel,
    (after, until): (Seq, Seq),
    retention: Retention,
) -> QueryResult<Vec<Publication>> {
    let Some(room) = room::find(connection, channel)? else { return Ok(Vec::new()) };
    let wanted = visible(&room, retention, clock::unix_ms());
    let wanted = Wanted { after: after.max(wanted.after), until: until.min(wanted.until), ..wanted };
    let page = message::page(connection, channel, &wanted)?;
    debug_assert!(page.is_sorted_by(|a, b| a.seq < b.seq), "a page ascends");
    debug_assert!(
        page.iter().all(|message| after < message.seq && message.seq <= until),
        "a page is what was asked for"
    );
    Ok(page)
}

/// Answers the history command.
pub(super) fn history(
    connection: &mut Connection,
    channel: &Channel,
    query: HistoryQuery,
    retention: Retention,
) -> QueryResult<History> {
    let Some(room) = room::find(connection, channel)? else { return Ok(History::default()) };
    let wanted = asked_for(visible(&room, retention, clock::unix_ms()), query);
    let publications =
        if wanted.limit == 0 { Vec::new() } else { message::page(connection, channel, &wanted)? };
    debug_assert!(publications.iter().all(|message| message.seq <= room.head), "the head covers the log");
    Ok(History { publications, head: room.head, ..History::default() })
}

/// Everything of a room that can be read.
fn visible(room: &Room, retention: Retention, now_ms: i64) -> Wanted {
    Wanted {
        room_id: room.id,
        after: retention.last_outside(room.head),
        until: room.head,
        newer_than_ms: retention.latest_outside_ms(now_ms),
        limit: PAGE_PUBLICATIONS_MAX,
        descending: false,
    }
}

/// The part of what is visible that the query asks for. `since` itself is never part of it.
fn asked_for(visible: Wanted, query: HistoryQuery) -> Wanted {
    let limit = match query.limit {
        HistoryLimit::None => 0,
        HistoryLimit::All => PAGE_PUBLICATIONS_MAX,
        HistoryLimit::Count(count) => count.min(PAGE_PUBLICATIONS_MAX),
    };
    let (after, until) = match query.since {
        Some(since) if query.reverse => (visible.after, visible.until.min(since.saturating_sub(1))),
        Some(since) => (visible.after.max(since), visible.until),
        None => (visible.after, visible.until),
    };
    debug_assert!(after >= visible.after && until <= visible.until, "a query only narrows what is visible");
    Wanted { after, until, limit, descending: query.reverse, ..visible }
}
