//! Retention: deletes the rows that cannot be read any more, a little at a time.
//!
//! One walk goes over all rooms in the order of their ids, whatever their namespace. Looking is
//! done by the reading connections; the writer is only held for deletes of a bounded size.

use diesel::QueryResult;

use crate::clock;
use crate::ids::Channel;
use crate::limits::PRUNE_ROWS_PER_STEP;
use crate::publication::Retention;
use crate::store::connection::Connection;
use crate::store::models::{message, room};

/// Rooms looked at in one step.
const PRUNE_ROOMS_PER_STEP: i64 = 200;

/// The position of a walk over the rooms. A new one starts at the first room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneWalk {
    /// Id of the last room that needs no second look.
    after_room: i64,
}

/// The outcome of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Rows deleted.
    pub rows: usize,
    /// The walk has come to the last room and starts again at the first.
    pub finished: bool,
}

/// The work of a step, found by reading only.
pub(super) struct PrunePlan {
    /// Rows to delete, at most [`PRUNE_ROWS_PER_STEP`].
    pub(super) ids: Vec<i64>,
    /// The walk once they are gone.
    pub(super) walk: PruneWalk,
    pub(super) finished: bool,
}

/// Looks for rows to delete, from where the walk is.
pub(super) fn plan(
    connection: &mut Connection,
    walk: PruneWalk,
    retention_of: &dyn Fn(&Channel) -> Retention,
) -> QueryResult<PrunePlan> {
    let now_ms = clock::unix_ms();
    let rooms = room::after(connection, walk.after_room, PRUNE_ROOMS_PER_STEP)?;
    let finished = (rooms.len() as i64) < PRUNE_ROOMS_PER_STEP;
    let mut plan = PrunePlan { ids: Vec::new(), walk, finished };
    for (id, name, head) in rooms {
        let left = PRUNE_ROWS_PER_STEP - plan.ids.len() as i64;
        let retention = Channel::new(&name).map_or(Retention::default(), |channel| retention_of(&channel));
        if !retention.keeps_all() {
            let last = retention.last_outside(head as u64) as i64;
            let latest_ms = retention.latest_outside_ms(now_ms);
            plan.ids.extend(outside(connection, id, last, latest_ms, left)?);
        }
        debug_assert!(
            plan.ids.len() as i64 <= PRUNE_ROWS_PER_STEP,
            "a step deletes a bounded number of rows"
        );
        debug_assert!(id > plan.walk.after_room, "a walk goes up the ids of the rooms");
        if plan.ids.len() as i64 == PRUNE_ROWS_PER_STEP {
            // The room may have more: the next step looks at it again.
            plan.finished = false;
            return Ok(plan);
        }
        plan.walk.after_room = id;
    }
    if plan.finished {
        plan.walk = PruneWalk::default();
    }
    Ok(plan)
}

/// Ids of the oldest rows of a room that are outside. A look at one row is enough for most rooms.
fn outside(
    connection: &mut Connection,
    room_id: i64,
    last: i64,
    latest_ms: i64,
    limit: i64,
) -> QueryResult<Vec<i64>> {
    let is_outside = |row: &message::OldRow| row.seq <= last || row.created_at <= latest_ms;
    if !message::oldest(connection, room_id, 1)?.iter().any(is_outside) {
        return Ok(Vec::new());
    }
    debug_assert!(limit > 0, "a plan that is full looks at no further room");
    let rows = message::oldest(connection, room_id, limit)?;
    Ok(rows.into_iter().take_while(is_outside).map(|row| row.id).collect())
}
