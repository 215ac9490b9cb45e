//! Histories that fork: an older state is put back, or a copy takes over for the database.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use roomcast::config::{Database, Durability, Failover};
use roomcast::internals::{Appended, CommitSink, Health, HistoryLimit, HistoryQuery, Store};
use roomcast::{Metrics, Publication, Seq};

use crate::Check;
use crate::postgres::Cluster;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("time does not run backwards within a room", time_goes_on),
    ("numbers that are given twice begin another history", numbers_given_twice),
    ("an epoch that was changed by hand is another history", changed_epoch),
    ("an older state is noticed while nobody uses it", unused),
];

pub(crate) const SQLITE_CHECKS: &[Check] = &[
    ("an older file that was put back is noticed", older_file),
    ("the mark follows the last message", mark_follows),
    ("without its mark a database is what it says it is", lost_mark),
    ("commits that were not synced are doubted when the system went down", system_went_down),
];

/// What a sink was told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Committed(Seq, i64),
    Forked(String),
}

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Journal(Mutex<Vec<Told>>);

impl CommitSink for Journal {
    fn committed<'a>(&'a self, batch: Vec<Publication>, _: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        let told =
            batch.iter().map(|publication| Told::Committed(publication.seq, publication.created_at_ms));
        self.0.lock().unwrap().extend(told);
        None
    }

    fn forked(&self, epoch: &Arc<str>) {
        self.0.lock().unwrap().push(Told::Forked(epoch.to_string()));
    }
}

impl Journal {
    /// The journal of a store from now on.
    fn of(store: &Store) -> Arc<Self> {
        let journal = Arc::new(Self::default());
        let weak: Weak<Self> = Arc::downgrade(&journal);
        store.tell(weak);
        journal
    }

