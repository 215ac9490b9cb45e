//! Who is being served from the log, for the operator who asks.
//!
//! A [`Job`](super::Job) keeps its entry here for as long as it lives. Split over several locks: a
//! reconnect storm makes thousands of jobs at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ahash::AHashMap;

use crate::engine::listener::Listener;
use crate::ids::{Channel, Seq, SubscriptionId};
use crate::metrics::Metrics;
use crate::sync::Striped;

type Entries = AHashMap<SubscriptionId, Arc<Record>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Directory(Striped<Entries>);

/// Why a subscription is served from the log.
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
    /// Whose it is.
    pub listener: Arc<Listener>,
    /// Its room.
    pub channel: Channel,
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Instant,
    /// The last seq it was given.
    pub after: Seq,
}

#[derive(Debug)]
struct Record {
    listener: Arc<Listener>,
    channel: Channel,
    cause: Cause,
    since: Instant,
    after: AtomicU64,
}

/// A job's entry, gone when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    record: Arc<Record>,
    subscription: SubscriptionId,
    directory: Arc<Directory>,
    metrics: Arc<Metrics>,
}

impl Directory {
    pub(super) fn list(&self, limit: usize) -> (usize, Vec<Lagging>) {
        let mut records: Vec<Arc<Record>> =
            self.0.each(|entries| entries.values().cloned().collect::<Vec<_>>()).flatten().collect();
        let total = records.len();
        records.sort_unstable_by_key(|record| record.since);
        records.truncate(limit);
        (total, records.iter().map(|record| record.describe()).collect())
    }
}

impl Record {
    fn describe(&self) -> Lagging {
        Lagging {
            listener: self.listener.clone(),
            channel: self.channel.clone(),
            cause: self.cause,
            since: self.since,
            after: self.after.load(Ordering::Relaxed),
        }
    }
}

impl Entry {
    pub(super) fn new(
        directory: &Arc<Directory>,
        metrics: &Arc<Metrics>,
        subscription: SubscriptionId,
        listening: (&Arc<Listener>, &Channel),
        cause: Cause,
        after: Seq,
    ) -> Self {
        let (listener, channel) = (listening.0.clone(), listening.1.clone());
        let record = Arc::new(Record {
            listener,
            channel,
            cause,
            since: Instant::now(),
            after: AtomicU64::new(after),
        });
        directory.0.of(subscription.0).insert(subscription, record.clone());
        metrics.catch_ups_active.inc();
        Self { record, subscription, directory: directory.clone(), metrics: metrics.clone() }
    }

    pub(super) fn cause(&self) -> Cause {
        self.record.cause
    }

    pub(super) fn listener(&self) -> &Arc<Listener> {
        &self.record.listener
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.record.channel
    }

    /// The last seq the listener was given; only the job's owner changes it.
    pub(super) fn after(&self) -> Seq {
        self.record.after.load(Ordering::Relaxed)
    }

    pub(super) fn advance(&self, seq: Seq) {
        self.record.after.store(seq, Ordering::Relaxed);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.metrics.catch_ups_active.dec();
        let mut entries = self.directory.0.of(self.subscription.0);
        // A job that was extended is the same job; another one of this subscription is not ours.
        if entries.get(&self.subscription).is_some_and(|record| Arc::ptr_eq(record, &self.record)) {
            entries.remove(&self.subscription);
        }
    }
}
