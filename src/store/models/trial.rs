//! Trials: statements that change nothing, and tell of each table whether it can be used. A lock, a missing right or a
//! table of another program concerns one table, and statements that ask others know nothing of it.

use diesel::prelude::*;

use crate::store::connection::{Connection, on_either};
use crate::store::schema::{contacts, members, messages, meta, rooms, users};

/// Tables beside `messages` that commits write to, and their columns without generated ones.
pub(in crate::store) const TABLES_OF_COMMITS: &[(&str, &str)] = &[USERS, ROOMS];

/// All tables beside `messages` that rows are written to while a server runs.
pub(in crate::store) const ALL_TABLES: &[(&str, &str)] = &[
    USERS,
    ROOMS,
    ("contacts", "user_id, contact_id, room_id, created_at"),
    ("members", "room_id, user_id, role, last_read_seq, joined_at"),
];

const USERS: (&str, &str) = ("users", "id, created_at");
const ROOMS: (&str, &str) = ("rooms", "name, kind, direct_key, head_seq, created_at, last_active_at");

/// Asks for every column of every table and for no row.
///
/// # Errors
/// That of the first table that cannot be read, or is not as this version has it.
pub(in crate::store) fn read(connection: &mut Connection) -> QueryResult<()> {
    on_either!(connection, c => {
        contacts::table.select(contacts::all_columns).limit(0).execute(c)?;
        members::table.select(members::all_columns).limit(0).execute(c)?;
        messages::table.select(messages::all_columns).limit(0).execute(c)?;
        meta::table.select(meta::all_columns).limit(0).execute(c)?;
        rooms::table.select(rooms::all_columns).limit(0).execute(c)?;
        users::table.select(users::all_columns).limit(0).execute(c)?;
    });
    Ok(())
}

/// A room that no room has, for rows that only try whether the database takes any.
const TRIAL_ROOM: i64 = 0;

/// Size of a row that tries the database: small ones fit into a disk that is as good as full.
const TRIAL_BYTES: usize = 64 * 1024;

/// Writes a row that belongs to no room, and none into each of the tables: that needs the same lock and the same right.
///
/// # Errors
/// That of the first table that takes no rows.
pub(in crate::store) fn write(
    connection: &mut Connection,
    tables: &[(&str, &str)],
    now_ms: i64,
) -> QueryResult<()> {
    for (table, columns) in tables {
        let none = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE 1 = 0");
        on_either!(connection, c => diesel::sql_query(none).execute(c))?;
    }
    // As every row it can be read by `data::jsonb`, which an index of the operator's may do.
    let data = format!("{{}}{}", " ".repeat(TRIAL_BYTES));
    let row = (
        messages::room_id.eq(TRIAL_ROOM),
        messages::seq.eq(now_ms),
        messages::data.eq(data),
        messages::created_at.eq(now_ms),
    );
    let insert = diesel::insert_into(messages::table).values(row).on_conflict_do_nothing();
    on_either!(connection, c => insert.execute(c).map(drop))
}

/// Removes what [`write`] wrote, now and ever.
pub(in crate::store) fn delete(connection: &mut Connection) -> QueryResult<()> {
    let trials = messages::table.filter(messages::room_id.eq(TRIAL_ROOM));
    on_either!(connection, c => diesel::delete(trials).execute(c).map(drop))
}
