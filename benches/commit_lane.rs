//! What a durable commit costs through the lane: rows per commit, on SQLite and on PostgreSQL.
//!
//! The clock stops when the last row is durable. `rows=` is one thread that submits a whole batch,
//! `callers=` are threads that submit single rows at the same time. PostgreSQL waits for the disk
//! here, unlike in the tests.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot measure fails by panic")]

mod common;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::config::{Database, DatabaseUrl, Durability, Failover};
use roomcast::internals::{CommitSink, NewMessage, READER_STACK_BYTES, Store};
use roomcast::{Channel, Metrics, Publication};

use common::postgres::Cluster;
use common::temp::TempDir;
use common::{PAYLOAD_BYTES, payload, publisher};

const ROOMS: usize = 100;

/// Drops what is committed: only the store is measured here.
struct Discard;

impl CommitSink for Discard {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn open(url: DatabaseUrl) -> Store {
    // As the server's defaults: SQLite has one writer.
    let commit_lanes = if matches!(url, DatabaseUrl::Sqlite(_)) { 1 } else { 4 };
    let config = Database {
        url,
        durability: Durability::Full,
        read_connections: 1,
        commit_lanes,
        batch_rows_max: 512,
        batch_bytes_max: 1024 * 1024,
        failover: Failover::Lossy,
    };
    Store::open(&config, Arc::new(Metrics::new())).unwrap()
}

/// Messages spread over so many rooms.
fn messages(rows: usize, rooms: usize) -> Vec<NewMessage> {
    let (data, info) = (payload(PAYLOAD_BYTES), publisher());
    (0..rows)
        .map(|row| NewMessage {
            channel: Channel::new(&format!("room{}", row % rooms)).unwrap(),
            auto_create: true,
            data: Arc::clone(&data).into(),
            info: Some(Arc::clone(&info)),
            tags: None,
            key: None,
        })
        .collect()
}

/// Time for at least `rows` single-row submissions, shared by so many threads, as if there were
/// exactly `rows`.
fn contended(store: &Store, threads: usize, rows: u64) -> Duration {
    let share = rows.div_ceil(threads as u64);
    let batch = messages(ROOMS, ROOMS);
    let started = Instant::now();
    thread::scope(|scope| {
        for thread in 0..threads {
            let batch = &batch;
            let work = move || {
                for round in 0..share as usize {
                    let message = batch[(thread + round) % ROOMS].clone();
                    assert!(store.append(vec![message], &Arc::new(Discard))[0].is_ok());
                }
            };
            thread::Builder::new().stack_size(READER_STACK_BYTES).spawn_scoped(scope, work).unwrap();
        }
    });
    started.elapsed().mul_f64(rows as f64 / (share * threads as u64) as f64)
}

fn commits(criterion: &mut Criterion, database: &str, store: &Store) {
    let mut group = criterion.benchmark_group(format!("commit/{database}"));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(10);
    for (rows, rooms) in [(1, 1), (64, ROOMS), (512, ROOMS), (512, 1)] {
        group.throughput(Throughput::Elements(rows as u64));
        let batch = messages(rows, rooms);
        group.bench_function(BenchmarkId::from_parameter(format!("rows={rows}/rooms={rooms}")), |bencher| {
            bencher
                .iter(|| assert!(store.append(batch.clone(), &Arc::new(Discard)).iter().all(Result::is_ok)));
        });
    }
    group.throughput(Throughput::Elements(1));
    for callers in [1, 16, 64] {
        group.bench_function(BenchmarkId::from_parameter(format!("callers={callers}")), |bencher| {
            bencher.iter_custom(|rows| contended(store, callers, rows));
        });
    }
    group.finish();
}

fn on_sqlite(criterion: &mut Criterion) {
    let folder = TempDir::new();
    commits(criterion, "sqlite", &open(DatabaseUrl::Sqlite(folder.0.join("bench.db"))));
}

fn on_postgres(criterion: &mut Criterion) {
    let cluster = Cluster::start();
    commits(criterion, "postgres", &open(DatabaseUrl::Postgres(cluster.database())));
}

criterion_group!(benches, on_sqlite, on_postgres);
criterion_main!(benches);