    fn append(self: &Arc<Self>, store: &Store, room: &str) -> Seq {
        let deadline = Instant::now() + crate::temp::PATIENCE;
        loop {
            match append_to(store, self, message_of("ann", room, "1")) {
                Ok(appended) => return appended.seq(),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    fn await_fork(&self, store: &Store, before: &str) {
        let deadline = Instant::now() + crate::temp::PATIENCE;
        // The name changes a moment before it is told.
        while *store.epoch() == *before || self.forks().0.last().map(String::as_str) != Some(&*store.epoch())
        {
            assert!(Instant::now() < deadline, "no fork is told");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The epochs that were told, and how many messages came behind the last of them.
    fn forks(&self) -> (Vec<String>, usize) {
        let told = self.0.lock().unwrap();
        let epochs = told.iter().filter_map(|told| match told {
            Told::Forked(epoch) => Some(epoch.clone()),
            Told::Committed(..) => None,
        });
        let behind = told.iter().rev().take_while(|told| matches!(told, Told::Committed(..))).count();
        (epochs.collect(), behind)
    }
}

fn time_goes_on(backend: &Backend) {
    let hour = 3_600_000;
    let store = backend.open();
    fill(&store, "ahead", 2);
    fill(&store, "usual", 2);
    backend.execute(&format!("UPDATE messages SET created_at = created_at + {hour} WHERE room_id = 1"));
    backend.execute(&format!("UPDATE rooms SET last_active_at = last_active_at + {hour} WHERE id = 1"));
    let ahead = backend.number("SELECT max(created_at) FROM messages WHERE room_id = 1");
    drop(store);
    let store = backend.open();
    let journal = Arc::new(Journal::default());
    let batch = ["ahead", "usual", "new"].map(|room| message(room, "3")).to_vec();
    assert!(store.append(batch, &journal).iter().all(Result::is_ok));
    let told = journal.0.lock().unwrap().clone();
    assert!(told.contains(&Told::Committed(3, ahead)), "{told:?}");
    assert!(told.iter().filter(|told| matches!(told, Told::Committed(_, at) if *at < ahead)).count() == 2);
    let backwards = "SELECT count(*) FROM messages a JOIN messages b ON a.room_id = b.room_id \
                     WHERE a.seq < b.seq AND a.created_at > b.created_at";
    assert_eq!(backend.number(backwards), 0);
    let kept = "SELECT count(*) FROM messages WHERE seq = 3 AND created_at = ";
    assert_eq!(backend.number(&format!("{kept}{ahead}")), 1, "the row has the time that was told");
    assert_eq!(backend.number("SELECT last_active_at FROM rooms WHERE id = 1"), ahead);
}

fn numbers_given_twice(backend: &Backend) {
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(metrics.clone());
    let journal = Journal::of(&store);
    (1..=10).for_each(|seq| assert_eq!(journal.append(&store, "a"), seq));
    let before = store.epoch();
    assert_eq!(store.last_fork(), None);
    backend.execute("DELETE FROM messages WHERE seq > 5; UPDATE rooms SET head_seq = 5; DELETE FROM users");

    assert_eq!(append_to(&store, &journal, message_of("ann", "a", "new")), Ok(Appended::New(6)));
    let after = store.epoch();
    assert_ne!(after, before);
    assert_eq!(journal.forks(), (vec![after.to_string()], 1), "told before the message is passed on");
    assert_eq!(
        backend.number("SELECT count(*) FROM users WHERE id = 'ann'"),
        1,
        "who is known is asked anew"
    );
    assert_eq!(journal.append(&store, "a"), 7);
    assert_eq!(journal.forks(), (vec![after.to_string()], 2), "one fork is told once");
    assert_eq!(metrics.history_forks_total.get(), 1);
    assert!(store.last_fork().is_some_and(|fork| fork.at_ms > 0 && !fork.reason.is_empty()));
    assert_eq!(store.health(), Health::Up);
    assert_eq!(read_epoch(&store), (after.to_string(), vec![1, 2, 3, 4, 5, 6, 7]));
    drop(store);
    assert_eq!(backend.open().epoch(), after, "the database has the new name");
}

fn changed_epoch(backend: &Backend) {
    let store = backend.open();
    let journal = Journal::of(&store);
    journal.append(&store, "a");
    let before = store.epoch();
    backend.execute("UPDATE meta SET value = 'abcdefghijkl' WHERE name = 'epoch'");
    drop(store);
    assert_ne!(backend.open().epoch(), before);
}

/// Every connection goes on, as under `.restore` of the shell of SQLite.
fn unused(backend: &Backend) {
    // One connection reads, and is open: whoever opens another one notices at once.
    let config = Database { read_connections: 1, ..backend.config() };
    let store = Store::open(&config, Arc::new(Metrics::new())).unwrap();
    let journal = Journal::of(&store);
    (1..=10).for_each(|seq| assert_eq!(journal.append(&store, "a"), seq));
    let before = store.epoch();
    assert_eq!(read_epoch(&store).1.len(), 10);
    backend.execute("DELETE FROM messages WHERE seq > 5; UPDATE rooms SET head_seq = 5");
    journal.await_fork(&store, &before);
    let again = store.epoch();
    backend.execute("UPDATE meta SET value = 'abcdefghijkl' WHERE name = 'epoch'");
    journal.await_fork(&store, &again);
    assert!(store.epoch().starts_with("abcdefghijkl"));
    assert_eq!(journal.forks(), (vec![again.to_string(), store.epoch().to_string()], 0));
    assert_eq!(journal.append(&store, "a"), 6);
}

/// What reading a room says of the history, and the numbers it has.
fn read_epoch(store: &Store) -> (String, Vec<Seq>) {
    let all = HistoryQuery { since: None, limit: HistoryLimit::All, reverse: false };
    let history = store.history(&channel("a"), all, KEEP_ALL).unwrap();
    (history.epoch.to_string(), seqs(&history.publications))
}

/// Copies a closed database over another.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let part = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        let _ = std::fs::remove_file(part(to));
        if part(from).exists() {
            std::fs::copy(part(from), part(to)).unwrap();
        }
    }
}

fn path(backend: &Backend) -> &Path {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    path
}

fn older_file(backend: &Backend) {
    let path = path(backend);
    let backup = path.with_extension("backup");
    let store = backend.open();
    let epoch = store.epoch();
    fill(&store, "a", 5);
    drop(store);
    copy(path, &backup);
    assert_eq!(backend.open().epoch(), epoch, "nothing is missing");
    let store = backend.open();
    fill(&store, "a", 3);
    drop(store);

    copy(&backup, path);
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(metrics.clone());
    let renewed = store.epoch();
    assert_ne!(renewed, epoch);
    assert!(store.last_fork().is_some() && metrics.history_forks_total.get() == 1);
    fill(&store, "a", 9);
    drop(store);
    assert_eq!(backend.open().epoch(), renewed, "it is said once");
    // Also when it has more messages than were seen of the other.
    copy(&backup, path);
    assert!(![&epoch, &renewed].contains(&&backend.open().epoch()));
}

/// The last message of a second, and silence after it.
fn mark_follows(backend: &Backend) {
    let mark = format!("{}-mark", path(backend).display());
    let store = backend.open();
    for seq in 1..=9 {
        append(&store, message("a", "1")).unwrap();
        if seq % 3 > 0 {
            continue;
        }
        let deadline = Instant::now() + crate::temp::PATIENCE;
        while !std::fs::read_to_string(&mark).unwrap().ends_with(&format!(" {seq} a\n")) {
            assert!(Instant::now() < deadline, "the mark stays behind {seq}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn lost_mark(backend: &Backend) {
    let store = backend.open();
    let epoch = store.epoch();
    fill(&store, "a", 5);
    drop(store);
    let mark = format!("{}-mark", path(backend).display());
    assert!(std::fs::read_to_string(&mark).unwrap().ends_with(" 5 a\n"));
    for damage in [None, Some(""), Some("nonsense\n")] {
        match damage {
            None => std::fs::remove_file(&mark).unwrap(),
            Some(text) => std::fs::write(&mark, text).unwrap(),
        }
        assert_eq!(backend.open().epoch(), epoch, "{damage:?}");
    }
}

/// With `normal` the disk may hold less than was committed, and a mark that is as old as that.
fn system_went_down(backend: &Backend) {
    let Backend::Sqlite(path) = backend else { panic!("SQLite only") };
    let mark = format!("{}-mark", path.display());
    let open = |durability| {
        let config = Database { durability, ..backend.config() };
        Store::open(&config, Arc::new(Metrics::new())).unwrap()
    };
    let store = open(Durability::Normal);
    let epoch = store.epoch();
    fill(&store, "a", 5);
    let running = std::fs::read_to_string(&mark).unwrap();
    let (_, this_run) = running.split_once("\nunsynced ").expect("a line about this run of the system");
    let this_run = this_run.to_owned();
    drop(store);
    let stopped = std::fs::read_to_string(&mark).unwrap();
    assert!(stopped.ends_with(" 5 a\n"), "all is on the disk: {stopped}");
    // As a server leaves it that was killed.
    std::fs::write(&mark, format!("{stopped}unsynced {this_run}")).unwrap();
    assert_eq!(open(Durability::Full).epoch(), epoch, "the system has not gone down");
    std::fs::write(&mark, format!("{stopped}unsynced another-run\n")).unwrap();
    let store = open(Durability::Full);
    let renewed = store.epoch();
    assert_ne!(renewed, epoch);
    assert!(store.last_fork().is_some_and(|fork| fork.reason.contains("the system went down")));
    assert!(!std::fs::read_to_string(&mark).unwrap().contains("unsynced"));
    drop(store);
    assert_eq!(open(Durability::Normal).epoch(), renewed, "it is said once");
}

fn config_with(backend: &Backend, failover: Failover) -> Database {
    Database { failover, ..backend.config() }
}

/// The database is replaced by an older copy of itself, which only what was committed can tell from it.
pub(crate) fn a_copy_that_is_behind_takes_over(cluster: &mut Cluster) {
    let backend = Backend::Postgres(cluster.database());
    for failover in [Failover::Lossy, Failover::Lossless] {
        let store = Store::open(&config_with(&backend, failover), Arc::new(Metrics::new())).unwrap();
        let journal = Journal::of(&store);
        while journal.append(&store, "a") < 5 {}
        cluster.save();
        journal.append(&store, "a");
        assert_eq!(journal.forks().0, [""; 0], "a restart is no fork");
        let first = store.epoch().to_string();

        // Whoever opens the next connection notices: a reader,
        cluster.go_back();
        await_read(&store);
        let (second, seqs) = read_epoch(&store);
        assert_ne!(second, first);
        assert_eq!(seqs.last(), Some(&5));
        assert_eq!(journal.forks().0, std::slice::from_ref(&second));
        assert_eq!(journal.append(&store, "a"), 6);
        // or a writer.
        cluster.go_back();
        assert_eq!(journal.append(&store, "a"), 6);
        let third = store.epoch().to_string();
        assert!(![&first, &second].contains(&&third));
        assert_eq!(journal.forks(), (vec![second, third], 1));
        backend.execute("DELETE FROM messages; DELETE FROM rooms");
    }
}

/// Waits until the database answers a read.
fn await_read(store: &Store) {
    let deadline = Instant::now() + crate::temp::PATIENCE;
    while store.head(&channel("a")).is_err() {
        assert!(Instant::now() < deadline, "the database does not come back");
    }
}

/// A copy is promoted that lacks nothing: only the timeline tells.
pub(crate) fn a_promoted_copy_has_another_timeline(cluster: &mut Cluster) {
    let backend = Backend::Postgres(cluster.database());
    let open = |failover| Store::open(&config_with(&backend, failover), Arc::new(Metrics::new())).unwrap();
    let (lossy, lossless) = (open(Failover::Lossy), open(Failover::Lossless));
    let journals = (Journal::of(&lossy), Journal::of(&lossless));
    let epochs = (lossy.epoch(), lossless.epoch());
    assert_ne!(epochs.0, epochs.1);
    journals.0.append(&lossy, "a");
    journals.1.append(&lossless, "b");
    cluster.promote();
    assert_eq!(journals.0.append(&lossy, "a"), 2);
    assert_eq!(journals.1.append(&lossless, "b"), 2);
    assert_ne!(lossy.epoch(), epochs.0);
    assert!(lossy.last_fork().unwrap().reason.contains("timeline"), "{:?}", lossy.last_fork());
    assert_eq!(journals.0.forks().0.len(), 1);
    assert_eq!((lossless.epoch(), lossless.last_fork()), (epochs.1, None));
}

/// An ordinary role is told where the rows come from; without the right to ask the database's own epoch is left.
pub(crate) fn a_role_without_rights_knows_the_epoch_of_the_database(cluster: &Cluster) {
    let url = cluster.database();
    let owner = Backend::Postgres(url.clone());
    owner.execute("CREATE ROLE plain LOGIN; GRANT ALL ON SCHEMA public TO plain");
    let plain = Backend::Postgres(url.replace("postgres@", "plain@"));
    let store = plain.open();
    let full = store.epoch();
    let own = owner.number("SELECT length(value)::bigint FROM meta WHERE name = 'epoch'");
    assert_eq!(full.len() as i64, own + 8);
    append(&store, message("a", "1")).unwrap();
    drop(store);
    owner.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    let store = plain.open();
    assert!(full.starts_with(&*store.epoch()) && store.epoch().len() as i64 == own);
    assert_eq!(append(&store, message("a", "2")), Ok(Appended::New(2)));
}
