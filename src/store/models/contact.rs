//! `contacts`: the entries of people's contact lists.

use diesel::prelude::*;

use crate::ids::Channel;
use crate::store::connection::{Connection, on_either};
use crate::store::schema::{contacts, rooms};

/// An entry of a contact list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The other user.
    pub user: String,
    /// The direct room of the two.
    pub channel: Channel,
    /// Time the entry was added, milliseconds since 1970 UTC.
    pub since_ms: i64,
}

/// Adds an entry unless it is there.
pub(in crate::store) fn add(
    connection: &mut Connection,
    user: &str,
    contact: &str,
    room_id: i64,
    now_ms: i64,
) -> QueryResult<()> {
    let insert = diesel::insert_into(contacts::table)
        .values((
            contacts::user_id.eq(user),
            contacts::contact_id.eq(contact),
            contacts::room_id.eq(room_id),
            contacts::created_at.eq(now_ms),
        ))
        .on_conflict_do_nothing();
    on_either!(connection, c => insert.execute(c).map(drop))
}

/// Removes an entry; true when it was there.
pub(in crate::store) fn remove(connection: &mut Connection, user: &str, contact: &str) -> QueryResult<bool> {
    let entry = contacts::table.find((user, contact));
    on_either!(connection, c => diesel::delete(entry).execute(c).map(|removed| removed > 0))
}

/// The entries of a user in the order of the contacts' ids, behind `after`: contact, room name, since.
pub(in crate::store) fn of_user(
    connection: &mut Connection,
    user: &str,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<(String, String, i64)>> {
    let query = contacts::table
        .inner_join(rooms::table)
        .filter(contacts::user_id.eq(user))
        .filter(contacts::contact_id.gt(after))
        .order(contacts::contact_id)
        .limit(limit)
        .select((contacts::contact_id, rooms::name, contacts::created_at));
    on_either!(connection, c => query.load(c))
}
