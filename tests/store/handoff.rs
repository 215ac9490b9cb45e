//! The hand-off of committed messages: durable first, in order, once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use diesel::{PgConnection, RunQueryDsl, SqliteConnection};
use roomcast::internals::CommitSink;
use roomcast::{Publication, Seq};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("messages are handed off in order, each once, after they are visible", in_order_and_visible),
    ("the hand-off's second half runs before the sender has its answer", second_half_first),
    ("a panicking sink does not stop the lane", panicking_sink),
];

/// A connection of another program, so to say.
enum Outsider {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Outsider {
    fn new(backend: &Backend) -> Self {
        match backend {
            Backend::Sqlite(_) => Self::Sqlite(backend.sqlite()),
            Backend::Postgres(_) => Self::Postgres(backend.postgres()),
        }
    }

    fn head(&mut self, room: &str) -> i64 {
        let query = diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
            "SELECT max(m.seq) FROM messages m JOIN rooms r ON r.id = m.room_id WHERE r.name = '{room}'"
        ));
        match self {
            Self::Sqlite(connection) => query.get_result(connection).unwrap(),
            Self::Postgres(connection) => query.get_result(connection).unwrap(),
        }
    }
}

/// Collects what is handed off. Checks on the way that the last message of a batch can be seen by
/// others.
pub(crate) struct Collector {
    outsider: Option<Mutex<Outsider>>,
    pub(crate) seen: Mutex<Vec<Publication>>,
}

impl Collector {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { outsider: None, seen: Mutex::default() })
    }

    /// What was seen of a room.
    pub(crate) fn seqs(&self, room: &str) -> Vec<Seq> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.channel.as_str() == room).map(|seen| seen.seq).collect()
    }
}

impl CommitSink for Collector {
    fn committed<'a>(&'a self, batch: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        if let (Some(outsider), Some(last)) = (&self.outsider, batch.last()) {
            let visible = outsider.lock().unwrap().head(last.channel.as_str());
            assert!(visible >= last.seq as i64, "handed off before it is visible");
        }
        self.seen.lock().unwrap().extend(batch);
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn in_order_and_visible(backend: &Backend) {
    let store = backend.open();
    let outsider = Some(Mutex::new(Outsider::new(backend)));
    let sink = Arc::new(Collector { outsider, seen: Mutex::default() });
    in_threads(8, |thread| {
        for round in 0..20 {
            let count = 1 + (thread + round) % 5;
            let messages = (0..count).map(|n| message(&format!("r{}", (thread + n) % 6), "1")).collect();
            for result in store.append(messages, &sink) {
                let seq = result.unwrap().seq();
                assert!(seq > 0);
            }
        }
    });
    let mut by_room: BTreeMap<String, Vec<Seq>> = BTreeMap::new();
    for publication in sink.seen.lock().unwrap().iter() {
        by_room.entry(publication.channel.to_string()).or_default().push(publication.seq);
    }
    for (room, handed_off) in by_room {
        let head = store.head(&channel(&room)).unwrap();
        assert_eq!(handed_off, (1..=head).collect::<Vec<_>>(), "{room}");
    }
}

/// Sets a mark in the closure it returns.
#[derive(Default)]
struct TwoHalves {
    second_ran: AtomicBool,
}

impl CommitSink for TwoHalves {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        Some(Box::new(|| self.second_ran.store(true, Ordering::SeqCst)))
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn second_half_first(backend: &Backend) {
    let store = backend.open();
    let sink = Arc::new(TwoHalves::default());
    append_to(&store, &sink, message("a", "1")).unwrap();
    assert!(sink.second_ran.load(Ordering::SeqCst));
}

/// Panics at the first batch.
#[derive(Default)]
struct Clumsy {
    fell: AtomicBool,
}

impl CommitSink for Clumsy {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        assert!(self.fell.swap(true, Ordering::SeqCst), "the first batch falls");
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

fn panicking_sink(backend: &Backend) {
    let store = backend.open();
    let sink = Arc::new(Clumsy::default());
    assert!(append_to(&store, &sink, message("a", "1")).is_err());
    assert_eq!(append_to(&store, &sink, message("a", "2")).unwrap().seq(), 2);
}
