//! A store that fails: clear answers, nothing half done, and back by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast::internals::{Appended, CommitSink, Health, Store, StoreError};
use roomcast::{AppendError, Metrics};

use crate::Check;
use crate::handoff::Collector;
use crate::postgres::Cluster;
use crate::proxy::{NextCommit, Proxy};
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] =
    &[("a commit that fails is told to all and handed to nobody", failed_commit)];

pub(crate) const SQLITE_CHECKS: &[Check] = &[("a file that vanishes is noticed", vanished_file)];

fn unavailable(store: &Store, sink: &dyn CommitSink, count: usize) {
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
    assert_eq!(metrics.store_up.get(), 0);
    assert_eq!(metrics.commit_failures_total.get(), 2);
    assert!(is_down(&store));
    assert_eq!(store.head(&channel("a")), Ok(1));
    backend.execute("ALTER TABLE hidden RENAME TO messages");
    assert_eq!(append_to(&store, &sink, message("a", "2")), Ok(Appended::New(2)));
    assert_eq!(store.health(), Health::Up);
    assert_eq!(metrics.store_up.get(), 1);
    assert_eq!(sink.seqs("a"), [1, 2]);
    assert_eq!(backend.number("SELECT count(*) FROM messages"), 2);
}

fn vanished_file(backend: &Backend) {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    let elsewhere = path.with_extension("moved");
    std::fs::rename(path, &elsewhere).unwrap();
    unavailable(&store, &Discard, 2);
    assert!(matches!(store.add_contact("ann", "bob"), Err(StoreError::Unavailable(_))));
    assert!(is_down(&store));
    assert!(!path.exists(), "nobody makes an empty database of that name");
    std::fs::rename(&elsewhere, path).unwrap();
    await_up(&store);
    assert_eq!(append(&store, message("a", "2")), Ok(Appended::New(2)));
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
    assert_eq!(metrics.store_up.get(), 0);
    cluster.run();
    await_up(&store);
    assert_eq!(append_to(&store, &sink, message("a", "2")), Ok(Appended::New(2)));
    assert_eq!(store.head(&channel("a")), Ok(2));
    assert_eq!(metrics.store_up.get(), 1);
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
    let seen = sink.seen.lock().unwrap();
    assert_eq!(&*seen[2].data, "lost");
    assert_eq!(seen[2].info.as_ref().map(|info| &*info.user), Some("ann"));
}
