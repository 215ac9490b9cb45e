//! `meta`: facts about the database as a whole.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Bool;

use crate::store::connection::{Borrowed, Connection, on_either};
use crate::store::schema::meta;

const EPOCH: &str = "epoch";

/// The identity of the database: made the first time it is asked for, the same until it is renewed.
pub(in crate::store) fn epoch(connection: &mut Connection) -> QueryResult<String> {
    let fresh = random_letters();
    on_either!(connection, c => {
        diesel::insert_into(meta::table)
            .values((meta::name.eq(EPOCH), meta::value.eq(&fresh)))
            .on_conflict_do_nothing()
            .execute(c)?;
        meta::table.find(EPOCH).select(meta::value).first(c)
    })
}

/// The identity, only read: shows whether the database answers.
pub(in crate::store) fn epoch_if_any(connection: &mut Connection) -> QueryResult<Option<String>> {
    on_either!(connection, c => meta::table.find(EPOCH).select(meta::value).first(c).optional())
}

/// Gives the database another identity unless it has another one than `old` already; the one it has now.
pub(in crate::store) fn renew_epoch(connection: &mut Connection, old: &str) -> QueryResult<String> {
    let fresh = random_letters();
    on_either!(connection, c => {
        diesel::update(meta::table.find(EPOCH))
            .filter(meta::value.eq(old))
            .set(meta::value.eq(&fresh))
            .execute(c)?;
        meta::table.find(EPOCH).select(meta::value).first(c)
    })
}

/// The epoch of the database that somebody's connection leads to; `None`: it has none.
pub(in crate::store) fn epoch_on(connection: &mut Borrowed<'_>) -> QueryResult<Option<String>> {
    let query = meta::table.find(EPOCH).select(meta::value);
    match connection {
        Borrowed::Sqlite(c) => query.first(*c).optional(),
        #[cfg(feature = "postgres")]
        Borrowed::Postgres(c) => query.first(*c).optional(),
    }
}

/// True when the server at the other end would take a write; SQLite says so only when it is tried.
pub(in crate::store) fn is_writable(connection: &mut Connection) -> QueryResult<bool> {
    match connection {
        Connection::Sqlite(_) => epoch_if_any(connection).map(|_| true),
        #[cfg(feature = "postgres")]
        Connection::Postgres(c) => {
            sql::<Bool>("SELECT current_setting('transaction_read_only') = 'off'").get_result(c)
        }
    }
}

/// 16 letters, the same in JSON, in a URL and in SQL.
fn random_letters() -> String {
    uuid::Uuid::new_v4().as_bytes().iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}
