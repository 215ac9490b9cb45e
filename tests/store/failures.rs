//! A store that fails: clear answers, nothing half done, and back by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use roomcast::internals::{Appended, CommitSink, Health, Store, StoreError};
use roomcast::{AppendError, Metrics};

use crate::Check;
use crate::handoff::Collector;
use crate::postgres::Cluster;
use crate::proxy::{NextCommit, Proxy};
use crate::temp::PATIENCE;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] =
    &[("a commit that fails is told to all and handed to nobody", failed_commit)];

pub(crate) const SQLITE_CHECKS: &[Check] = &[
    ("a file that vanishes is noticed", vanished_file),
    ("a write-ahead file that vanishes is noticed, and what it held is saved", vanished_log),
    ("a write-ahead file that is replaced is noticed", replaced_log),
    ("a write-ahead file that is emptied or cut is noticed", emptied_log),
    ("a write-ahead file with a hole does not reach the database", log_with_a_hole),
    ("other programs may cut the write-ahead file", cut_by_others),
    ("a database that is emptied is noticed", emptied_file),
    ("an index that vanishes is noticed", vanished_index),
    ("a write-ahead file that grew is cut", cut_log),
];

fn unavailable<S: CommitSink + 'static>(store: &Store, sink: &Arc<S>, count: usize) {
    let messages = (0..count).map(|_| message_of("ann", "a", "lost")).collect();
    let results = store.append(messages, sink);
    assert!(results.iter().all(|result| *result == Err(AppendError::Unavailable)), "{results:?}");
}

fn is_down(store: &Store) -> bool {
    matches!(store.health(), Health::Down { since_ms: 1.., .. })
}

fn failed_commit(backend: &Backend) {
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(Arc::clone(&metrics));
    let sink = Collector::new();
    append_to(&store, &sink, message("a", "1")).unwrap();
    backend.execute("ALTER TABLE messages RENAME TO hidden");
    unavailable(&store, &sink, 1);
    unavailable(&store, &sink, 10);
    assert!(!is_up(&metrics));
    assert_eq!(metrics.commit_failures_total.get(), 2);
    assert!(is_down(&store));
    assert_eq!(store.head(&channel("a")), Ok(1));
    backend.execute("ALTER TABLE hidden RENAME TO messages");
    assert_eq!(append_to(&store, &sink, message("a", "2")), Ok(Appended::New(2)));
    await_up(&store);
    assert!(is_up(&metrics));
    assert_eq!(sink.seqs("a"), [1, 2]);
    assert_eq!(backend.number("SELECT count(*) FROM messages"), 2);
}

fn vanished_file(backend: &Backend) {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    let elsewhere = path.with_extension("moved");
    std::fs::rename(path, &elsewhere).unwrap();
    unavailable(&store, &discard(), 2);
    assert!(matches!(store.add_contact("ann", "bob"), Err(StoreError::Unavailable(_))));
    assert!(is_down(&store));
    assert!(!path.exists(), "nobody makes an empty database of that name");
    std::fs::rename(&elsewhere, path).unwrap();
    await_up(&store);
    assert_eq!(append(&store, message("a", "2")), Ok(Appended::New(2)));
}

/// The name of a file beside the database.
fn beside(backend: &Backend, suffix: &str) -> PathBuf {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    let mut name = path.clone().into_os_string();
    name.push(suffix);
    name.into()
}

/// What would be there after `kill -9` at this moment, from the files that have names.
fn rows_after_a_crash(backend: &Backend) -> i64 {
    let copy = beside(backend, "-copy");
    for suffix in ["", "-wal"] {
        let to = beside(&Backend::Sqlite(copy.clone()), suffix);
        let _ = fs::remove_file(&to);
        if beside(backend, suffix).exists() {
            fs::copy(beside(backend, suffix), to).unwrap();
        }
    }
    Backend::Sqlite(copy).number("SELECT count(*) FROM messages")
}

fn vanished_log(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 10);
    let log = beside(backend, "-wal");
    fs::remove_file(&log).unwrap();
    assert!(is_down(&store), "seen without a publish");
    unavailable(&store, &discard(), 2);
    assert!(matches!(store.add_contact("ann", "bob"), Err(StoreError::Unavailable(_))));
    let Health::Down { reason, .. } = store.health() else { panic!("it is down") };
    assert!(reason.contains("-wal was moved or deleted; what was acknowledged is saved"), "{reason}");
    assert!(!log.exists(), "nobody makes an empty one");
    assert_eq!(rows_after_a_crash(backend), 10);
    assert_eq!(history(&store, "a", all(), KEEP_ALL).len(), 10, "it still reads");
    drop(store);
    let store = backend.open();
    assert_eq!(append(&store, message("a", "11")), Ok(Appended::New(11)));
    assert_eq!(store.health(), Health::Up);
    // One that comes back counts again.
    fs::rename(&log, beside(backend, "-moved")).unwrap();
    assert!(is_down(&store));
    fs::rename(beside(backend, "-moved"), &log).unwrap();
    await_up(&store);
    assert_eq!(append(&store, message("a", "12")), Ok(Appended::New(12)));
    fs::remove_file(&log).unwrap();
    unavailable(&store, &discard(), 1);
    assert_eq!(rows_after_a_crash(backend), 12);
}

