//! Two hosts in the URL, a server and its standby: whichever takes writes is used, and what was acknowledged stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::{Connection, PgConnection};
use roomcast::config::{Database, Failover};
use roomcast::internals::{Appended, Store};
use roomcast::{AppendError, Metrics};

use crate::handoff::Collector;
use crate::postgres::Cluster;
use crate::temp::PATIENCE;
use crate::vocabulary::*;

/// A database of a server that has a standby.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    on_primary: Backend,
    on_standby: Backend,
    store: Store,
}

impl Pair {
    fn new(failover: Failover) -> Self {
        let primary = Cluster::start();
        let standby = primary.standby();
        let url = primary.database();
        let at_standby = url.replace(&format!(":{}/", primary.port()), &format!(":{}/", standby.port()));
        wait_until("the standby has the database", || PgConnection::establish(&at_standby).is_ok());
        let both = Backend::Postgres(primary.or(&standby, &url));
        let store = Store::open(&Database { failover, ..both.config() }, Arc::new(Metrics::new())).unwrap();
        let (on_primary, on_standby) = (Backend::Postgres(url), Backend::Postgres(at_standby));
        let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'messages'";
        wait_until("the standby has the tables", || on_standby.number(tables) == 1);
        Self { primary, standby, on_primary, on_standby, store }
    }

    fn await_standby(&self) {
        let count = "SELECT count(*) FROM messages";
        wait_until("the standby has everything", || {
            self.on_standby.number(count) == self.on_primary.number(count)
        });
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Replication is synchronous, and the operator has said so: the server dies under load, and nobody is told anything.
pub(crate) fn a_standby_that_lacks_nothing_takes_over() {
    let mut pair = Pair::new(Failover::Lossless);
    pair.on_primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    pair.on_primary.execute("SELECT pg_reload_conf()");
    let waits = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
    wait_until("commits wait for the standby", || pair.on_primary.number(waits) == 1);
    let (store, sink) = (&pair.store, Collector::new());
    let epoch = store.epoch();
    let is_over = AtomicBool::new(false);
    let rooms = ["a", "b", "c", "d", "e"];
    let write = |room: &'static str| {
        let mut acked = Vec::new();
        loop {
            let is_last = is_over.load(Ordering::SeqCst);
            match append_to(store, &sink, message(room, "1")) {
                Ok(appended) => acked.push(appended.seq()),
                Err(error) => {
                    assert_eq!(error, AppendError::Unavailable);
                    continue;
                }
            }
            if is_last {
                return (room, acked);
            }
        }
    };
    let acked = thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> = rooms.iter().map(|room| scope.spawn(move || write(room))).collect();
        wait_until("there is load", || sink.seen.lock().unwrap().len() > 200);
        pair.primary.crash();
        pair.standby.take_over();
        is_over.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    await_up(store);
    assert_eq!((store.epoch(), store.last_fork()), (epoch, None));
    for (room, acked) in acked {
        let head = store.head(&channel(room)).unwrap();
        assert!(acked.is_sorted() && acked.last() <= Some(&head), "{room}: {acked:?}, {head}");
        let stored = "SELECT count(*) FROM messages m JOIN rooms r ON r.id = m.room_id WHERE r.name =";
        assert_eq!(pair.on_standby.number(&format!("{stored} '{room}'")), head as i64);
        assert_eq!(sink.seqs(room), (1..=head).collect::<Vec<_>>(), "heard in order, each once");
    }
}

/// The first of two servers takes no writes any more and keeps its connections; the other one takes them.
pub(crate) fn a_demoted_server_is_left_for_the_other() {
    let pair = Pair::new(Failover::Lossy);
    let store = &pair.store;
    let epoch = store.epoch();
    fill(store, "a", 3);
    fill(store, "b", 3);
    assert_eq!(history(store, "a", all(), KEEP_ALL), [1, 2, 3]);
    pair.await_standby();
    pair.standby.take_over();
    pair.on_primary.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    pair.on_primary.execute("SELECT pg_reload_conf()");
    let setting =
        "SELECT count(*) FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting = 'on'";
    wait_until("the server takes no writes", || pair.on_primary.number(setting) == 1);
    for room in ["a", "b"] {
        let first = append(store, message(room, "4"));
        let stored = first.or_else(|_| append(store, message(room, "4")));
        assert_eq!(stored, Ok(Appended::New(4)), "the second at the latest");
    }
    assert!(store.add_contact("ann", "bob").is_ok());
    assert_eq!(history(store, "a", all(), KEEP_ALL), [1, 2, 3, 4]);
    assert_eq!(pair.on_standby.number("SELECT count(*) FROM messages WHERE seq = 4"), 2);
    assert_eq!(pair.on_standby.number("SELECT count(*) FROM contacts WHERE user_id = 'ann'"), 1);
    assert_eq!(pair.on_primary.number("SELECT count(*) FROM messages WHERE seq = 4"), 0);
    await_up(store);
    assert_ne!(store.epoch(), epoch, "it has another timeline");
}
