//! `users`: everybody who ever published or had a contact.

use diesel::prelude::*;

use crate::limits::USER_ID_BYTES_MAX;
use crate::store::connection::{Connection, on_either};
use crate::store::error::StoreError;
use crate::store::schema::users;

/// Makes users of those who are none yet. Sorted first, so that two transactions that add the same
/// users never wait for each other in a circle.
pub(in crate::store) fn add(connection: &mut Connection, ids: &[&str], now_ms: i64) -> QueryResult<()> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    for id in ids {
        on_either!(connection, c => {
            diesel::insert_into(users::table)
                .values((users::id.eq(id), users::created_at.eq(now_ms)))
                .on_conflict_do_nothing()
                .execute(c)?
        });
    }
    Ok(())
}

/// Refuses what cannot be a user id in the database.
pub(in crate::store) fn check(id: &str) -> Result<(), StoreError> {
    if id.is_empty() || id.len() > USER_ID_BYTES_MAX || id.contains('\0') {
        return Err(StoreError::BadUser);
    }
    Ok(())
}
