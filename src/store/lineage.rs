//! Whether the database still holds the history that it held before.
//!
//! A copy that is behind may take over for a database, and an older state may be put back: then numbers are
//! given twice, and rows that were read are gone. Each new connection, and one every few seconds, is asked for its
//! [`Origin`] and for the newest commit of each lane. When one differs or is missing, the history has forked: it gets another epoch,
//! connections that were opened before are replaced, and the [`CommitSink`] is told. Holds no connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};

use crate::clock;
use crate::config::{Database, DatabaseUrl, Durability, Failover};
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::store::connection::Connection;
use crate::store::error::{Outage, StoreError};
use crate::store::mark::{self, Mark, MarkFile};
use crate::store::message::CommitSink;
use crate::store::models::{message, meta, room};
use crate::store::origin::{NoOrigin, Origin};
use crate::sync::{Arc, Mutex, lock};

/// Epochs that are remembered, so that a copy that is put back does not bring an earlier one back.
const EPOCHS_REMEMBERED: usize = 64;

/// Times that a connection is asked again because another one found a fork meanwhile.
const ADMISSIONS_MAX: usize = 5;

/// The history that the database holds, as all its connections know it.
pub(super) struct Lineage {
    /// A promoted copy lacks nothing, by the word of the operator.
    any_timeline: bool,
    /// Number of forks so far: connections of an earlier one are not used any more.
    generation: AtomicU64,
    current: Mutex<Current>,
    /// Per lane a message that was committed last.
    newest: Vec<Mutex<Option<Position>>>,
    /// Of a SQLite file.
    mark: Option<MarkFile>,
    /// The run of the system, when commits do not wait for the disk.
    unsynced_in: Option<String>,
    /// Held by the connection that names a history anew, which several may find at once.
    renewing: Mutex<()>,
    /// Held while a fork is noted and told, so that forks are told in their order.
    telling: Mutex<()>,
    sink: OnceLock<Weak<dyn CommitSink>>,
    metrics: Arc<Metrics>,
}

/// A message by its room and number.
pub(super) type Position = (Channel, Seq);

struct Current {
    origin: Origin,
    epoch: Arc<str>,
    last_fork: Option<Fork>,
    /// The newest epochs, this one last.
    epochs: VecDeque<Arc<str>>,
}

/// A fork of the history, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Time it was noticed, milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// The sign of it.
    pub reason: String,
}

