//! Opens a database for the first time in a process: looks what it is before anything is written into it,
//! then brings it to the schema of this version.
//!
//! A database of a newer version, one of another program, and one that cannot hold every text are refused
//! with words. Looking and migrating are one transaction, so a start that fails leaves nothing behind, and
//! of two servers that start at once on PostgreSQL one waits for the other.

use diesel::Connection as _;
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
#[cfg(feature = "postgres")]
use diesel::sql_types::Nullable;
use diesel::sql_types::Text;

use crate::store::connection::{Connection, Purpose, Target};
use crate::store::error::OpenError;
use crate::store::models::trial;

/// The changes of the schema, oldest first: the version of each, and its statements.
type Migrations = &'static [(&'static str, &'static str)];

/// The folders of `migrations/` for one backend.
macro_rules! migrations {
    ($backend:literal: $($version:literal $name:literal),+) => {
        &[$(($version, include_str!(concat!("../../migrations/", $backend, "/", $version, "_", $name, "/up.sql")))),+]
    };
}

const SQLITE_MIGRATIONS: Migrations = migrations!(
    "sqlite": "20260801000000" "create_rooms_and_messages",
    "20261129000000" "add_payload_bytes"
);
#[cfg(feature = "postgres")]
const POSTGRES_MIGRATIONS: Migrations = migrations!(
    "postgres": "20260801000000" "create_rooms_and_messages",
    "20261129000000" "add_payload_bytes"
);

/// Number of the advisory lock that lets only one server migrate a PostgreSQL database at a time.
#[cfg(feature = "postgres")]
const MIGRATION_LOCK: i64 = 0x526f_6f6d_6361_7374;

/// The advice about a SQLite file of somebody else's.
const ANOTHER_FILE: &str = "; name another file, Roomcast will create it";

/// The table in which migrations are noted. Other programs that use diesel have one too.
const NOTED: &str = "__diesel_schema_migrations";

/// The tables of every version so far.
#[cfg(feature = "postgres")]
const TABLES: [&str; 6] = ["contacts", "members", "messages", "meta", "rooms", "users"];

/// The reason why a transaction that looks and migrates was given up.
struct Failure(OpenError);

impl From<diesel::result::Error> for Failure {
    fn from(error: diesel::result::Error) -> Self {
        Self(OpenError::Migrate(error.to_string()))
    }
}

impl Failure {
    fn refused(reason: String) -> Self {
        Self(OpenError::Refused(reason))
    }
}

/// A connection for writing to a database that is of this version.
pub(super) fn open(target: &Target) -> Result<Connection, OpenError> {
    let connect = |purpose| {
        let failed = |error| OpenError::Connect(format!("{}: {error}", target.name()));
        target.connect_patiently(purpose).map_err(failed)
    };
    if target.is_sqlite() {
        // First without the settings of a writer, which change the file.
        if let Connection::Sqlite(mut looking) = connect(Purpose::Read)? {
            look_at_sqlite(&mut looking, ANOTHER_FILE).map_err(|failure| about(target, failure))?;
        }
    }
    let mut connection = connect(Purpose::Write)?;
    #[cfg(feature = "postgres")]
    target.check_sessions(&mut connection)?;
    let migrated = match &mut connection {
        Connection::Sqlite(sqlite) => sqlite.immediate_transaction(|sqlite| {
            let noted = look_at_sqlite(sqlite, ANOTHER_FILE)?;
            migrate(sqlite, SQLITE_MIGRATIONS, &noted)
        }),
        #[cfg(feature = "postgres")]
        Connection::Postgres(postgres) => postgres.transaction(|postgres| {
            let noted = look_at_postgres(postgres)?;
            migrate(postgres, POSTGRES_MIGRATIONS, &noted)
        }),
    };
    migrated.map_err(|failure| about(target, failure))?;
    trial::read(&mut connection).map_err(|error| about(target, other_tables(&error)))?;
    connection
        .bound_waits()
        .and_then(|()| connection.keep_to_indexes())
        .map_err(|error| OpenError::Connect(format!("{}: {error}", target.name())))?;
    Ok(connection)
}

