//! The words the store's tests are written in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl, SqliteConnection};
use roomcast::config::{Database, DatabaseUrl, Durability, Failover};
use roomcast::internals::{
    Appended, CommitSink, Health, HistoryLimit, HistoryQuery, NewMessage, READER_STACK_BYTES, Retention,
    Store,
};
use roomcast::{AppendError, Channel, ClientInfo, Metrics, Publication, Seq};

/// An empty database that can be opened several times.
#[derive(Debug)]
pub(crate) enum Backend {
    Sqlite(PathBuf),
    Postgres(String),
}

/// A directory for SQLite files, removed at the end.
#[derive(Debug)]
pub(crate) struct SqliteDirectory(PathBuf);

impl SqliteDirectory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("roomcast-sqlite-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    pub(crate) fn fresh(&self) -> Backend {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Backend::Sqlite(self.0.join(format!("{}.db", NEXT.fetch_add(1, Ordering::Relaxed))))
    }
}

impl Drop for SqliteDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Backend {
    pub(crate) fn config(&self) -> Database {
        let url = match self {
            Self::Sqlite(path) => DatabaseUrl::Sqlite(path.clone()),
            Self::Postgres(url) => DatabaseUrl::Postgres(url.clone()),
        };
        Database {
            url,
            durability: Durability::Full,
            read_connections: 4,
            commit_lanes: 3,
            batch_rows_max: 64,
            batch_bytes_max: 1024 * 1024,
            failover: Failover::Lossy,
        }
    }

    pub(crate) fn open(&self) -> Store {
        self.open_measured(Arc::new(Metrics::new()))
    }

    /// Two stores, as two servers have them. A SQLite file has one server: there it is the same store.
    pub(crate) fn open_twice(&self) -> [Arc<Store>; 2] {
        let first = Arc::new(self.open());
        match self {
            Self::Sqlite(_) => [Arc::clone(&first), first],
            Self::Postgres(_) => [first, Arc::new(self.open())],
        }
    }

    /// The refusal to open it.
    pub(crate) fn refusal(&self) -> String {
        let refused = Store::open(&self.config(), Arc::new(Metrics::new()));
        refused.expect_err("it is refused").to_string()
    }

    pub(crate) fn open_measured(&self, metrics: Arc<Metrics>) -> Store {
        Store::open(&self.config(), metrics).unwrap()
    }

    /// Runs SQL beside the store, on a connection of its own.
    pub(crate) fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(_) => self.sqlite().batch_execute(sql).unwrap(),
            Self::Postgres(_) => self.postgres().batch_execute(sql).unwrap(),
        }
    }

    /// The one number that a query answers.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let query = diesel::dsl::sql::<diesel::sql_types::BigInt>(sql);
        match self {
            Self::Sqlite(_) => query.get_result(&mut self.sqlite()).unwrap(),
            Self::Postgres(_) => query.get_result(&mut self.postgres()).unwrap(),
        }
    }

    pub(crate) fn sqlite(&self) -> SqliteConnection {
        let Self::Sqlite(path) = self else { panic!("not SQLite") };
        let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        connection
    }

    pub(crate) fn postgres(&self) -> PgConnection {
        let Self::Postgres(url) = self else { panic!("not PostgreSQL") };
        PgConnection::establish(url).unwrap()
    }
}

pub(crate) const KEEP_ALL: Retention = Retention { size: 0, ttl: None };

pub(crate) fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

/// A message of the server API.
pub(crate) fn message(room: &str, data: &str) -> NewMessage {
    NewMessage {
        channel: channel(room),
        auto_create: true,
        data: data.into(),
        info: None,
        tags: None,
        key: None,
    }
}

/// A message of a client.
pub(crate) fn message_of(user: &str, room: &str, data: &str) -> NewMessage {
    let info = ClientInfo { user: user.into(), client: "c1".into(), conn_info: None, chan_info: None };
    NewMessage { info: Some(Arc::new(info)), ..message(room, data) }
}

pub(crate) fn keyed(message: NewMessage, key: &str) -> NewMessage {
    NewMessage { key: Some(key.into()), ..message }
}

/// A sink for tests that only store.
pub(crate) struct Discard;

impl CommitSink for Discard {
    fn committed<'a>(&'a self, _: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        None
    }

    fn forked(&self, _: &Arc<str>) {}
}

pub(crate) fn discard() -> Arc<Discard> {
    Arc::new(Discard)
}

/// True while every part of the store is up.
pub(crate) fn is_up(metrics: &Metrics) -> bool {
    let text = metrics.render();
    let mut states = text.lines().filter(|line| line.starts_with("roomcast_store_up{"));
    states.all(|line| line.ends_with(" 1"))
}

/// Stores one message.
pub(crate) fn append(store: &Store, message: NewMessage) -> Result<Appended, AppendError> {
    append_to(store, &discard(), message)
}

/// Stores one message and passes it to the sink.
pub(crate) fn append_to<S: CommitSink + 'static>(
    store: &Store,
    sink: &Arc<S>,
    message: NewMessage,
) -> Result<Appended, AppendError> {
    let mut results = store.append(vec![message], sink);
    assert_eq!(results.len(), 1);
    results.remove(0)
}

/// Stores `1`, `2`, … up to `count` in a room, in one submission.
pub(crate) fn fill(store: &Store, room: &str, count: usize) {
    let messages = (1..=count).map(|number| message(room, &number.to_string())).collect();
    for result in store.append(messages, &discard()) {
        result.unwrap();
    }
}

pub(crate) fn seqs(publications: &[Publication]) -> Vec<Seq> {
    publications.iter().map(|publication| publication.seq).collect()
}

/// The numbers a history command answers with.
pub(crate) fn history(store: &Store, room: &str, query: HistoryQuery, retention: Retention) -> Vec<Seq> {
    seqs(&store.history(&channel(room), query, retention).unwrap().publications)
}

/// Asks for the store's health until it is up.
pub(crate) fn await_up(store: &Store) {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while store.health() != Health::Up {
        assert!(Instant::now() < give_up_at, "it did not heal: {:?}", store.health());
        thread::yield_now();
    }
}

pub(crate) fn all() -> HistoryQuery {
    HistoryQuery { since: None, limit: HistoryLimit::All, reverse: false }
}

/// Runs `work` in so many threads with the stack of a reader thread; gives each its number.
pub(crate) fn in_threads(count: usize, work: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        let work = &work;
        for number in 0..count {
            thread::Builder::new()
                .stack_size(READER_STACK_BYTES)
                .spawn_scoped(scope, move || work(number))
                .unwrap();
        }
    });
}
