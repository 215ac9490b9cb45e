//! Brings the schema up to date when the database is opened, gives a new one its epoch, and knows
//! the smallest statements to try a database with.

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use uuid::Uuid;

use super::connection::{Connection, Reader, on};
use super::schema::meta;

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Key of the epoch in the meta table.
const EPOCH: &str = "epoch";

/// Number PostgreSQL locks migrations by, so that two nodes that start at once take turns.
const MIGRATION_LOCK: i64 = 0x526f_6f6d;

/// Runs what is not applied yet.
pub(super) fn run(connection: &mut Connection) -> Result<(), String> {
    match connection {
        Connection::Sqlite(connection) => {
            connection.run_pending_migrations(SQLITE).map(drop).map_err(|error| error.to_string())
        }
        Connection::Postgres(connection) => {
            let lock = |function: &str| diesel::sql_query(format!("SELECT {function}({MIGRATION_LOCK})"));
            lock("pg_advisory_lock").execute(connection).map_err(|error| error.to_string())?;
            let outcome = connection.run_pending_migrations(POSTGRES).map(drop);
            let unlocked = lock("pg_advisory_unlock").execute(connection);
            outcome.map_err(|error| error.to_string())?;
            unlocked.map(drop).map_err(|error| error.to_string())
        }
    }
}

/// The identity of the database, made the first time.
pub(super) fn epoch(connection: &mut Connection) -> QueryResult<String> {
    let fresh = Uuid::new_v4().simple().to_string();
    let row = (meta::key.eq(EPOCH), meta::value.eq(fresh));
    on!(Connection, connection, connection => {
        diesel::insert_into(meta::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    let query = meta::table.find(EPOCH).select(meta::value);
    on!(Connection, connection, connection => query.first(connection))
}

/// The smallest commit there is.
pub(super) fn touch(connection: &mut Connection) -> QueryResult<()> {
    let own = meta::table.find(EPOCH);
    on!(Connection, connection, connection => {
        diesel::update(own).set(meta::value.eq(meta::value)).execute(connection)
    })?;
    Ok(())
}

/// The smallest read there is.
pub(super) fn look(reader: &mut Reader) -> QueryResult<()> {
    let query = meta::table.find(EPOCH).select(meta::value);
    on!(Reader, reader, connection => query.first::<String>(&mut **connection))?;
    Ok(())
}
