//! Serving from the log: resumes of any length, and listeners whose outbox was full.
//!
//! A small fixed pool of threads takes one task at a time from one queue, so every listener gets a
//! page in turn and none can starve the others. A [`Job`] is one subscription with the last seq it
//! was given; it is owned by exactly one of: the queue, a pool thread, the parking place (its outbox
//! is full), or the shard of its room. Pages end at the `until` the shard named, so a job that comes
//! back is never ahead of its room.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};

use super::command::Command;
use super::join::{Join, Joined};
use super::listener::Listener;
use super::log::{Log, LogUnavailable};
use super::members::Member;
use super::pages::PageCache;
use super::shard::Shards;
use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::metrics::Metrics;
use crate::outbox::Push;
use crate::outbox::frame::LineFrames;
use crate::protocol::code::ErrorCode;
use crate::protocol::push;
use crate::publication::{Publication, Retention};

/// Time between two tries to read a log that could not be read.
const RETRY_EVERY: Duration = Duration::from_millis(250);

/// Most payload bytes put into an outbox at a time, so that a page never outgrows a small budget by
/// more than one message.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// What shards hold of the pool.
#[derive(Clone)]
pub(super) struct CatchUp(Arc<Shared>);

type Jobs = Vec<Box<Job>>;

struct Shared {
    /// Unbounded, yet never longer than the subscriptions there are: each has one job at most.
    tasks: Sender<Task>,
    /// Jobs whose outboxes are full, by connection.
    parked: Mutex<AHashMap<ConnectionId, Jobs>>,
    /// Jobs whose page could not be read.
    failed: Mutex<Jobs>,
    pages: PageCache,
    shards: OnceLock<Weak<Shards>>,
}

enum Task {
    Head(Channel),
    Run(Box<Job>),
    Stop,
}

/// The threads of the pool.
#[derive(Debug)]
pub(super) struct Pool {
    tasks: Sender<Task>,
    threads: Vec<JoinHandle<()>>,
}

impl CatchUp {
    /// Starts the pool. `drained` names connections whose outboxes have room again.
    pub(super) fn start(
        workers: usize,
        log: Arc<dyn Log>,
        drained: Receiver<ConnectionId>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, Pool)> {
        let (sender, tasks) = unbounded();
        let catch_up = Self(Arc::new(Shared {
            tasks: sender.clone(),
            parked: Mutex::default(),
            failed: Mutex::default(),
            pages: PageCache::new(log.clone(), metrics),
            shards: OnceLock::new(),
        }));
        let mut pool = Pool { tasks: sender, threads: Vec::new() };
        for number in 0..workers {
            let worker = Worker {
                catch_up: catch_up.clone(),
                log: log.clone(),
                tasks: tasks.clone(),
                drained: drained.clone(),
            };
            let thread = thread::Builder::new().name(format!("catch-up-{number}"));
            pool.threads.push(thread.spawn(move || worker.run())?);
        }
        Ok((catch_up, pool))
    }

    /// Names the shards that finished jobs go back to; once, before the first job.
    pub(super) fn connect(&self, shards: &Arc<Shards>) {
        let _ = self.0.shards.set(Arc::downgrade(shards));
    }

    /// Reads the head of a room; the answer comes to its shard.
    pub(super) fn look_up_head(&self, channel: Channel) {
        self.submit(Task::Head(channel));
    }

    /// Queues a job.
    pub(super) fn run(&self, job: Box<Job>) {
        self.submit(Task::Run(job));
    }

    /// Sends a job that came back to its room out again, now up to `until`.
    pub(super) fn extend(&self, mut job: Box<Job>, until: Seq) {
        job.until = until;
        self.park(job);
    }

    /// Keeps a job until its outbox has drained.
    pub(super) fn park(&self, job: Box<Job>) {
        let listener = job.listener.clone();
        let id = listener.id();
        self.parked().entry(id).or_default().push(job);
        // Parked first, asked second: a notice that comes at once finds the job.
        if !listener.outbox.request_notice() {
            self.unpark(id);
        }
    }

    /// Drops what is parked for a connection that ended.
    pub(super) fn forget(&self, id: ConnectionId) {
        let jobs = self.parked().remove(&id);
        drop(jobs);
    }

    fn unpark(&self, id: ConnectionId) {
        let jobs = self.parked().remove(&id);
        for job in jobs.into_iter().flatten() {
            self.run(job);
        }
    }

    fn retry_failed(&self) {
        let jobs = std::mem::take(&mut *self.failed());
        for job in jobs {
            self.run(job);
        }
    }

