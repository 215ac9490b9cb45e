//! Migrations: the same on both databases, and reversible.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use diesel::RunQueryDsl;
use diesel::sql_types::Text;
use diesel_migrations::{FileBasedMigrations, MigrationHarness};

use crate::vocabulary::*;

fn directory(backend: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend)
}

pub(crate) fn names_are_the_same() {
    let names = |backend: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(directory(backend)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}

pub(crate) fn up_down_up(backend: &Backend) {
    match backend {
        Backend::Sqlite(_) => there_and_back(&mut backend.sqlite(), "sqlite"),
        Backend::Postgres(_) => there_and_back(&mut backend.postgres(), "postgres"),
    }
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
}

fn there_and_back<C, DB>(connection: &mut C, backend: &str)
where
    DB: diesel::backend::Backend,
    C: MigrationHarness<DB>,
    FileBasedMigrations: diesel::migration::MigrationSource<DB>,
{
    let migrations = || FileBasedMigrations::from_path(directory(backend)).unwrap();
    connection.run_pending_migrations(migrations()).unwrap();
    connection.revert_all_migrations(migrations()).unwrap();
    connection.run_pending_migrations(migrations()).unwrap();
}

/// `schema.rs` describes both, so both have to have the same columns.
pub(crate) fn tables_and_columns_are_the_same(sqlite: &Backend, postgres: &Backend) {
    drop((sqlite.open(), postgres.open()));
    let mut of_sqlite: Vec<String> = diesel::dsl::sql::<Text>(
        "SELECT t.name || '.' || c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c \
         WHERE t.type = 'table' AND t.name NOT LIKE '\\_\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite%'",
    )
    .load(&mut sqlite.sqlite())
    .unwrap();
    let mut of_postgres: Vec<String> = diesel::dsl::sql::<Text>(
        "SELECT table_name || '.' || column_name FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_\\_%'",
    )
    .load(&mut postgres.postgres())
    .unwrap();
    of_sqlite.sort();
    of_postgres.sort();
    assert!(of_sqlite.contains(&"rooms.head_seq".to_owned()));
    assert_eq!(of_sqlite, of_postgres);
}
