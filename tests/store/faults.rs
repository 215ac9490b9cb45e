//! Whose fault a failure is: only a message that is known to be bad is refused for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::RunQueryDsl;
use diesel::connection::SimpleConnection;
use roomcast::AppendError;
use roomcast::internals::{Appended, Health, Store};

use crate::Check;
use crate::pooler::Pooler;
use crate::postgres::Cluster;
use crate::temp::PATIENCE;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[("a number that is taken is not the message's fault", taken_number)];

fn is_down(store: &Store) -> bool {
    matches!(store.health(), Health::Down { .. })
}

fn taken_number(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 3);
    append(&store, message("b", "1")).unwrap();
    backend.execute("UPDATE rooms SET head_seq = 1 WHERE name = 'a'");
    let results = store.append(vec![message("a", "x"), message("b", "x")], &discard());
    assert_eq!(results, [Err(AppendError::Unavailable), Ok(Appended::New(2))]);
    assert!(is_down(&store), "the operator has to know");
    backend.execute("UPDATE rooms SET head_seq = 3 WHERE name = 'a'");
    assert_eq!(append(&store, message("a", "4")), Ok(Appended::New(4)));
    await_up(&store);
}

/// The sequence was not moved when rows were copied in by hand.
pub(crate) fn a_primary_key_is_not_the_messages(cluster: &Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let store = backend.open();
    fill(&store, "a", 20);
    backend.execute("SELECT setval('messages_id_seq', 1, false)");
    assert_eq!(append(&store, message("a", "x")), Err(AppendError::Unavailable));
    assert!(is_down(&store));
    backend.execute("SELECT setval('messages_id_seq', 100)");
    assert_eq!(append(&store, message("a", "21")), Ok(Appended::New(21)));
}

/// An index of the operator's cannot take a value, which PostgreSQL tells by a code that diesel hides.
pub(crate) fn a_value_that_an_index_cannot_take_is_the_messages(cluster: &Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let store = backend.open();
    append(&store, message("a", "{}")).unwrap();
    backend.execute("CREATE INDEX by_kind ON messages ((data::jsonb ->> 'kind'))");
    let sent = vec![message("a", "{}"), message("a", r#"{"kind":"\u0000"}"#), message("b", "{}")];
    // What takes too long is not judged, which a busy machine may need more than once.
    let give_up_at = Instant::now() + PATIENCE;
    let results = loop {
        await_up(&store);
        let results = store.append(sent.clone(), &discard());
        if results.iter().all(|result| *result != Err(AppendError::Unavailable)) {
            break results;
        }
        assert!(Instant::now() < give_up_at, "{results:?}");
    };
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(AppendError::Rejected(_))), "{results:?}");
    assert_eq!(store.health(), Health::Up, "nobody brings health down by what he writes");
    // The trials of a store that is down are rows for that index, too.
    backend.execute("ALTER TABLE messages RENAME TO hidden");
    assert_eq!(append(&store, message("a", "{}")), Err(AppendError::Unavailable));
    backend.execute("ALTER TABLE hidden RENAME TO messages");
    await_up(&store);
}

/// Another session holds the row of one room.
pub(crate) fn a_locked_room_fails_alone(cluster: &Cluster) {
    for options in ["", "&options=-clock_timeout%3D1000", "&options=-cstatement_timeout%3D300"] {
        let backend = Backend::Postgres(cluster.database() + options);
        let mut config = backend.config();
        config.commit_lanes = 1;
        let store = Store::open(&config, Default::default()).unwrap();
        let results = |results: Vec<_>| results.into_iter().map(|result: Result<_, _>| result.ok());
        assert!(
            results(store.append(vec![message("A", "1"), message("B", "1")], &discard()))
                .all(|r| r.is_some())
        );
        let mut other = backend.postgres();
        other.batch_execute("BEGIN; SELECT * FROM rooms WHERE name = 'A' FOR UPDATE").unwrap();
        let began = Instant::now();
        let sent = ["B", "A", "B", "A"].map(|room| message(room, "2")).into();
        let results = store.append(sent, &discard());
        assert!(began.elapsed() < Duration::from_secs(4), "{options}: {:?}", began.elapsed());
        let unavailable = Err(AppendError::Unavailable);
        let stored = |seq| Ok(Appended::New(seq));
        assert_eq!(results, [stored(2), unavailable.clone(), stored(3), unavailable], "{options}");
        assert!(is_down(&store));
        drop(other);
        await_up(&store);
        assert_eq!(append(&store, message("A", "2")), Ok(Appended::New(2)));
    }
}

