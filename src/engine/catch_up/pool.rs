//! The threads of the catch-up pool, their queues, and the parking place of jobs that wait for an outbox.
//!
//! A small fixed pool of threads takes one job at a time from one queue, so every listener gets a
//! page in turn and none can starve the others, or one question for a head from another (`lookups`), and reads through connections of its own, so it holds
//! up neither commits nor workers. A [`Job`] is one subscription with the last seq it
//! was given; it is owned by exactly one of: the queue, a pool thread, the parking place (until its
//! outbox has drained), or the shard of its room. Pages end at the `until` the shard named, so a job that comes
//! back is never ahead of its room.

use super::directory::{Directory, Lagging};
use super::job::{Job, Keeper, Next};
use super::lookups::{Asker, HeadLookups, HeadQuestion, ReadHead};
use super::pages::PageCache;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};

use crate::engine::command::Command;
use crate::engine::join::Join;
use crate::engine::log::Log;
use crate::engine::mailboxes::Mailboxes;
use crate::engine::room::change::{Leave, RoomChange};
use crate::engine::subscription::Subscription;
use crate::ids::{ConnectionId, Seq};
use crate::limits::HEAD_LOOKUPS_MAX;
use crate::metrics::Metrics;
use crate::sync::{Arc, Mutex, MutexGuard, ShardedMutex, lock};

/// Time between two tries to read a log that could not be read.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// Handle of the pool, held by shards.
#[derive(Clone)]
pub(in crate::engine) struct CatchUp(Arc<Shared>);

type Jobs = Vec<Box<Job>>;

struct Shared {
    /// Jobs. Each subscription has one at most; that of one that has ended is dropped when its turn comes.
    tasks: Sender<Task>,
    lookups: HeadLookups,
    /// Jobs whose outboxes are full, by connection.
    parked: ShardedMutex<AHashMap<ConnectionId, Jobs>>,
    /// Jobs whose page could not be read.
    failed: Mutex<Jobs>,
    /// The epoch that a shard found to be void, until the log has given another.
    doubted: Mutex<Option<Arc<str>>>,
    pages: PageCache,
    directory: Arc<Directory>,
    mailboxes: Arc<Mailboxes>,
}

enum Task {
    Run(Box<Job>),
    /// Ask the log for another epoch than the doubted one.
    RenewEpoch,
    Stop,
}

/// The threads of the pool.
#[derive(Debug)]
pub(in crate::engine) struct Pool {
    tasks: Sender<Task>,
    threads: Vec<JoinHandle<()>>,
}

impl CatchUp {
    /// Starts the pool. `drained` names connections whose outboxes have room again.
    pub(in crate::engine) fn start(
        workers: usize,
        log: Arc<dyn Log>,
        drained: Receiver<ConnectionId>,
        mailboxes: Arc<Mailboxes>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, Pool)> {
        let (catch_up, worker) = Self::assemble(log, drained, mailboxes, metrics);
        let mut pool = Pool { tasks: catch_up.0.tasks.clone(), threads: Vec::new() };
        for number in 0..workers {
            let worker = worker.clone();
            let thread = thread::Builder::new().name(format!("catch-up-{number}"));
            pool.threads.push(thread.spawn(move || worker.run())?);
        }
        Ok((catch_up, pool))
    }

    /// The pool without threads, and what each of its threads is given.
    pub(in crate::engine) fn assemble(
        log: Arc<dyn Log>,
        drained: Receiver<ConnectionId>,
        mailboxes: Arc<Mailboxes>,
        metrics: Arc<Metrics>,
    ) -> (Self, Worker) {
        let (sender, tasks) = unbounded();
        let (lookups, asked) = HeadLookups::new(HEAD_LOOKUPS_MAX, metrics.clone());
        let catch_up = Self(Arc::new(Shared {
            tasks: sender,
            lookups,
            parked: ShardedMutex::default(),
            failed: Mutex::default(),
            doubted: Mutex::default(),
            pages: PageCache::new(log.clone(), metrics.clone()),
            directory: Directory::new(metrics),
            mailboxes,
        }));
        (catch_up.clone(), Worker { catch_up, log, tasks, asked, drained })
    }

