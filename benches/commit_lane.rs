//! Durable rows through the commit lane of SQLite, by rows in a submission.
//!
//! An iteration ends when every row is acknowledged, that is when it is on disk.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::config::{Config, DatabaseUrl};
use roomcast::ids::Channel;
use roomcast::metrics::Metrics;
use roomcast::store::{NewMessage, Store};

fn commit_lane(criterion: &mut Criterion) {
    let folder = std::env::temp_dir().join(format!("roomcast-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the database");
    let mut database = Config::default().database;
    database.url = DatabaseUrl::Sqlite(folder.join("bench.db"));
    let store = Store::open(&database, Arc::new(Metrics::new())).expect("a database");
    let message = NewMessage {
        channel: Channel::new("room").expect("a legal name"),
        auto_create: true,
        data: format!(r#""{}""#, "x".repeat(126)).into(),
        info: None,
        tags: None,
        key: None,
    };
    let mut group = criterion.benchmark_group("commit_lane/sqlite");
    group.sample_size(20);
    for rows in [1, 64, 512] {
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("rows={rows}")), |bencher| {
            bencher.iter(|| {
                let results = store.append(vec![message.clone(); rows]);
                assert!(results.iter().all(Result::is_ok));
            });
        });
    }
    group.finish();
    drop(store);
    std::fs::remove_dir_all(folder).expect("the folder is ours");
}

criterion_group!(benches, commit_lane);
criterion_main!(benches);