/// Another session holds a table that some calls need. The server's own trials, and the others, are no reason to say that
/// all is well.
pub(crate) fn a_locked_table_is_one_outage(cluster: &Cluster) {
    type Call = fn(&Store) -> bool;
    let history: Call = |store| store.history(&channel("a"), all(), KEEP_ALL).is_ok();
    let contacts: Call = |store| store.contacts("ann", "", 10).is_ok();
    let add_contact: Call = |store| store.add_contact("ann", "bob").is_ok();
    let members: Call = |store| store.role(&channel("a"), "ann").is_ok();
    let read: Call = |store| store.head(&channel("a")).is_ok();
    let cases = [
        ("messages", "ACCESS EXCLUSIVE", history, read),
        ("contacts", "ACCESS EXCLUSIVE", contacts, read),
        ("members", "ACCESS EXCLUSIVE", members, read),
        ("contacts", "SHARE", add_contact, contacts),
    ];
    in_threads(cases.len(), |number| {
        let (table, mode, needs_it, does_not) = cases[number];
        let backend = Backend::Postgres(cluster.database());
        let metrics = Default::default();
        let store = Store::open(&backend.config(), Arc::clone(&metrics)).unwrap();
        append(&store, message("a", "1")).unwrap();
        let since = |store: &Store| match store.health() {
            Health::Down { since_ms, .. } => since_ms,
            Health::Up => panic!("{table} is locked in mode {mode}, and all is well"),
        };
        let mut other = backend.postgres();
        other.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN {mode} MODE")).unwrap();
        assert!(!needs_it(&store));
        let began = (since(&store), Instant::now());
        // Longer than a failure counts that is not seen again.
        while began.1.elapsed() < Duration::from_secs(8) {
            assert!(does_not(&store), "{table}");
            assert_eq!(since(&store), began.0, "one outage, however long it lasts");
            assert!(!is_up(&metrics));
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!needs_it(&store));
        assert_eq!(since(&store), began.0);
        drop(other);
        await_up(&store);
        assert!(needs_it(&store) && is_up(&metrics));
    });
}

/// A server that takes no writes any more keeps its connections; new ones may lead to another.
pub(crate) fn a_demoted_server_is_left(cluster: &Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let store = backend.open();
    append(&store, message("a", "1")).unwrap();
    let writers = || -> Vec<i32> {
        let pids = diesel::dsl::sql::<diesel::sql_types::Integer>(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'roomcast' \
             AND datname = current_database() AND query IN ('COMMIT', 'ROLLBACK')",
        );
        pids.load(&mut backend.postgres()).unwrap()
    };
    let before = writers();
    assert!(!before.is_empty());
    backend.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    backend.execute("SELECT pg_reload_conf()");
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while append(&store, message("a", "2")).is_ok() {
        assert!(Instant::now() < give_up_at, "it goes on writing");
    }
    assert_eq!(append(&store, message("a", "2")), Err(AppendError::Unavailable));
    assert!(is_down(&store));
    let after = writers();
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    backend.execute("ALTER SYSTEM RESET default_transaction_read_only");
    backend.execute("SELECT pg_reload_conf()");
    await_up(&store);
    assert!(append(&store, message("a", "3")).is_ok());
}

/// Prepared statements, settings and locks would be another connection's.
pub(crate) fn sessions_that_are_shared_are_refused(cluster: &Cluster) {
    for pool_mode in ["transaction", "statement"] {
        let pooler = Pooler::start(cluster, pool_mode);
        let refused = Backend::Postgres(pooler.url(cluster, &cluster.database())).refusal();
        assert!(refused.contains("pool_mode = session"), "{pool_mode}: {refused}");
    }
}

/// Behind a pooler that gives each connection a session of its own all is as without it, also while the server is away.
pub(crate) fn a_pooler_of_sessions_is_no_difference(cluster: &mut Cluster) {
    let pooler = Pooler::start(cluster, "session");
    let backend = Backend::Postgres(pooler.url(cluster, &cluster.database()));
    let store = backend.open();
    fill(&store, "a", 3);
    assert_eq!(history(&store, "a", all(), KEEP_ALL), [1, 2, 3]);
    cluster.crash();
    let began = Instant::now();
    assert_eq!(append(&store, message("a", "x")), Err(AppendError::Unavailable));
    assert!(store.head(&channel("a")).is_err());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(is_down(&store));
    cluster.run();
    await_up(&store);
    assert_eq!(append(&store, message("a", "4")), Ok(Appended::New(4)));
    assert!(store.add_contact("ann", "bob").is_ok());
    drop(store);
    assert_eq!(append(&backend.open(), message("a", "5")), Ok(Appended::New(5)));
}
