//! What a durable commit costs through the lane: rows per commit, on SQLite and on PostgreSQL.
//!
//! One thread submits a whole batch and waits until it is durable, so the clock stops when all work
//! is finished. `threads=64` is the lane under contention: every thread submits single rows.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "the bench stops no server")]
mod postgres;
#[path = "../tests/support/temp.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod temp;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::config::{Database, DatabaseUrl, Durability};
use roomcast::ids::Channel;
use roomcast::limits::READER_STACK_BYTES;
use roomcast::metrics::Metrics;
use roomcast::publication::ClientInfo;
use roomcast::store::{NewMessage, Store};

const ROOMS: usize = 100;

fn open(url: DatabaseUrl) -> Store {
    let config = Database {
        url,
        durability: Durability::Full,
        read_connections: 1,
        commit_lanes: 4,
        batch_rows_max: 512,
        batch_bytes_max: 1024 * 1024,
    };
    Store::open(&config, Arc::new(Metrics::new())).unwrap()
}

/// Messages of 128 bytes, spread over so many rooms.
fn messages(rows: usize, rooms: usize) -> Vec<NewMessage> {
    let data: Arc<str> = format!("\"{}\"", "x".repeat(126)).into();
    let info = ClientInfo { user: "ann".into(), client: "c1".into(), conn_info: None, chan_info: None };
    let info = Arc::new(info);
    (0..rows)
        .map(|row| NewMessage {
            channel: Channel::new(&format!("room{}", row % rooms)).unwrap(),
            auto_create: true,
            data: Arc::clone(&data),
            info: Some(Arc::clone(&info)),
            tags: None,
            key: None,
        })
        .collect()
}

/// Time for `rows` single-row submissions shared by so many threads.
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
                    assert!(store.append(vec![message])[0].is_ok());
                }
            };
            thread::Builder::new().stack_size(READER_STACK_BYTES).spawn_scoped(scope, work).unwrap();
        }
    });
    started.elapsed()
}

fn commits(criterion: &mut Criterion, database: &str, store: &Store) {
    let mut group = criterion.benchmark_group(format!("commit/{database}"));
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(10);
    for (rows, rooms) in [(1, 1), (64, ROOMS), (512, ROOMS), (512, 1)] {
        group.throughput(Throughput::Elements(rows as u64));
        let batch = messages(rows, rooms);
        group.bench_function(BenchmarkId::from_parameter(format!("rows={rows}/rooms={rooms}")), |bencher| {
            bencher.iter(|| assert!(store.append(batch.clone()).iter().all(Result::is_ok)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("threads=64", |bencher| {
        bencher.iter_custom(|rows| contended(store, 64, rows));
    });
    group.finish();
}

fn on_sqlite(criterion: &mut Criterion) {
    let directory = std::env::temp_dir().join(format!("roomcast-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    commits(criterion, "sqlite", &open(DatabaseUrl::Sqlite(directory.join("bench.db"))));
    std::fs::remove_dir_all(&directory).unwrap();
}

fn on_postgres(criterion: &mut Criterion) {
    let cluster = postgres::Cluster::start();
    commits(criterion, "postgres", &open(DatabaseUrl::Postgres(cluster.database())));
}

criterion_group!(benches, on_sqlite, on_postgres);
criterion_main!(benches);