impl Lineage {
    /// The history that a database holds which is being opened, as its first connection shows it.
    pub(super) fn open(
        first: &mut Connection,
        config: &Database,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, NoOrigin> {
        meta::epoch(first)?;
        let mut origin = Origin::of(first)?;
        let mark = match &config.url {
            DatabaseUrl::Sqlite(path) => Some(MarkFile::beside(path)),
            DatabaseUrl::Postgres(_) => None,
        };
        let marked = mark.as_ref().and_then(MarkFile::read);
        let mut newest =
            message::newest_room(first)?.or(marked.as_ref().and_then(|mark| mark.newest.clone()));
        let mut last_fork = None;
        if let Some(marked) = marked
            && let Some(reason) = lacks(first, &origin, &marked)?
        {
            newest = None;
            origin.meta = meta::renew_epoch(first, &origin.meta)?;
            metrics.history_forks_total.inc();
            tracing::error!(epoch = origin.meta, "the database {reason}; every room starts anew");
            last_fork = Some(Fork { at_ms: clock::unix_ms(), reason: format!("it {reason}") });
        }
        if first.is_postgres() && origin.server.is_none() {
            tracing::warn!(
                "the database does not tell its timeline; a failover is noticed by what is missing only"
            );
        }
        let any_timeline = config.failover == Failover::Lossless;
        let epoch: Arc<str> = origin.epoch(any_timeline).into();
        let epochs = [epoch.clone()].into();
        let mut seeds = std::iter::once(Mutex::new(newest)).chain(std::iter::repeat_with(Mutex::default));
        let lineage = Self {
            any_timeline,
            generation: AtomicU64::new(0),
            current: Mutex::new(Current { origin, epoch, last_fork, epochs }),
            newest: seeds.by_ref().take(config.commit_lanes.max(1)).collect(),
            mark,
            unsynced_in: mark::boot().filter(|_| config.durability == Durability::Normal),
            renewing: Mutex::default(),
            telling: Mutex::default(),
            sink: OnceLock::new(),
            metrics,
        };
        lineage.write_mark();
        if let Some(mark) = lineage.mark.as_ref().filter(|_| lineage.unsynced_in.is_some()) {
            mark.sync();
        }
        Ok(Arc::new(lineage))
    }

    /// Has forks told to this sink from now on, which is that of those who publish; only the first one given is told.
    pub(super) fn tell(&self, sink: Weak<dyn CommitSink>) {
        let _ = self.sink.set(sink);
    }

    /// The sink that forks are told to, while there is one.
    pub(super) fn sink(&self) -> Option<Arc<dyn CommitSink>> {
        self.sink.get()?.upgrade()
    }

    /// The name that clients know the history by.
    pub(super) fn epoch(&self) -> Arc<str> {
        lock(&self.current).epoch.clone()
    }

    pub(super) fn last_fork(&self) -> Option<Fork> {
        lock(&self.current).last_fork.clone()
    }

    /// Number of the history; a connection with another one is to be replaced.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Notes what a lane has committed in this generation.
    pub(super) fn note_commit(&self, lane: usize, generation: u64, position: Position) {
        let mut newest = lock(&self.newest[lane]);
        if self.generation() == generation {
            *newest = Some(position);
        }
        drop(newest);
        if let Some(mark) = &self.mark {
            mark.note_commit();
            self.write_due_mark();
        }
    }

    /// Writes the mark if a message was committed since, and it was not written a moment ago. Called from time to time,
    /// for no message may come after the last one.
    pub(super) fn write_due_mark(&self) {
        if self.mark.as_ref().is_some_and(MarkFile::is_due) {
            self.write_mark();
        }
    }

    /// Says beside a SQLite file how far it has come, so that an older one is noticed when it is opened.
    pub(super) fn write_mark(&self) {
        self.write(self.unsynced_in.clone());
    }

    /// Writes the last mark, and that the disk has all commits; the file of the database may be another server's from
    /// now on.
    pub(super) fn close_mark(&self) {
        let is_unsynced = |_: &String| !self.mark.as_ref().is_some_and(MarkFile::sync_log);
        self.write(self.unsynced_in.clone().filter(is_unsynced));
        if let Some(mark) = &self.mark {
            mark.close();
        }
    }

    fn write(&self, unsynced_in: Option<String>) {
        if let Some(mark) = &self.mark {
            mark.write(|| Mark { epoch: self.names().1, newest: self.newest().pop(), unsynced_in });
        }
    }

    /// Asks a connection outside of a transaction whether it shows the history that the others do, and draws the conclusions when it
    /// does not. The generation the connection belongs to.
    pub(super) fn admit(&self, connection: &mut Connection) -> Result<u64, NoOrigin> {
        for _ in 0..ADMISSIONS_MAX {
            let generation = self.generation();
            // Noted before the connection is asked, so what it shows must hold them.
            let newest = self.newest();
            let mut found = Origin::of(connection)?;
            let lost = find_lost(connection, newest)?;
            if let Some(lost) = &lost {
                tracing::warn!(channel = %lost.0, seq = lost.1, "a message that was committed is gone");
                let _one_at_a_time = lock(&self.renewing);
                if self.generation() != generation {
                    // Another connection has found the fork, and named the history anew.
                    continue;
                }
                if self.was_called(&found) {
                    let renew = |connection: &mut _| meta::renew_epoch(connection, &found.meta);
                    found.meta = connection.allow_writes(renew)?;
                }
                return Ok(self.compare(found, true));
            }
            if self.generation() == generation {
                return Ok(self.compare(found, false));
            }
        }
        Err(NoOrigin::Failed(diesel::result::Error::RollbackTransaction))
    }

    /// What was read, with the name of the history that all of it belongs to.
    pub(super) fn in_one_history<T>(
        &self,
        read: impl Fn() -> Result<T, StoreError>,
    ) -> Result<(Arc<str>, T), StoreError> {
        for _ in 0..ADMISSIONS_MAX {
            let (epoch, generation) = (self.epoch(), self.generation());
            let done = read()?;
            if self.generation() == generation && self.epoch() == epoch {
                return Ok((epoch, done));
            }
        }
        Err(StoreError::Unavailable(Outage::whole("the history of the database forks again and again")))
    }

    /// Takes over a name for the history that was written to the database because numbers were given twice.
    pub(super) fn rename(&self, meta: String) -> Arc<str> {
        let server = lock(&self.current).origin.server;
        self.compare(Origin { meta, server }, true);
        self.epoch()
    }

    /// The epoch, and the database's part of it.
    pub(super) fn names(&self) -> (Arc<str>, String) {
        let current = lock(&self.current);
        (current.epoch.clone(), current.origin.meta.clone())
    }

    /// True when an origin would give the history a name that it had before.
    fn was_called(&self, origin: &Origin) -> bool {
        let current = lock(&self.current);
        let epoch = origin.clone().or_server_of(&current.origin).epoch(self.any_timeline);
        current.epochs.iter().any(|earlier| **earlier == *epoch)
    }

    fn newest(&self) -> Vec<Position> {
        self.newest.iter().filter_map(|newest| lock(newest).clone()).collect()
    }

    /// Compares what a connection shows with what others showed, and tells of a fork. The generation then.
    fn compare(&self, found: Origin, went_back: bool) -> u64 {
        let told = lock(&self.telling);
        let mut current = lock(&self.current);
        let found = found.or_server_of(&current.origin);
        let epoch: Arc<str> = found.epoch(self.any_timeline).into();
        if *epoch == *current.epoch {
            current.origin = found;
            return self.generation();
        }
        let reason = if went_back { WENT_BACK.to_owned() } else { difference(&current.origin, &found) };
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let last_fork = Some(Fork { at_ms: clock::unix_ms(), reason: reason.clone() });
        current.origin = found;
        current.epoch = epoch.clone();
        current.last_fork = last_fork;
        current.epochs.push_back(epoch.clone());
        if current.epochs.len() > EPOCHS_REMEMBERED {
            current.epochs.pop_front();
        }
        drop(current);
        self.newest.iter().for_each(|newest| *lock(newest) = None);
        self.write_mark();
        self.metrics.history_forks_total.inc();
        tracing::error!(%reason, %epoch, "the history of the database forked; every room starts anew");
        if let Some(sink) = self.sink() {
            sink.forked(&epoch);
        }
        drop(told);
        generation
    }
}

const WAS_REPLACED: &str = "was replaced by an older one";

const WENT_DOWN: &str = "may lack its last messages, for the system went down and durability is \"normal\"";

const WENT_BACK: &str = "it holds less than was committed to it";

/// The difference between two origins, for the operator.
fn difference(before: &Origin, now: &Origin) -> String {
    match (before.server, now.server) {
        (Some(before), Some(now)) if before.system != now.system => {
            "it is in another PostgreSQL cluster".to_owned()
        }
        (Some(before), Some(now)) if before.timeline != now.timeline => {
            format!("its timeline was {} and is {}", before.timeline, now.timeline)
        }
        _ => "its epoch was changed".to_owned(),
    }
}

/// Why a SQLite file lacks what the mark beside it says, or may do so; `None` when it does not.
fn lacks(
    connection: &mut Connection,
    origin: &Origin,
    mark: &Mark,
) -> Result<Option<&'static str>, NoOrigin> {
    if mark.epoch != origin.meta
        || find_lost(connection, mark.newest.clone().into_iter().collect())?.is_some()
    {
        return Ok(Some(WAS_REPLACED));
    }
    let went_down =
        mark.unsynced_in.as_ref().is_some_and(|then| mark::boot().is_some_and(|now| now != *then));
    Ok(went_down.then_some(WENT_DOWN))
}

/// A committed message that the database does not hold.
fn find_lost(connection: &mut Connection, newest: Vec<Position>) -> Result<Option<Position>, NoOrigin> {
    for (channel, seq) in newest {
        let head = room::find(connection, &channel)?.map_or(0, |room| room.head);
        if head < seq {
            return Ok(Some((channel, seq)));
        }
    }
    Ok(None)
}

impl std::fmt::Debug for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lineage").field("generation", &self.generation()).finish_non_exhaustive()
    }
}