    fn has_failed(&self) -> bool {
        !self.failed().is_empty()
    }

    fn failed(&self) -> MutexGuard<'_, Jobs> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parked(&self) -> MutexGuard<'_, AHashMap<ConnectionId, Jobs>> {
        self.0.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, task: Task) {
        // The pool is only gone when the whole engine stops.
        let _ = self.0.tasks.send(task);
    }

    fn to_shard(&self, channel: &Channel, command: Command) {
        if let Some(shards) = self.0.shards.get().and_then(Weak::upgrade) {
            shards.of(channel).send(command);
        }
    }
}

impl std::fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CatchUp")
    }
}

impl Pool {
    /// Ends the threads; jobs that are still queued are dropped.
    pub(super) fn stop(self) {
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

/// One subscription on its way to the head of its room. Boxed wherever it is kept, because it moves
/// between queues, lists and commands all its life.
#[derive(Debug)]
pub(super) struct Job {
    channel: Channel,
    listener: Arc<Listener>,
    subscription: SubscriptionId,
    retention: Retention,
    /// The last seq the listener was given.
    after: Seq,
    /// The last seq it is to be given before it goes back to its room.
    until: Seq,
    /// A resume whose answer is still owed, with the epoch to answer.
    owed: Option<(Join, Arc<str>)>,
    /// Began as a resume: the listener was never announced to the room.
    resuming: bool,
    metrics: Arc<Metrics>,
}

impl Job {
    /// For a member whose outbox was full.
    pub(super) fn for_member(
        channel: Channel,
        retention: Retention,
        member: &Member,
        after: Seq,
        until: Seq,
        metrics: &Arc<Metrics>,
    ) -> Self {
        metrics.catch_ups_active.inc();
        Self {
            channel,
            listener: member.listener.clone(),
            subscription: member.subscription,
            retention,
            after,
            until,
            owed: None,
            resuming: false,
            metrics: metrics.clone(),
        }
    }

    /// For a resume that the tail can not serve.
    pub(super) fn for_join(
        join: Join,
        retention: Retention,
        after: Seq,
        until: Seq,
        epoch: Arc<str>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        metrics.catch_ups_active.inc();
        Self {
            channel: join.channel.clone(),
            listener: join.listener.clone(),
            subscription: join.subscription,
            retention,
            after,
            until,
            owed: Some((join, epoch)),
            resuming: true,
            metrics: metrics.clone(),
        }
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.listener.id()
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn subscription(&self) -> SubscriptionId {
        self.subscription
    }

    pub(super) fn after(&self) -> Seq {
        self.after
    }

    pub(super) fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// Pushes frames that end at `until`; false when the outbox has no room for them.
    pub(super) fn push_all(&mut self, frames: &Bytes, until: Seq) -> bool {
        let pushed = self.listener.outbox.push(frames) == Push::Accepted;
        if pushed {
            self.metrics.deliveries_total.inc_by(until - self.after);
            self.after = until;
        }
        pushed
    }

    /// Answers the subscribe with the first page of what was missed.
    fn answer(&mut self, page: Vec<Publication>) -> Next {
        let Some((join, epoch)) = self.owed.take() else { return Next::Again };
        let complete = page.first().map_or(self.after == self.until, |first| first.seq == self.after + 1);
        let mut joined = Joined {
            positioned: true,
            epoch,
            offset: self.after,
            was_recovering: true,
            recovered: complete,
            publications: Vec::new(),
            extra: join.extra.clone(),
        };
        if complete {
            self.metrics.recoveries_total.with_label_values(&["log"]).inc();
            joined.publications = first_chunk(page);
            self.after = joined.publications.last().map_or(self.after, |last| last.seq);
        } else {
            self.metrics.recoveries_total.with_label_values(&["failed"]).inc();
            if join.recover.as_ref().is_some_and(|recover| recover.reject_unrecovered) {
                join.fail(ErrorCode::UnrecoverablePosition, &self.metrics);
                return Next::Left;
            }
            self.after = self.until;
            joined.offset = self.until;
        }
        join.succeed(joined);
        Next::Again
    }

    /// Pushes one page, as much of it as the outbox takes.
    fn push_page(&mut self, page: &[Publication]) -> Next {
        if page.first().is_none_or(|first| first.seq != self.after + 1) {
            return Next::Lost;
        }
        let mut frames = LineFrames::default();
        let mut until = self.after;
        for publication in page {
            frames.line(|out| push::publication(out, publication));
            until = publication.seq;
            if frames.len() >= CHUNK_BYTES_MAX
                && let Err(next) = self.push_while_held(&frames.take(), until)
            {
                return next;
            }
        }
        if !frames.is_empty()
            && let Err(next) = self.push_while_held(&frames.take(), until)
        {
            return next;
        }
        Next::Again
    }

    /// Pushes frames unless the subscription has ended: reading the page took time, and nothing of a
    /// room may come behind the reply to its unsubscribe, least of all into the next subscription.
    fn push_while_held(&mut self, frames: &Bytes, until: Seq) -> Result<(), Next> {
        let listener = self.listener.clone();
        let (channel, subscription) = (self.channel.clone(), self.subscription);
        match listener.while_holding(&channel, subscription, || self.push_all(frames, until)) {
            Some(true) => Ok(()),
            Some(false) => Err(Next::Full),
            None => Err(Next::Left),
        }
    }
}

/// The front of a page that fits the answer to a subscribe; the rest is pushed.
fn first_chunk(mut page: Vec<Publication>) -> Vec<Publication> {
    let mut bytes = 0;
    let fits = page.iter().take_while(|publication| {
        bytes += publication.data.len();
        bytes <= CHUNK_BYTES_MAX
    });
    let count = fits.count().max(1);
    page.truncate(count);
    page
}

impl Drop for Job {
    fn drop(&mut self) {
        self.metrics.catch_ups_active.dec();
        // Whoever asked gets an answer even when the subscription ended meanwhile.
        if let Some((join, epoch)) = self.owed.take() {
            let extra = join.extra.clone();
            join.succeed(Joined {
                positioned: true,
                epoch,
                offset: self.until,
                was_recovering: true,
                recovered: false,
                publications: Vec::new(),
                extra,
            });
        }
    }
}

/// What is to be done with a job after a step.
enum Next {
    /// Another step.
    Again,
    /// The outbox is full.
    Full,
    /// The log could not be read.
    Failed,
    /// Messages are missing in the log.
    Lost,
    /// The subscription is over.
    Left,
}

struct Worker {
    catch_up: CatchUp,
    log: Arc<dyn Log>,
    tasks: Receiver<Task>,
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
                    Ok(Task::Head(channel)) => self.look_up_head(channel),
                    Ok(Task::Run(job)) => self.step(job),
                    Ok(Task::Stop) | Err(_) => return,
                },
                recv(retry) -> _ => self.catch_up.retry_failed(),
            }
        }
    }

    fn look_up_head(&self, channel: Channel) {
        let head = self.log.head(&channel).ok();
        self.catch_up.to_shard(&channel.clone(), Command::Head { channel, head });
    }

    fn step(&self, mut job: Box<Job>) {
        match self.serve(&mut job) {
            Next::Again if job.after >= job.until => {
                let channel = job.channel.clone();
                self.catch_up.to_shard(&channel, Command::CaughtUp(job));
            }
            Next::Again => self.catch_up.run(job),
            Next::Full => self.catch_up.park(job),
            Next::Failed => self.catch_up.failed().push(job),
            Next::Lost => self.leave(job, true),
            Next::Left => self.leave(job, false),
        }
    }

    /// Gives the listener one page.
    fn serve(&self, job: &mut Job) -> Next {
        if job.listener.outbox.ended().is_some() || !job.listener.holds(&job.channel, job.subscription) {
            return Next::Left;
        }
        if job.after >= job.until && job.owed.is_none() {
            return Next::Again;
        }
        if !job.listener.outbox.has_room() {
            return Next::Full;
        }
        let page = self.catch_up.0.pages.page(&job.channel, job.after, job.until, job.retention);
        match page {
            Ok(page) if job.owed.is_some() => job.answer(page),
            Ok(page) => job.push_page(&page),
            Err(LogUnavailable(_)) => match job.owed.take() {
                Some((join, _)) => {
                    join.fail(ErrorCode::Internal, &job.metrics);
                    Next::Left
                }
                None => Next::Failed,
            },
        }
    }

    /// Takes a job's member out of its room; `lost`: because messages it is owed are gone.
    fn leave(&self, job: Box<Job>, lost: bool) {
        if lost {
            job.listener.lose(&job.channel, job.subscription);
        }
        let (channel, connection, subscription) = (job.channel.clone(), job.connection(), job.subscription);
        drop(job);
        let command = Command::Leave { channel: channel.clone(), connection, subscription, farewell: None };
        self.catch_up.to_shard(&channel, command);
    }
}
