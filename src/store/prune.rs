//! Retention: deletes the rows that cannot be read any more, a step at a time.
//!
//! One walk goes over all rooms in the order of their ids, whatever their namespace. Looking is done by the
//! reading connections; the writer is only held for deletes of a bounded size. A step takes from all rooms
//! it looks at, from each its share: neighbouring rows of a busy database belong to different rooms, and
//! what lies together is best deleted together.

use std::time::Duration;

use diesel::QueryResult;

use crate::clock;
use crate::ids::{Channel, Seq};
use crate::publication::Retention;
use crate::store::connection::Connection;
use crate::store::models::message::{self, OldRow, SeqRange};
use crate::store::models::room;

/// Rooms looked at in one step.
const PRUNE_ROOMS_PER_STEP: i64 = 1000;

/// The position of a walk over the rooms. A new one starts at the first room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneWalk {
    /// Id of the last room that was looked at.
    after_room: i64,
    /// A room that was looked at has more to delete than it was given.
    leaves_some: bool,
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Rows deleted.
    pub rows: usize,
    /// A walk has come to the last room and left nothing behind. Otherwise there is more to do.
    pub finished: bool,
    /// Time for which the deletes kept the database from other work.
    pub held: Duration,
    /// Time for which rooms were looked at.
    pub reading: Duration,
}

/// The work of a step, found by reading only.
pub(super) struct PrunePlan {
    /// Rows to delete.
    pub(super) ranges: Vec<SeqRange>,
    /// The walk once they are gone.
    pub(super) walk: PruneWalk,
    pub(super) finished: bool,
}

/// A room with rows outside.
#[derive(Debug, Clone, Copy)]
struct Over {
    room_id: i64,
    head: Seq,
    oldest: i64,
    kind: Outside,
}

/// The rows of a room that are outside.
#[derive(Debug, Clone, Copy)]
enum Outside {
    /// All up to this number, by count. Others may be by age, which is looked at when these are gone.
    ByCount { last: i64, has_age: bool },
    /// The oldest ones by age; how many is seen when they are read.
    ByAge,
}

impl Over {
    /// Rows it has to lose; a whole step where only reading them tells.
    fn rows(&self, rows_max: usize) -> usize {
        match self.kind {
            Outside::ByCount { last, .. } => usize::try_from(last - self.oldest + 1).unwrap_or(0),
            Outside::ByAge => rows_max,
        }
    }
}

/// What a room gives up in a step.
struct Share {
    ranges: Vec<SeqRange>,
    leaves_some: bool,
}

/// Rooms that a step looks at.
pub(super) struct Rooms {
    /// Id, head and retention of those that may have rows outside.
    retentions: Vec<(i64, Seq, Retention)>,
    /// Id of the last of all that were looked at.
    last: Option<i64>,
    /// No room comes after them.
    are_last: bool,
}

/// The next rooms of a walk: id, name and head.
pub(super) fn next_rooms(
    connection: &mut Connection,
    walk: PruneWalk,
) -> QueryResult<Vec<(i64, String, i64)>> {
    room::after(connection, walk.after_room, PRUNE_ROOMS_PER_STEP)
}

impl Rooms {
    pub(super) fn new(rooms: Vec<(i64, String, i64)>, retention_of: &dyn Fn(&Channel) -> Retention) -> Self {
        let last = rooms.last().map(|(id, ..)| *id);
        let are_last = (rooms.len() as i64) < PRUNE_ROOMS_PER_STEP;
        let retentions = rooms
            .into_iter()
            .map(|(id, name, head)| {
                let retention = Channel::new(&name).map_or(Retention::default(), |name| retention_of(&name));
                (id, head as Seq, retention)
            })
            .filter(|(_, head, retention)| retention.ttl.is_some() || retention.last_outside(*head) > 0)
            .collect();
        Self { retentions, last, are_last }
    }
}

/// Looks for at most `rows_max` rows to delete in these rooms.
pub(super) fn plan(
    connection: &mut Connection,
    walk: PruneWalk,
    rows_max: usize,
    rooms: &Rooms,
) -> QueryResult<PrunePlan> {
    let now_ms = clock::unix_ms();
    let Rooms { retentions, last, are_last: is_last } = rooms;
    let mut after = PruneWalk { after_room: last.unwrap_or(walk.after_room), ..walk };
    let over = rooms_over(connection, retentions, now_ms)?;
    let wanted: usize = over.iter().map(|(over, _)| over.rows(rows_max)).sum();
    let mut ranges = Vec::new();
    let mut left = rows_max;
    for (over, latest_ms) in over {
        // Each its part of the whole, at least one row.
        let part = over.rows(rows_max).saturating_mul(rows_max).div_ceil(wanted.max(rows_max)).min(left);
        let share = share(connection, &over, part, latest_ms, now_ms)?;
        left -= share.ranges.iter().map(SeqRange::rows_max).sum::<usize>();
        ranges.extend(share.ranges);
        after.leaves_some |= share.leaves_some;
    }
    let finished = *is_last && !after.leaves_some;
    if *is_last {
        after = PruneWalk::default();
    }
    Ok(PrunePlan { ranges, walk: after, finished })
}