fn replaced_log(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 10);
    let log = beside(backend, "-wal");
    fs::copy(&log, beside(backend, "-copy")).unwrap();
    fs::rename(beside(backend, "-copy"), &log).unwrap();
    unavailable(&store, &discard(), 1);
    let Health::Down { reason, .. } = store.health() else { panic!("it is down") };
    assert!(reason.contains("-wal was replaced"), "{reason}");
}

fn set_bytes(path: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[track_caller]
fn is_down_because(store: &Store, words: &str) {
    let health = store.health();
    assert!(matches!(&health, Health::Down { reason, .. } if reason.contains(words)), "{health:?}");
}

fn emptied_log(backend: &Backend) {
    let log = beside(backend, "-wal");
    for seen in [false, true] {
        for bytes in [0, 20, 10_000] {
            let store = backend.open();
            append(&store, message("a", "1")).unwrap();
            assert!(!seen || store.health() == Health::Up);
            set_bytes(&log, bytes);
            // A look that has not seen the last commit sees no cut that is behind what it has seen.
            is_down_because(&store, "-wal was emptied or cut; messages that were only in it are lost");
            unavailable(&store, &discard(), 2);
            drop(store);
            // As the next process finds it.
            for suffix in ["", "-wal", "-shm", "-mark"] {
                fs::remove_file(beside(backend, suffix)).unwrap();
            }
        }
    }
    // Nothing is lost when all of it is in the database, as a reader keeps it there.
    let store = backend.open();
    fill(&store, "a", 10);
    backend.execute("PRAGMA wal_checkpoint(PASSIVE)");
    set_bytes(&log, 0);
    is_down_because(&store, "what was acknowledged is saved");
    assert_eq!(rows_after_a_crash(backend), 10);
}

/// The server has committed once more before it looked.
fn log_with_a_hole(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 10);
    backend.execute("PRAGMA wal_checkpoint(PASSIVE)");
    fill(&store, "b", 200);
    let log = beside(backend, "-wal");
    let bytes = fs::metadata(&log).unwrap().len();
    set_bytes(&log, 0);
    set_bytes(&log, bytes);
    is_down_because(&store, "-wal was emptied or cut; messages that were only in it are lost");
    unavailable(&store, &discard(), 1);
    fs::remove_file(&log).unwrap();
    is_down_because(&store, "-wal was moved or deleted; before that");
    drop(store);
    assert_eq!(rows_after_a_crash(backend), 10, "the database is as it was copied to last");
}

fn cut_by_others(backend: &Backend) {
    let store = backend.open();
    for number in 1..=10 {
        append(&store, message("a", "1")).unwrap();
        if number % 3 > 0 {
            assert_eq!(store.health(), Health::Up);
        }
        backend.execute("PRAGMA wal_checkpoint(TRUNCATE)");
        assert_eq!(fs::metadata(beside(backend, "-wal")).unwrap().len(), 0);
        if number % 2 > 0 {
            assert_eq!(store.health(), Health::Up);
        }
    }
    drop(store);
    let store = backend.open();
    assert_eq!(store.health(), Health::Up, "a new one is empty");
    assert_eq!(append(&store, message("a", "1")), Ok(Appended::New(11)));
}

fn emptied_file(backend: &Backend) {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    set_bytes(path, 0);
    unavailable(&store, &discard(), 1);
    is_down_because(&store, ".db was emptied");
}

fn vanished_index(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 10);
    fs::remove_file(beside(backend, "-shm")).unwrap();
    unavailable(&store, &discard(), 1);
    assert!(is_down(&store));
    drop(store);
    assert_eq!(append(&backend.open(), message("a", "11")), Ok(Appended::New(11)));
}