    /// List of the jobs of this pool.
    pub(in crate::engine) fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    /// Reads the head of a room for a join that waits for it, which shares the question with others of its
    /// room; the answer comes to the shard. False when too many wait.
    pub(in crate::engine) fn look_up_head(
        &self,
        subscription: &Subscription,
        question: &Arc<HeadQuestion>,
    ) -> bool {
        self.0.lookups.enter(asker(subscription), question)
    }

    /// Notes that joins wait no longer: a room is asked for only while one of its joins does.
    pub(in crate::engine) fn withdraw<'j>(&self, joins: impl Iterator<Item = &'j Join>) {
        self.0.lookups.withdraw(joins.map(|join| asker(&join.subscription)));
    }

    /// Queues a job.
    pub(in crate::engine) fn run(&self, mut job: Box<Job>) {
        job.hand_to(Keeper::Queue);
        self.submit(Task::Run(job));
    }

    /// Sends a job that came back to its room out again, now up to `until`.
    pub(in crate::engine) fn extend(&self, mut job: Box<Job>, until: Seq) {
        job.aim_at(until);
        self.park(job);
    }

    /// Keeps a job until its outbox has drained.
    pub(in crate::engine) fn park(&self, mut job: Box<Job>) {
        job.hand_to(Keeper::Parked);
        let outbox = job.subscription().outbox.clone();
        let id = outbox.id();
        self.0.parked.of(id.0).entry(id).or_default().push(job);
        // Parked first, asked second: a notice that comes at once finds the job.
        if !outbox.request_notice() {
            self.unpark(id);
        }
    }

    /// Drops what is parked for a connection that ended.
    pub(in crate::engine) fn forget(&self, id: ConnectionId) {
        let jobs = self.0.parked.of(id.0).remove(&id);
        drop(jobs);
    }

    /// Has the log give another epoch than this one, in which numbers were given twice; every shard is told.
    pub(in crate::engine) fn doubt(&self, epoch: &Arc<str>) {
        self.0.pages.clear();
        *lock(&self.0.doubted) = Some(epoch.clone());
        self.submit(Task::RenewEpoch);
    }

    /// Has every room start anew, in another epoch.
    pub(in crate::engine) fn start_anew(&self, epoch: &Arc<str>) {
        self.0.pages.clear();
        for mailbox in self.0.mailboxes.iter() {
            mailbox.send(Command::StartAnew { epoch: epoch.clone() });
        }
    }

    fn unpark(&self, id: ConnectionId) {
        let jobs = self.0.parked.of(id.0).remove(&id);
        for job in jobs.into_iter().flatten() {
            self.run(job);
        }
    }

    fn retry_failed(&self) {
        let jobs = std::mem::take(&mut *self.failed());
        for job in jobs {
            self.run(job);
        }
        if lock(&self.0.doubted).is_some() {
            self.submit(Task::RenewEpoch);
        }
    }

    fn has_failed(&self) -> bool {
        !self.failed().is_empty() || lock(&self.0.doubted).is_some()
    }

    fn failed(&self) -> MutexGuard<'_, Jobs> {
        lock(&self.0.failed)
    }

    /// Subscriptions served from the log, the oldest first, at most `limit`, and how many there are.
    pub(in crate::engine) fn lagging(&self, limit: usize) -> (usize, Vec<Lagging>) {
        self.0.directory.list(limit)
    }

    fn submit(&self, task: Task) {
        // The pool is only gone when the whole engine stops.
        let _ = self.0.tasks.send(task);
    }

    fn keep_failed(&self, mut job: Box<Job>) {
        job.hand_to(Keeper::Failed);
        self.failed().push(job);
    }

    fn tell(&self, change: RoomChange) {
        self.0.mailboxes.of(change.channel()).send(Command::Change(change));
    }
}

