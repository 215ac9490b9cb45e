//! A store that does not answer: every caller is answered all the same, soon, and what was under way is not lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{PgConnection, RunQueryDsl, SqliteConnection};
use roomcast::internals::{Appended, Health, Store, StoreError};
use roomcast::{AppendError, Metrics};

use crate::Check;
use crate::handoff::Collector;
use crate::in_time::in_time;
use crate::postgres::Cluster;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("a locked database answers everybody in time", locked),
    ("rows that wait behind a commit that waits are answered in time", queue_behind_a_lock),
    ("a large submission to a locked database is answered in time", large_behind_a_lock),
];

/// Holds what commits need, as long as the value lives.
enum Lock {
    Sqlite(#[allow(dead_code, reason = "held")] SqliteConnection),
    Postgres(#[allow(dead_code, reason = "held")] PgConnection),
}

impl Lock {
    fn take(backend: &Backend) -> Self {
        match backend {
            Backend::Sqlite(_) => {
                let mut connection = backend.sqlite();
                connection.batch_execute("BEGIN IMMEDIATE").unwrap();
                Self::Sqlite(connection)
            }
            Backend::Postgres(_) => {
                let mut connection = backend.postgres();
                let lock = "BEGIN; LOCK TABLE messages, users IN ACCESS EXCLUSIVE MODE";
                connection.batch_execute(lock).unwrap();
                Self::Postgres(connection)
            }
        }
    }
}

fn is_down(store: &Store) -> bool {
    matches!(store.health(), Health::Down { .. })
}

fn locked(backend: &Backend) {
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(metrics.clone());
    append(&store, message("a", "1")).unwrap();
    let lock = Lock::take(backend);
    let refused = in_time(|| append(&store, message_of("ann", "a", "2")));
    assert_eq!(refused, Err(AppendError::Unavailable));
    assert!(is_down(&store) && !is_up(&metrics));
    assert!(in_time(|| store.add_contact("ann", "bob")).is_err());
    let page = in_time(|| store.history(&channel("a"), all(), KEEP_ALL));
    assert_eq!(page.is_ok(), matches!(backend, Backend::Sqlite(_)), "readers of SQLite wait for no writer");
    drop(lock);
    await_up(&store);
    assert_eq!(append(&store, message("a", "2")), Ok(Appended::New(2)));
    assert!(store.add_contact("ann", "bob").is_ok());
}

fn queue_behind_a_lock(backend: &Backend) {
    let store = backend.open();
    append(&store, message("a", "0")).unwrap();
    let lock = Lock::take(backend);
    in_threads(12, |_| {
        for _ in 0..2 {
            assert_eq!(in_time(|| append(&store, message("a", "1"))), Err(AppendError::Unavailable));
        }
    });
    drop(lock);
    await_up(&store);
    assert_eq!(append(&store, message("a", "2")), Ok(Appended::New(2)));
}

/// Many turns of one caller, and others beside it: nobody waits longer because there are more rows.
fn large_behind_a_lock(backend: &Backend) {
    const ROOMS: usize = 3000;
    let store = backend.open();
    append(&store, message("a", "0")).unwrap();
    let to_many = || (0..ROOMS).map(|room| message(&format!("room-{room}"), "1")).collect();
    let lock = Lock::take(backend);
    in_threads(6, |thread| match thread {
        0 | 1 => {
            let answers = in_time(|| store.append(to_many(), &discard()));
            assert_eq!(answers, vec![Err(AppendError::Unavailable); ROOMS]);
        }
        _ => {
            for _ in 0..2 {
                assert_eq!(in_time(|| append(&store, message("a", "1"))), Err(AppendError::Unavailable));
            }
        }
    });
    drop(lock);
    await_up(&store);
    assert!(store.append(to_many(), &discard()).iter().all(Result::is_ok));
    assert_eq!(backend.number("SELECT count(*) FROM messages"), ROOMS as i64 + 1, "nothing was stored late");
}

/// The commit waits for a standby that is not there, which no timeout of a statement ends; its outcome is unknown to
/// those who were answered, and told when they ask again.
pub(crate) fn a_commit_that_hangs_is_not_lost(cluster: &Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let store = backend.open();
    let sink = Collector::new();
    append_to(&store, &sink, message("a", "1")).unwrap();
    backend.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    backend.execute("SELECT pg_reload_conf()");
    await_setting(&backend, "synchronous_standby_names", "nobody");
    let keyed = |number: u64| keyed(message_of("ann", "a", &number.to_string()), &number.to_string());
    // The server takes a moment until it waits.
    let hanging = (2..).find(|number| {
        let appended = in_time(|| append_to(&store, &sink, keyed(*number)));
        appended.is_err_and(|error| error == AppendError::Unavailable)
    });
    let hanging = hanging.unwrap();
    assert!(is_down(&store), "an operation hangs");
    assert_eq!(in_time(|| append_to(&store, &sink, message("a", "lost"))), Err(AppendError::Unavailable));
    assert_eq!(sink.seqs("a").len() as u64, hanging - 1, "nobody gets what is not durable");
    backend.execute("ALTER SYSTEM RESET synchronous_standby_names");
    backend.execute("SELECT pg_reload_conf()");
    await_up(&store);
    assert_eq!(append_to(&store, &sink, keyed(hanging)), Ok(Appended::Duplicate(hanging)));
    assert_eq!(append_to(&store, &sink, message("a", "last")), Ok(Appended::New(hanging + 1)));
    assert_eq!(sink.seqs("a"), (1..=hanging + 1).collect::<Vec<_>>(), "each once");
    assert_eq!(
        backend.number("SELECT count(*) FROM messages"),
        hanging as i64 + 1,
        "what was not begun is not stored"
    );
}

fn await_setting(backend: &Backend, name: &str, value: &str) {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    let query = format!("SELECT count(*) FROM pg_settings WHERE name = '{name}' AND setting = '{value}'");
    while backend.number(&query) != 1 {
        assert!(Instant::now() < give_up_at, "{name} is not {value}");
        std::thread::yield_now();
    }
}

/// By a new connection, which takes a moment.
fn eventually_ok<T>(mut work: impl FnMut() -> Result<T, StoreError>) {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while in_time(&mut work).is_err() {
        assert!(Instant::now() < give_up_at, "no new connection works");
    }
}

/// The processes of the server stand still, and its kernel goes on acknowledging what it is sent.
pub(crate) fn a_frozen_server_holds_nobody(cluster: &Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let store = backend.open();
    let sink = Collector::new();
    append_to(&store, &sink, message("a", "1")).unwrap();
    store.head(&channel("a")).unwrap();
    let pids = diesel::dsl::sql::<diesel::sql_types::Integer>(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'roomcast' AND datname = current_database()",
    );
    let pids: Vec<i32> = pids.load(&mut backend.postgres()).unwrap();
    assert!(pids.len() >= 2, "a writer and a reader");
    let signal = |name: &str| {
        let pids = pids.iter().map(i32::to_string);
        let status = std::process::Command::new("kill").arg(name).args(pids).status().unwrap();
        assert!(status.success());
    };
    signal("-STOP");
    assert!(in_time(|| store.head(&channel("a"))).is_err(), "by the frozen connection");
    assert!(is_down(&store));
    eventually_ok(|| store.head(&channel("a")));
    eventually_ok(|| store.add_contact("ann", "bob"));
    let refused = in_time(|| append_to(&store, &sink, keyed(message_of("ann", "a", "2"), "key")));
    assert_eq!(refused, Err(AppendError::Unavailable));
    assert!(is_down(&store));
    signal("-CONT");
    await_up(&store);
    let again = append_to(&store, &sink, keyed(message_of("ann", "a", "2"), "key"));
    assert_eq!(again.map(Appended::seq), Ok(2));
    assert_eq!(sink.seqs("a"), [1, 2]);
}

/// Nobody uses the store, and it notices all the same.
pub(crate) fn an_idle_store_notices_a_dead_server(cluster: &mut Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(metrics.clone());
    append(&store, message("a", "1")).unwrap();
    cluster.crash();
    let began = Instant::now();
    while store.health() == Health::Up {
        assert!(began.elapsed() < Duration::from_secs(10), "it was not noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!is_up(&metrics));
    cluster.run();
    await_up(&store);
    assert!(is_up(&metrics));
}
