//! Who is being served from the log, for the operator who asks.
//!
//! A [`Job`](super::job::Job) keeps its entry here for as long as it lives. Split over several locks: a
//! reconnect storm makes thousands of jobs at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::AHashMap;

use crate::engine::subscription::Subscription;
use crate::ids::{Seq, SubscriptionId};
use crate::metrics::Metrics;
use crate::sync::ShardedMutex;

type Entries = AHashMap<SubscriptionId, Arc<Record>>;

/// The jobs there are, by subscription: each has one at most.
#[derive(Debug)]
pub(in crate::engine) struct Directory {
    entries: ShardedMutex<Entries>,
    metrics: Arc<Metrics>,
}

/// Reason for which a subscription is served from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It came back and missed more than the room had in memory.
    Resume,
    /// Its outbox was full.
    Slow,
}

impl Cause {
    /// The name the API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Slow => "slow",
        }
    }
}

/// A subscription that is served from the log.
#[derive(Debug, Clone)]
pub struct Lagging {
    /// The subscription, with its connection and room.
    pub subscription: Arc<Subscription>,
    /// Reason.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
    /// The last seq it was given.
    pub after: Seq,
}

#[derive(Debug)]
struct Record {
    subscription: Arc<Subscription>,
    cause: Cause,
    since: Instant,
    after: AtomicU64,
}

/// A job's entry, gone when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    record: Arc<Record>,
    directory: Arc<Directory>,
}

impl Directory {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { entries: ShardedMutex::default(), metrics })
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) fn list(&self, limit: usize) -> (usize, Vec<Lagging>) {
        let mut records: Vec<Arc<Record>> =
            self.entries.each(|entries| entries.values().cloned().collect::<Vec<_>>()).flatten().collect();
        let total = records.len();
        records.sort_unstable_by_key(|record| record.since);
        records.truncate(limit);
        (total, records.iter().map(|record| record.describe()).collect())
    }
}

impl Record {
    fn describe(&self) -> Lagging {
        Lagging {
            subscription: self.subscription.clone(),
            cause: self.cause,
            since: self.since,
            after: self.after.load(Ordering::Relaxed),
        }
    }
}

impl Entry {
    /// Enters a subscription that is to be served from the log after `after`.
    pub(super) fn new(
        directory: &Arc<Directory>,
        subscription: &Arc<Subscription>,
        cause: Cause,
        after: Seq,
    ) -> Self {
        let (id, subscription) = (subscription.id(), subscription.clone());
        let (since, after) = (Instant::now(), AtomicU64::new(after));
        let record = Arc::new(Record { subscription, cause, since, after });
        let other = directory.entries.of(id.0).insert(id, record.clone());
        debug_assert!(other.is_none(), "a subscription has one job");
        directory.metrics.catch_ups_active.inc();
        Self { record, directory: directory.clone() }
    }

    pub(super) fn cause(&self) -> Cause {
        self.record.cause
    }

    pub(super) fn subscription(&self) -> &Arc<Subscription> {
        &self.record.subscription
    }

    /// The last seq the listener was given; only the job's owner changes it.
    pub(super) fn after(&self) -> Seq {
        self.record.after.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, seq: Seq) {
        debug_assert!(seq >= self.after(), "a listener is not given a message twice");
        self.record.after.store(seq, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.directory.metrics.catch_ups_active.dec();
        let id = self.record.subscription.id();
        let removed = self.directory.entries.of(id.0).remove(&id);
        debug_assert!(
            removed.is_some_and(|removed| Arc::ptr_eq(&removed, &self.record)),
            "the entry of another job was removed"
        );
    }
}