/// Which of the rooms have rows outside, and the latest time that is outside there. One row of each is
/// looked at.
fn rooms_over(
    connection: &mut Connection,
    rooms: &[(i64, Seq, Retention)],
    now_ms: i64,
) -> QueryResult<Vec<(Over, i64)>> {
    let ids: Vec<i64> = rooms.iter().map(|(id, ..)| *id).collect();
    let oldest = message::oldest_of_each(connection, &ids)?;
    let mut over = Vec::new();
    for (room_id, oldest) in oldest {
        let Some(oldest) = oldest else { continue };
        let Ok(at) = rooms.binary_search_by_key(&room_id, |(id, ..)| *id) else { continue };
        let (_, head, retention) = rooms[at];
        let last = message::signed(retention.last_outside(head));
        let latest_ms = retention.latest_outside_ms(now_ms);
        let has_age = retention.ttl.is_some();
        let kind = if oldest <= last {
            Outside::ByCount { last, has_age }
        } else if has_age && starts_outside(connection, room_id, latest_ms, now_ms)? {
            Outside::ByAge
        } else {
            continue;
        };
        over.push((Over { room_id, head, oldest, kind }, latest_ms));
    }
    Ok(over)
}

/// True when the oldest row of a room is outside by age, or of the future and so says nothing of the others.
fn starts_outside(
    connection: &mut Connection,
    room_id: i64,
    latest_ms: i64,
    now_ms: i64,
) -> QueryResult<bool> {
    let oldest = message::from(connection, room_id, 0, 1)?;
    Ok(oldest.iter().any(|row| row.created_at <= latest_ms || row.created_at > now_ms))
}

/// True when the first row from a number on is outside by age.
fn is_old(connection: &mut Connection, room_id: i64, first: i64, latest_ms: i64) -> QueryResult<bool> {
    Ok(message::from(connection, room_id, first, 1)?.iter().any(|row| row.created_at <= latest_ms))
}

/// At most `rows` rows of a room.
fn share(
    connection: &mut Connection,
    over: &Over,
    rows: usize,
    latest_ms: i64,
    now_ms: i64,
) -> QueryResult<Share> {
    let &Over { room_id, head, oldest, kind } = over;
    if rows == 0 {
        return Ok(Share { ranges: Vec::new(), leaves_some: true });
    }
    match kind {
        Outside::ByCount { last: outside, has_age } => {
            let last = outside.min(oldest.saturating_add(rows as i64 - 1));
            let ranges = vec![SeqRange { room_id, first: oldest, last }];
            let leaves_some =
                last < outside || (has_age && is_old(connection, room_id, last + 1, latest_ms)?);
            Ok(Share { ranges, leaves_some })
        }
        Outside::ByAge => {
            let Some(first) = first_not_of_the_future(connection, room_id, (oldest, head), now_ms)? else {
                return Ok(Share { ranges: Vec::new(), leaves_some: false });
            };
            let seen = message::from(connection, room_id, first, rows as i64)?;
            let is_outside = |row: &OldRow| row.created_at <= latest_ms;
            // Behind a row that stays there are no older ones, except behind one of the future.
            let goes_on = |row: &OldRow| is_outside(row) || row.created_at > now_ms;
            let leaves_some = seen.len() == rows && seen.last().is_some_and(goes_on);
            Ok(Share { ranges: ranges(room_id, seen.iter().filter(|row| is_outside(row))), leaves_some })
        }
    }
}

/// The number of the oldest row that is not of the future. A clock that was ahead has left rows of the
/// future, one block of them at the beginning of what a room keeps: rows behind it may be old.
fn first_not_of_the_future(
    connection: &mut Connection,
    room_id: i64,
    (oldest, head): (i64, Seq),
    now_ms: i64,
) -> QueryResult<Option<i64>> {
    let mut is_past = |seq| -> QueryResult<bool> {
        Ok(message::from(connection, room_id, seq, 1)?.iter().any(|row| row.created_at <= now_ms))
    };
    if is_past(oldest)? {
        return Ok(Some(oldest));
    }
    // Invariant: a row of the future is at `future`, none at or behind `past`.
    let (mut future, mut past) = (oldest, message::signed(head));
    if !is_past(past)? {
        return Ok(None);
    }
    while past - future > 1 {
        let middle = future + (past - future) / 2;
        if is_past(middle)? { past = middle } else { future = middle }
    }
    Ok(Some(past))
}

/// Rows in ascending order as ranges without holes.
fn ranges<'r>(room_id: i64, rows: impl Iterator<Item = &'r OldRow>) -> Vec<SeqRange> {
    let mut ranges: Vec<SeqRange> = Vec::new();
    for row in rows {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == row.seq => range.last = row.seq,
            _ => ranges.push(SeqRange { room_id, first: row.seq, last: row.seq }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_beside_each_other_are_one_range() {
        let rows = [1, 2, 3, 7, 9, 10].map(|seq| OldRow { seq, created_at: 0 });
        let found: Vec<(i64, i64)> =
            ranges(5, rows.iter()).iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(found, [(1, 3), (7, 7), (9, 10)]);
    }
}