impl std::fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CatchUp")
    }
}

impl Pool {
    /// Ends the threads; jobs that are still queued are dropped.
    pub(in crate::engine) fn stop(self) {
        for _ in &self.threads {
            let _ = self.tasks.send(Task::Stop);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a catch-up thread had panicked");
            }
        }
    }
}

/// State of one thread of the pool.
#[derive(Clone)]
pub(in crate::engine) struct Worker {
    catch_up: CatchUp,
    log: Arc<dyn Log>,
    tasks: Receiver<Task>,
    /// Joins wait for a head.
    asked: Receiver<()>,
    drained: Receiver<ConnectionId>,
}

impl Worker {
    fn run(self) {
        loop {
            let retry = if self.catch_up.has_failed() { after(RETRY_EVERY) } else { never() };
            select! {
                recv(self.drained) -> id => match id {
                    Ok(id) => self.catch_up.unpark(id),
                    Err(_) => return,
                },
                recv(self.tasks) -> task => match task {
                    Ok(Task::Stop) | Err(_) => return,
                    Ok(task) => self.perform(task),
                },
                recv(self.asked) -> _ => {
                    self.look_up_next();
                }
                recv(retry) -> _ => self.catch_up.retry_failed(),
            }
        }
    }

    fn perform(&self, task: Task) {
        match task {
            Task::Run(job) => self.step(job),
            Task::RenewEpoch => self.renew_epoch(),
            Task::Stop => {}
        }
    }

    /// One round of the thread without the wait, which no model checker knows. False when there is
    /// nothing to do.
    #[cfg(test)]
    pub(in crate::engine) fn try_round(&self) -> bool {
        if let Ok(id) = self.drained.try_recv() {
            self.catch_up.unpark(id);
        } else if let Ok(task) = self.tasks.try_recv() {
            self.perform(task);
        } else {
            return self.look_up_next();
        }
        true
    }

    /// Reads the head of the room that is next. False when nobody waits for one.
    fn look_up_next(&self) -> bool {
        let Some(question) = self.catch_up.0.lookups.take_next() else { return false };
        let head = self.log.head(question.channel()).ok();
        let head = head.map(|seq| ReadHead { seq, at: Instant::now() });
        let mailbox = self.catch_up.0.mailboxes.of(question.channel());
        mailbox.send(Command::Head { question: question.clone(), head });
        true
    }

    /// Tried again with the failed jobs while the log cannot be changed.
    fn renew_epoch(&self) {
        let Some(doubted) = lock(&self.catch_up.0.doubted).clone() else { return };
        let Ok(epoch) = self.log.renew_epoch(&doubted) else { return };
        let mut still = lock(&self.catch_up.0.doubted);
        if still.as_ref() == Some(&doubted) {
            *still = None;
        }
        drop(still);
        self.catch_up.start_anew(&epoch);
    }

    fn step(&self, mut job: Box<Job>) {
        job.hand_to(Keeper::Thread);
        match job.step(&self.catch_up.0.pages) {
            Next::Done => {
                job.hand_to(Keeper::Shard);
                self.catch_up.tell(RoomChange::CaughtUp(job));
            }
            Next::Again => self.catch_up.run(job),
            Next::Full => self.catch_up.park(job),
            Next::Failed => self.catch_up.keep_failed(job),
            Next::Lost => self.leave(job, true),
            Next::Left => self.leave(job, false),
        }
    }

    /// Takes a job's member out of its room; `lost`: because messages it is owed are gone.
    fn leave(&self, job: Box<Job>, lost: bool) {
        let subscription = job.subscription().clone();
        if lost {
            subscription.end_with_gap();
        }
        // The job answers a resume that waits; the room hears of the end after that.
        drop(job);
        subscription.end();
        self.catch_up.tell(RoomChange::Leave(Leave::new(subscription, None)));
    }
}

/// The entry of a join among the look-ups.
fn asker(subscription: &Subscription) -> Asker {
    (subscription.connection(), subscription.id())
}