/// Somebody reads old pages for long, so that the log cannot begin anew.
fn cut_log(backend: &Backend) {
    const LIMIT: u64 = 64 * 1024 * 1024;
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(Arc::clone(&metrics));
    append(&store, message("a", "1")).unwrap();
    let mut reader = backend.sqlite();
    reader.batch_execute("BEGIN; SELECT count(*) FROM messages").unwrap();
    let large = format!("\"{}\"", "x".repeat(500_000));
    let size = || fs::metadata(beside(backend, "-wal")).unwrap().len();
    while size() <= LIMIT + LIMIT / 4 {
        let sent = (0..16).map(|_| message("a", &large)).collect();
        assert!(store.append(sent, &discard()).iter().all(Result::is_ok));
    }
    append(&store, message("a", "1")).unwrap();
    assert!(metrics.store_wal_bytes.get() as u64 > LIMIT);
    reader.batch_execute("COMMIT").unwrap();
    // One copies the log into the database, the next begins it anew, the third sees that.
    for _ in 0..3 {
        append(&store, message("a", "1")).unwrap();
    }
    assert!(size() <= LIMIT, "{} MiB", size() >> 20);
    assert_eq!(metrics.store_wal_bytes.get() as u64, size());
}

/// The server is stopped, which every call notices at once, and started again.
pub(crate) fn a_stopped_server_heals(cluster: &mut Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(Arc::clone(&metrics));
    let sink = Collector::new();
    append_to(&store, &sink, message("a", "1")).unwrap();
    cluster.crash();
    let asked_at = Instant::now();
    unavailable(&store, &sink, 3);
    assert!(matches!(store.head(&channel("a")), Err(StoreError::Unavailable(_))));
    assert!(is_down(&store));
    unavailable(&store, &sink, 1);
    assert!(asked_at.elapsed() < Duration::from_secs(30), "calls do not hang");
    assert!(!is_up(&metrics));
    cluster.run();
    await_up(&store);
    assert_eq!(append_to(&store, &sink, message("a", "2")), Ok(Appended::New(2)));
    assert_eq!(store.head(&channel("a")), Ok(2));
    assert!(is_up(&metrics));
    assert_eq!(sink.seqs("a"), [1, 2]);
    // Connections that died while nobody used them are replaced unnoticed.
    cluster.crash();
    cluster.run();
    assert_eq!(append_to(&store, &sink, message("a", "3")), Ok(Appended::New(3)));
    assert_eq!(store.head(&channel("a")), Ok(3));
}

/// The connection is lost during a commit, once before the server got it and once after.
pub(crate) fn a_commit_of_unknown_outcome_reaches_the_listeners(cluster: &Cluster) {
    let direct = Backend::Postgres(cluster.database());
    let Backend::Postgres(url) = &direct else { return };
    let proxy = Proxy::start(cluster.port());
    let through = url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", proxy.port()));
    let store = Backend::Postgres(through).open();
    let sink = Collector::new();
    append_to(&store, &sink, message("a", "1")).unwrap();

    proxy.next_commit(NextCommit::IsLost);
    unavailable(&store, &sink, 1);
    assert_eq!(append_to(&store, &sink, message("a", "2")), Ok(Appended::New(2)));
    assert_eq!(sink.seqs("a"), [1, 2]);

    proxy.next_commit(NextCommit::LosesItsAnswer);
    unavailable(&store, &sink, 2);
    assert_eq!(sink.seqs("a"), [1, 2]);
    assert_eq!(append_to(&store, &sink, message("a", "5")), Ok(Appended::New(5)));
    assert_eq!(sink.seqs("a"), [1, 2, 3, 4, 5]);
    assert_eq!(direct.number("SELECT count(*) FROM messages"), 5);

    // Nobody publishes any more, in none of the lanes.
    store.tell(Arc::downgrade(&sink) as Weak<dyn CommitSink>);
    let seen = || sink.seen.lock().unwrap().len();
    let mut last = Appended::New(5);
    for room in ["a", "b", "c", "d"] {
        let lose = || {
            proxy.next_commit(NextCommit::LosesItsAnswer);
            let before = seen();
            (append_to(&store, &sink, message(room, "late")), before)
        };
        // A trial of the store may be the one that loses its answer.
        let before = loop {
            match lose() {
                (Ok(appended), _) if room == "a" => last = appended,
                (Ok(_), _) => {}
                (Err(_), before) => break before,
            }
        };
        let give_up_at = Instant::now() + PATIENCE;
        while seen() == before {
            assert!(Instant::now() < give_up_at, "what was committed to {room} is not delivered");
            thread::sleep(Duration::from_millis(5));
        }
        await_up(&store);
    }
    let next = last.seq() + 2;
    assert_eq!(append_to(&store, &sink, message("a", "last")), Ok(Appended::New(next)));
    assert_eq!(sink.seqs("a"), (1..=next).collect::<Vec<_>>());
    let seen = sink.seen.lock().unwrap();
    assert_eq!(seen[2].data.as_bytes(), b"lost");
    assert_eq!(seen[2].info.as_ref().map(|info| &*info.user), Some("ann"));
}
