//! The floor of storing in SQLite: one connection, a write-ahead log that is synced at every commit,
//! one prepared insert per row.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::common::temp::TempDir;
use super::common::{PAYLOAD_BYTES, cpu, payload};
use super::log::{ROOMS, Row, Rows, cases, messages};
use super::measure::{Case, Cost, Floor, Group};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Messages a second and rooms of the scenario of many small rooms.
const PACED: u32 = 2000;
const ROOMS_PACED: i64 = 1000;

/// The ends of so many rooms do not fit into SQLite's own cache.
const SETTINGS_PACED: &str = "PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000;";

pub(crate) fn group() -> Group {
    let single = cases("sqlite", "prepared").next().unwrap();
    // What a quiet ack costs by itself: the caches are cold, and two threads wake each other up for it.
    let acked = Case { acked: true, ..single };
    Group {
        cases: cases("sqlite", "prepared").chain([acked]).collect(),
        open: Box::new(|| Box::new(Sqlite::open(ROOMS))),
    }
}

/// The commits of many small rooms by themselves, each of one message, with rests between them.
pub(crate) fn paced_group() -> Group {
    let single = cases("sqlite", "prepared").next().unwrap();
    Group {
        cases: vec![Case { paced: Some(PACED), ..single }],
        open: Box::new(|| {
            let mut floor = Sqlite::open(ROOMS_PACED);
            floor.connection.batch_execute(SETTINGS_PACED).unwrap();
            Box::new(floor)
        }),
    }
}

struct Sqlite {
    connection: SqliteConnection,
    rows: Rows,
    _folder: TempDir,
}

impl Sqlite {
    fn open(rooms: i64) -> Self {
        let folder = TempDir::new();
        let path = folder.0.join("floor.db");
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection
            .batch_execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;")
            .unwrap();
        connection.run_pending_migrations(MIGRATIONS).unwrap();
        Self { connection, rows: Rows::of(rooms), _folder: folder }
    }
}

impl Floor for Sqlite {
    fn run(&mut self, case: &Case, rounds: u64) -> Cost {
        if case.acked {
            return self.ack(rounds);
        }
        let (mut cost, begun) = (Cost::default(), Instant::now());
        for round in 0..rounds {
            if let Some(rate) = case.paced {
                let due = begun + Duration::from_secs(round) / rate;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let rows = self.rows.next(case.batch.unwrap());
            let (started, cpu_before) = (Instant::now(), cpu::of_process());
            commit(&mut self.connection, &rows).unwrap();
            cost.wall += started.elapsed();
            cost.cpu += cpu::of_process() - cpu_before;
        }
        cost
    }
}

impl Sqlite {
    /// One row at a time for a client that waits for each answer; the time is the client's.
    fn ack(&mut self, rounds: u64) -> Cost {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nodelay(true).unwrap();
        client.set_nodelay(true).unwrap();
        let cpu_before = cpu::of_process();
        let client = thread::spawn(move || ask(client, rounds));
        let mut frame = vec![0; PAYLOAD_BYTES];
        for _ in 0..rounds {
            server.read_exact(&mut frame).unwrap();
            commit(&mut self.connection, &self.rows.next(1)).unwrap();
            server.write_all(&[1]).unwrap();
        }
        let wall = client.join().unwrap();
        Cost { wall, cpu: cpu::of_process() - cpu_before, backend_cpu: None }
    }
}

fn ask(mut socket: TcpStream, rounds: u64) -> Duration {
    let frame = payload(PAYLOAD_BYTES);
    let started = Instant::now();
    for _ in 0..rounds {
        socket.write_all(frame.as_bytes()).unwrap();
        socket.read_exact(&mut [0]).unwrap();
    }
    started.elapsed()
}

fn commit(connection: &mut SqliteConnection, rows: &[Row<'_>]) -> QueryResult<()> {
    connection.batch_execute("BEGIN IMMEDIATE")?;
    for row in rows {
        diesel::insert_into(messages::table).values(*row).execute(connection)?;
    }
    connection.batch_execute("COMMIT")
}
