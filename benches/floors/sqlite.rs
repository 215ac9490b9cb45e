//! The floor of storing in SQLite: one connection, a write-ahead log that is synced at every commit,
//! one prepared insert per row.

use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::common::cpu;
use super::common::temp::TempDir;
use super::log::{Row, Rows, cases, messages};
use super::measure::{Case, Cost, Floor, Group};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

pub(crate) fn group() -> Group {
    Group { cases: cases("sqlite", "prepared").collect(), open: Box::new(|| Box::new(Sqlite::open())) }
}

struct Sqlite {
    connection: SqliteConnection,
    rows: Rows,
    _folder: TempDir,
}

impl Sqlite {
    fn open() -> Self {
        let folder = TempDir::new();
        let path = folder.0.join("floor.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection
            .batch_execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")
            .unwrap();
        connection.run_pending_migrations(MIGRATIONS).unwrap();
        Self { connection, rows: Rows::new(), _folder: folder }
    }
}

impl Floor for Sqlite {
    fn run(&mut self, case: &Case, rounds: u64) -> Cost {
        let mut cost = Cost::default();
        for _ in 0..rounds {
            let rows = self.rows.next(case.batch.unwrap());
            let (started, cpu_before) = (Instant::now(), cpu::of_process());
            commit(&mut self.connection, &rows).unwrap();
            cost.wall += started.elapsed();
            cost.cpu += cpu::of_process() - cpu_before;
        }
        cost
    }
}

fn commit(connection: &mut SqliteConnection, rows: &[Row<'_>]) -> QueryResult<()> {
    connection.batch_execute("BEGIN IMMEDIATE")?;
    for row in rows {
        diesel::insert_into(messages::table).values(*row).execute(connection)?;
    }
    connection.batch_execute("COMMIT")
}
