//! What a start looks at before it writes: whose database it is, of which version, and who else has it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use roomcast::internals::Appended;

use crate::Check;
use crate::postgres::Cluster;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("a database of a newer version is refused", newer_version),
    ("another program's migrations are refused", foreign_migrations),
    ("tables that only bear our names are refused", foreign_columns),
    ("a start that broke off before the tables is repeated", broken_start),
];

pub(crate) const SQLITE_CHECKS: &[Check] = &[
    ("a file of another program is left as it is", foreign_file),
    ("a file that is no database is left as it is", no_database),
    ("our file may have tables beside ours", tables_beside_in_a_file),
    ("a file has one server, by whatever name", one_server),
    ("programs that read are not kept out", readers_come_in),
    ("new files are their owner's alone", owner_only),
];

pub(crate) const POSTGRES_CHECKS: &[Check] = &[
    ("a schema with tables of our names is left as it is", tables_in_the_way),
    ("a schema of its own is free of them", own_schema),
    ("a schema may have tables beside ours", tables_beside_in_a_schema),
    ("a search path that leads nowhere is told", no_schema),
];

const NEWER: &str = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99990101000000')";
const NOTED: &str = "CREATE TABLE __diesel_schema_migrations \
    (version VARCHAR(50) PRIMARY KEY NOT NULL, run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";

fn newer_version(backend: &Backend) {
    drop(backend.open());
    backend.execute(NEWER);
    let refusal = backend.refusal();
    assert!(refusal.contains("newer version of Roomcast") && refusal.contains("99990101000000"), "{refusal}");
    backend.execute("DELETE FROM __diesel_schema_migrations WHERE version LIKE '9999%'");
    append(&backend.open(), message("a", "1")).unwrap();
}

fn foreign_migrations(backend: &Backend) {
    backend.execute(&format!("{NOTED}; {NEWER}"));
    let refusal = backend.refusal();
    assert!(refusal.contains("migrations of another program"), "{refusal}");
    assert_eq!(backend.number("SELECT count(*) FROM __diesel_schema_migrations"), 1);
}

fn foreign_columns(backend: &Backend) {
    drop(backend.open());
    backend.execute("ALTER TABLE rooms RENAME COLUMN head_seq TO head");
    let refusal = backend.refusal();
    assert!(refusal.contains("not those of this version") && refusal.contains("head_seq"), "{refusal}");
}

fn broken_start(backend: &Backend) {
    backend.execute(NOTED);
    append(&backend.open(), message("a", "1")).unwrap();
}

fn path(backend: &Backend) -> &Path {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    path
}

/// The name of a file beside the database.
fn beside(backend: &Backend, suffix: &str) -> PathBuf {
    let mut name = path(backend).as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn foreign_file(backend: &Backend) {
    for sql in
        ["CREATE TABLE customers (id INTEGER)", "DROP TABLE customers; CREATE TABLE users (id INTEGER)"]
    {
        backend.execute(sql);
        let before = fs::read(path(backend)).unwrap();
        let refusal = backend.refusal();
        assert!(
            refusal.contains("tables of another program") && refusal.contains("another file"),
            "{refusal}"
        );
        assert_eq!(fs::read(path(backend)).unwrap(), before);
        assert!(!beside(backend, "-wal").exists());
    }
}

fn no_database(backend: &Backend) {
    let text = "a letter ".repeat(1000);
    fs::write(path(backend), &text).unwrap();
    let refusal = backend.refusal();
    assert!(refusal.contains("not a database"), "{refusal}");
    assert_eq!(fs::read_to_string(path(backend)).unwrap(), text);
}

fn tables_beside_in_a_file(backend: &Backend) {
    drop(backend.open());
    backend.execute("CREATE TABLE customers (id INTEGER)");
    append(&backend.open(), message("a", "1")).unwrap();
}

fn one_server(backend: &Backend) {
    let store = backend.open();
    let link = path(backend).with_extension("link");
    symlink(path(backend), &link).unwrap();
    for name in [path(backend).to_owned(), link] {
        let refusal = Backend::Sqlite(name).refusal();
        let process = format!("the process {}", std::process::id());
        assert!(refusal.contains(&process) && refusal.contains("one server at a time"), "{refusal}");
    }
    append(&store, message("a", "1")).unwrap();
    drop(store);
    assert_eq!(append(&backend.open(), message("a", "1")), Ok(Appended::New(2)));
}

fn readers_come_in(backend: &Backend) {
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    assert_eq!(backend.number("SELECT count(*) FROM messages"), 1);
}

fn owner_only(backend: &Backend) {
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    for suffix in ["", "-wal", "-shm", "-lock"] {
        let mode = fs::metadata(beside(backend, suffix)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{suffix}: {mode:o}");
    }
    drop(store);
    let mark = fs::metadata(beside(backend, "-mark")).unwrap().permissions().mode();
    assert_eq!(mark & 0o777, 0o600, "{mark:o}");
    // What the operator gave others stays theirs.
    fs::set_permissions(path(backend), PermissionsExt::from_mode(0o640)).unwrap();
    drop(backend.open());
    assert_eq!(fs::metadata(path(backend)).unwrap().permissions().mode() & 0o777, 0o640);
}

fn relations(backend: &Backend) -> i64 {
    backend.number(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'public'",
    )
}

fn tables_in_the_way(backend: &Backend) {
    backend.execute("CREATE TABLE users (name TEXT); CREATE VIEW rooms AS SELECT 1 AS number");
    let before = relations(backend);
    let refusal = backend.refusal();
    for part in ["another program (rooms, users)", "schema \"public\"", "?options=-csearch_path%3Droomcast"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    assert_eq!(relations(backend), before, "nothing is left behind");
}

fn own_schema(backend: &Backend) {
    backend.execute("CREATE TABLE users (name TEXT); CREATE SCHEMA roomcast");
    let before = relations(backend);
    let Backend::Postgres(url) = backend else { panic!("PostgreSQL only") };
    let own = Backend::Postgres(format!("{url}&options=-csearch_path%3Droomcast"));
    append(&own.open(), message_of("ann", "a", "1")).unwrap();
    assert_eq!(append(&own.open(), message("a", "1")), Ok(Appended::New(2)));
    assert_eq!(relations(backend), before);
}

fn tables_beside_in_a_schema(backend: &Backend) {
    backend.execute("CREATE TABLE customers (id BIGINT PRIMARY KEY)");
    append(&backend.open(), message("a", "1")).unwrap();
    append(&backend.open(), message("a", "1")).unwrap();
}

fn no_schema(backend: &Backend) {
    backend.execute("DROP SCHEMA public");
    let refusal = backend.refusal();
    assert!(refusal.contains("no schema of its search_path"), "{refusal}");
}

/// A database in another encoding takes some messages and not others.
pub(crate) fn only_utf8(cluster: &Cluster) {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let url = cluster.database_with(&["-E", encoding, "--locale=C", "-T", "template0"]);
        let backend = Backend::Postgres(url);
        let refusal = backend.refusal();
        assert!(refusal.contains(encoding) && refusal.contains("ENCODING 'UTF8'"), "{refusal}");
        assert_eq!(relations(&backend), 0, "nothing is left behind");
    }
}