/// Looks at a SQLite file that is to be put in the place of the server's own as the server would: it brings the file to
/// the schema of this version, and is left as it was.
///
/// # Errors
/// The reason for which the server would refuse it.
pub(super) fn try_file(connection: &mut Connection) -> Result<(), String> {
    let mut passed = false;
    let ended = connection.transaction(|connection| {
        match connection {
            Connection::Sqlite(sqlite) => {
                let noted = look_at_sqlite(sqlite, "")?;
                migrate(sqlite, SQLITE_MIGRATIONS, &noted)?;
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => {}
        }
        trial::read(connection).map_err(|error| other_tables(&error))?;
        passed = true;
        Err::<(), _>(Failure::from(diesel::result::Error::RollbackTransaction))
    });
    match ended {
        Err(Failure(OpenError::Refused(reason))) => Err(reason),
        Err(Failure(error)) if !passed => Err(error.to_string()),
        _ => Ok(()),
    }
}

fn other_tables(error: &diesel::result::Error) -> Failure {
    Failure::refused(format!("its tables are not those of this version of Roomcast: {error}"))
}

/// Puts the name of the database into a refusal.
fn about(target: &Target, failure: Failure) -> OpenError {
    match failure.0 {
        OpenError::Refused(reason) => OpenError::Refused(format!("{}: {reason}", target.name())),
        other => other,
    }
}

/// Makes the changes that are not noted yet, and notes them as diesel's command line does.
fn migrate<C>(connection: &mut C, migrations: Migrations, noted: &[String]) -> Result<(), Failure>
where
    C: diesel::Connection + SimpleConnection,
{
    connection.batch_execute(&format!(
        "CREATE TABLE IF NOT EXISTS {NOTED} (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    ))?;
    for (version, statements) in migrations {
        if !noted.iter().any(|noted| noted == version) {
            connection.batch_execute(statements)?;
            connection.batch_execute(&format!("INSERT INTO {NOTED} (version) VALUES ('{version}')"))?;
        }
    }
    Ok(())
}

/// The versions that are noted in a database that may be opened.
fn look_at_sqlite(connection: &mut SqliteConnection, advice: &str) -> Result<Vec<String>, Failure> {
    let found: Vec<String> = diesel::dsl::sql::<Text>(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         ORDER BY name",
    )
    .load(connection)?;
    let noted = noted(connection, &found)?;
    let others: Vec<String> = found.into_iter().filter(|name| name != NOTED).collect();
    judge(SQLITE_MIGRATIONS, &noted, &others, advice)?;
    Ok(noted)
}

#[cfg(feature = "postgres")]
fn look_at_postgres(connection: &mut PgConnection) -> Result<Vec<String>, Failure> {
    diesel::sql_query(format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).execute(connection)?;
    let one = |query: &str, connection: &mut PgConnection| {
        diesel::dsl::sql::<Nullable<Text>>(query).get_result::<Option<String>>(connection)
    };
    let encoding = one("SELECT current_setting('server_encoding')", connection)?.unwrap_or_default();
    if encoding != "UTF8" {
        return Err(Failure::refused(format!(
            "its encoding is {encoding}, in which not every message can be stored; Roomcast needs a database \
             that was made with ENCODING 'UTF8' (TEMPLATE template0, where the default is another)"
        )));
    }
    let Some(schema) = one("SELECT current_schema()::text", connection)? else {
        return Err(Failure::refused(
            "no schema of its search_path exists, or none may be used; CREATE SCHEMA makes one".to_owned(),
        ));
    };
    let found: Vec<String> = diesel::dsl::sql::<Text>(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = current_schema() ORDER BY 1",
    )
    .load(connection)?;
    let noted = noted(connection, &found)?;
    // A schema that has other tables beside ours is fine, as long as each can have its names.
    let in_the_way: Vec<String> = found.into_iter().filter(|name| TABLES.contains(&name.as_str())).collect();
    let advice = format!(
        " in the schema {schema:?}; give Roomcast a schema of its own: CREATE SCHEMA roomcast, and \
         ?options=-csearch_path%3Droomcast at the end of database.url"
    );
    judge(POSTGRES_MIGRATIONS, &noted, &in_the_way, &advice)?;
    Ok(noted)
}

/// The versions noted in a schema with these tables.
fn noted<C>(connection: &mut C, found: &[String]) -> QueryResult<Vec<String>>
where
    C: diesel::connection::LoadConnection,
    diesel::expression::SqlLiteral<Text>: for<'q> diesel::query_dsl::LoadQuery<'q, C, String>,
{
    if !found.iter().any(|name| name == NOTED) {
        return Ok(Vec::new());
    }
    let query = format!("SELECT version FROM {NOTED} ORDER BY version");
    diesel::dsl::sql::<Text>(&query).load(connection)
}

/// Decides by the changes that this program knows, those noted in the database, and the tables that are
/// there although no version of ours is noted.
fn judge(known: Migrations, noted: &[String], tables: &[String], advice: &str) -> Result<(), Failure> {
    let is_known = |version: &&String| known.iter().any(|(known, _)| known == version);
    let is_ours = noted.iter().any(|version| is_known(&version));
    let newer = noted.iter().filter(|version| !is_known(version)).max();
    match newer {
        None if is_ours || tables.is_empty() => Ok(()),
        None => {
            Err(Failure::refused(format!("it has tables of another program ({}){advice}", tables.join(", "))))
        }
        Some(newer) if is_ours => Err(Failure::refused(format!(
            "it is of a newer version of Roomcast: its schema is {newer}, and {} is the newest that this version \
             knows; start the newer version, or restore a backup from before",
            known.last().map_or("none", |(version, _)| version)
        ))),
        Some(_) => Err(Failure::refused(format!("it has migrations of another program ({NOTED}){advice}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_complete(backend: &str, migrations: Migrations) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut folders: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        folders.sort();
        let versions: Vec<_> = folders.iter().map(|name| name.split('_').next().unwrap()).collect();
        let listed: Vec<_> = migrations.iter().map(|(version, _)| *version).collect();
        assert_eq!(listed, versions, "in their order");
    }

    #[test]
    fn every_migration_is_compiled_in() {
        assert_complete("sqlite", SQLITE_MIGRATIONS);
        #[cfg(feature = "postgres")]
        assert_complete("postgres", POSTGRES_MIGRATIONS);
    }
}
