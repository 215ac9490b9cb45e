//! Asks PostgreSQL for the class of an error that diesel has no kind for: it hides the code of those.
//!
//! Only a block of the server's own language learns it. The row is inserted once more, into no room, inside of one
//! and inside a transaction that is given up.

use diesel::connection::SimpleConnection;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

use crate::store::message::NewMessage;

/// The class of errors that lie in a value: a text that is no JSON for an index of the operator's, say.
const DATA_EXCEPTION: &str = "22";

/// Inserts what a client may have written freely, as the settings that [`is_bad`] made of it.
const TRY: &str = "DO $$ BEGIN \
     INSERT INTO messages (room_id, seq, conn_info, chan_info, data, tags, created_at) \
     SELECT 0, 1, nullif(current_setting('roomcast.conn_info'), ''), \
     nullif(current_setting('roomcast.chan_info'), ''), current_setting('roomcast.data'), \
     nullif(current_setting('roomcast.tags'), ''), 0; \
     EXCEPTION WHEN OTHERS THEN PERFORM set_config('roomcast.error', SQLSTATE, true); END $$";

/// True when one of the message's values is certainly what PostgreSQL refuses.
pub(super) fn is_bad(postgres: &mut PgConnection, message: &NewMessage) -> bool {
    if postgres.batch_execute("BEGIN").is_err() {
        return false;
    }
    let class = class_of(postgres, message);
    // A connection that is dead now is noticed by its next statement.
    let _ = postgres.batch_execute("ROLLBACK");
    class.is_ok_and(|class| class.is_some_and(|class| class.starts_with(DATA_EXCEPTION)))
}

fn class_of(postgres: &mut PgConnection, message: &NewMessage) -> QueryResult<Option<String>> {
    let info = message.info.as_deref();
    for (name, value) in [
        ("roomcast.data", Some(message.json())),
        ("roomcast.tags", message.tags.as_deref()),
        ("roomcast.conn_info", info.and_then(|info| info.conn_info.as_deref())),
        ("roomcast.chan_info", info.and_then(|info| info.chan_info.as_deref())),
    ] {
        diesel::sql_query("SELECT set_config($1, $2, true)")
            .bind::<Text, _>(name)
            .bind::<Text, _>(value.unwrap_or_default())
            .execute(postgres)?;
    }
    postgres.batch_execute(TRY)?;
    sql::<Nullable<Text>>("SELECT current_setting('roomcast.error', true)").get_result(postgres)
}
