//! A full disk under SQLite, played by a limit on the size of files.
//!
//! Alone in its process, because the limit holds for the whole of it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rlimit::Resource;
use roomcast::config::{Database, DatabaseUrl, Durability, Failover};
use roomcast::internals::{CommitSink, Health, NewMessage, Store};
use roomcast::{AppendError, Channel, Metrics, Publication};

/// The signal that a process gets instead of an error when it does not handle it.
const SIGXFSZ: i32 = 25;

/// Drops what is committed: only the store is tested here.
struct Discard;

impl CommitSink for Discard {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn message(data: &str) -> NewMessage {
    NewMessage {
        channel: Channel::new("a").unwrap(),
        auto_create: true,
        data: data.into(),
        info: None,
        tags: None,
        key: None,
    }
}

#[test]
fn a_full_disk_gives_a_temporary_error_and_heals() {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).unwrap();
    let directory = std::env::temp_dir().join(format!("roomcast-full-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = Database {
        url: DatabaseUrl::Sqlite(directory.join("full.db")),
        durability: Durability::Full,
        read_connections: 2,
        commit_lanes: 1,
        batch_rows_max: 64,
        batch_bytes_max: 1024 * 1024,
        failover: Failover::Lossy,
    };
    let metrics = Arc::new(Metrics::new());
    let store = Store::open(&config, Arc::clone(&metrics)).unwrap();
    let (limit, hard) = Resource::FSIZE.get().unwrap();
    Resource::FSIZE.set(1024 * 1024, hard).unwrap();

    let large = "x".repeat(10_000);
    let mut stored = 0;
    let refused = loop {
        match store.append(vec![message(&large)], &Arc::new(Discard)).remove(0) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the limit holds");
    };
    assert_eq!(refused, AppendError::Unavailable);
    assert_eq!(
        store.append(vec![message(&large), message(&large)], &Arc::new(Discard)),
        [const { Err(AppendError::Unavailable) }; 2]
    );
    assert!(matches!(store.health(), Health::Down { .. }));
    assert_eq!(metrics.store_up.with_label_values(&["0"]).get(), 0);
    // Reads still work.
    assert_eq!(store.head(&Channel::new("a").unwrap()), Ok(stored));

    Resource::FSIZE.set(limit, hard).unwrap();
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while store.health() != Health::Up {
        assert!(Instant::now() < give_up_at, "it did not heal: {:?}", store.health());
        std::thread::yield_now();
    }
    assert_eq!(store.append(vec![message("1")], &Arc::new(Discard)).remove(0).unwrap().seq(), stored + 1);
    assert_eq!(metrics.store_up.with_label_values(&["0"]).get(), 1);
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();
}
