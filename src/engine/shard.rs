//! A shard: the rooms that hash to it, and the one queue through which everything reaches them.
//!
//! Ownership protocol: whoever holds the lock of the state owns the rooms. Commands leave the queue
//! only while the lock is held, so "the queue is empty and I hold the lock" means that nothing is
//! outstanding. That is what makes inline delivery and eviction safe.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use crossbeam_channel::Sender;

use super::catch_up::CatchUp;
use super::command::{Command, RoomQuery, RoomStatus};
use super::delivery::{Strategy, Thresholds};
use super::inbox::Inbox;
use super::room::Room;
use crate::config::{Delivery, Namespace, Namespaces};
use crate::ids::{Channel, Seq};
use crate::limits::{EVICTIONS_PER_TURN_MAX, SHARD_QUEUE_MAX, SHARD_TURN_COMMANDS_MAX, WISHES_PER_SHARD_MAX};
use crate::metrics::Metrics;
use crate::publication::Publication;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, TryLockError, lock};

/// What rooms need of the world.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) namespaces: Namespaces,
    pub(super) thresholds: Thresholds,
    pub(super) idle_timeout: Duration,
    pub(super) epoch: Arc<str>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) catch_up: CatchUp,
}

impl Context {
    pub(super) fn count_recovery(&self, outcome: &str) {
        self.metrics.recoveries_total.with_label_values(&[outcome]).inc();
    }

    fn options(&self, channel: &Channel) -> Arc<Namespace> {
        self.namespaces.get(channel.namespace()).unwrap_or(&self.namespaces.default).clone()
    }
}

/// All shards of an engine.
#[derive(Debug)]
pub(super) struct Shards(Vec<Arc<Shard>>);

impl Shards {
    pub(super) fn new(count: usize, context: &Arc<Context>) -> Self {
        Self((0..count.max(1)).map(|_| Arc::new(Shard::new(context.clone()))).collect())
    }

    /// The shard a room lives in; the same for the whole run.
    pub(super) fn of(&self, channel: &Channel) -> &Arc<Shard> {
        &self.0[self.index_of(channel)]
    }

    pub(super) fn index_of(&self, channel: &Channel) -> usize {
        (channel.stable_hash() % self.0.len() as u64) as usize
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shard {
    inbox: Arc<Inbox<Command>>,
    rooms: Mutex<Rooms>,
    /// The worker has ended; commands would wait for ever.
    stopped: AtomicBool,
    context: Arc<Context>,
}

/// When the worker has to look again if no command comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// At once: a fan-out has slices left, or the queue was not emptied.
    No,
    /// At this time a room may be idle.
    Until(Instant),
    /// Only for a command.
    ForCommand,
    /// Never: the worker was told to stop.
    Stop,
}

impl Shard {
    fn new(context: Arc<Context>) -> Self {
        let inbox = Arc::new(Inbox::new(SHARD_QUEUE_MAX));
        Self { inbox, rooms: Mutex::default(), stopped: AtomicBool::new(false), context }
    }

    /// Queues a command; blocks while the queue is full. After [`retire`](Self::retire) commands
    /// are dropped, and who waits for their answer hears that none comes.
    pub(super) fn send(&self, command: Command) {
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        self.context.metrics.shard_queue_depth.inc();
        self.inbox.send(command);
        // It may have been retired between the question and the send; then this is ours to drop.
        if self.stopped.load(Ordering::Acquire) {
            self.drop_queued();
        }
    }

    /// For the time after the worker's end: nothing is queued any more, and what was is dropped.
    pub(super) fn retire(&self) {
        self.stopped.store(true, Ordering::Release);
        self.drop_queued();
    }

    fn drop_queued(&self) {
        while self.inbox.try_recv().is_some() {
            self.context.metrics.shard_queue_depth.dec();
        }
    }

    /// Sleeps until there is a command or the time is over.
    pub(super) fn sleep(&self, wait: Wait) {
        match wait {
            Wait::No | Wait::Stop => {}
            Wait::Until(instant) => self.inbox.wait(Some(instant)),
            Wait::ForCommand => self.inbox.wait(None),
        }
    }

    /// One turn of the worker: applies what is queued, delivers what that brought, serves a slice of
    /// each large fan-out, and looks for idle rooms.
    ///
    /// A panic while a turn runs costs the rooms of the shard their memory, not their messages: all
    /// their listeners are told to subscribe again and recover.
    pub(super) fn turn(&self) -> Wait {
        let mut rooms = self.lock();
        let mut stop = false;
        catch_unwind(AssertUnwindSafe(|| self.turn_with(&mut rooms, &mut stop))).unwrap_or_else(|_| {
            tracing::error!("a worker panicked; its rooms start anew");
            rooms.dissolve(&self.context);
            if stop { Wait::Stop } else { Wait::No }
        })
    }

    /// `stop` becomes true when it was told to, and stays that when this panics.
    fn turn_with(&self, rooms: &mut Rooms, stop: &mut bool) -> Wait {
        let mut applied = 0;
        while applied < SHARD_TURN_COMMANDS_MAX {
            match self.inbox.try_recv() {
                Some(Command::Stop) => *stop = true,
                Some(command) => rooms.apply(command, &self.context),
                None => break,
            }
            applied += 1;
        }
        if applied > 0 {
            self.context.metrics.shard_turn_commands.observe(applied as f64);
            self.context.metrics.shard_queue_depth.sub(applied as i64);
        }
        rooms.deliver(false, &self.inbox, &self.context);
        if !rooms.is_busy() {
            rooms.settling.clear();
        }
        rooms.evict_idle(Instant::now(), &self.context);
        if *stop {
            self.finish(rooms);
            return Wait::Stop;
        }
        if rooms.has_work() || !self.inbox.is_empty() {
            return Wait::No;
        }
        rooms.next_timer().map_or(Wait::ForCommand, Wait::Until)
    }

    /// Serves all that is to be served and nothing that comes now.
    fn finish(&self, rooms: &mut Rooms) {
        while rooms.is_busy() {
            rooms.deliver(false, &self.inbox, &self.context);
            if !rooms.has_work() && rooms.in_flight > 0 {
                self.inbox.wait(None);
            }
            while let Some(command) = self.inbox.try_recv() {
                self.context.metrics.shard_queue_depth.dec();
                if let Command::Served { channel } = command {
                    rooms.land(channel, &self.context);
                }
            }
        }
    }

    /// For the thread that committed one publication: the right to deliver it itself, if the shard
    /// is idle, nothing is queued, and the room is small.
    pub(super) fn try_own(&self, channel: &Channel) -> Option<Owned<'_>> {
        let rooms = match self.rooms.try_lock() {
            Ok(rooms) => rooms,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let idle = self.inbox.is_empty() && !rooms.has_work();
        (idle && rooms.goes_inline(channel, &self.context)).then_some(Owned { shard: self, rooms })
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        lock(&self.rooms)
    }
}

/// An idle shard in the hands of a committing thread.
pub(super) struct Owned<'a> {
    shard: &'a Shard,
    rooms: MutexGuard<'a, Rooms>,
}

impl Owned<'_> {
    /// Delivers the publication inline and gives the shard back.
    pub(super) fn deliver(mut self, publication: Publication, committed_at: Instant) {
        let context = &self.shard.context;
        let command = Command::Publish { publications: vec![publication], committed_at };
        let rooms = &mut *self.rooms;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let timers_before = rooms.timers.len();
            rooms.apply(command, context);
            rooms.deliver(true, &self.shard.inbox, context);
            rooms.timers.len() != timers_before || rooms.has_work()
        }));
        match outcome {
            Ok(false) => {}
            // The worker sleeps with the old timers in mind, or does not know of work that is left.
            Ok(true) => self.wake_worker(),
            Err(_) => {
                tracing::error!("an inline delivery panicked; the rooms of its shard start anew");
                rooms.dissolve(context);
            }
        }
    }

    fn wake_worker(&self) {
        // A full queue means that the worker is awake.
        if self.shard.inbox.try_send(Command::Nothing) {
            self.shard.context.metrics.shard_queue_depth.inc();
        }
    }
}

/// The rooms of one shard.
#[derive(Debug, Default)]
struct Rooms {
    active: AHashMap<Channel, Room>,
    /// Rooms with something to send.
    dirty: Vec<Channel>,
    /// Rooms with a fan-out under way; each gets a slice a turn.
    sliced: VecDeque<Channel>,
    /// How many rooms have a slice with the pool.
    in_flight: usize,
    /// When to see whether a room is idle; exactly one entry an active room.
    timers: BTreeSet<(Instant, Channel)>,
    /// Who waits for everything to be sent.
    settling: Vec<Sender<()>>,
    /// What the operator wants for single rooms, active or not.
    wishes: AHashMap<Channel, Delivery>,
}

impl Rooms {
    /// True when the sender of a publication should deliver it itself; the shard is idle.
    fn goes_inline(&self, channel: &Channel, context: &Context) -> bool {
        // Without a room in memory there is nobody to deliver to.
        let choice = self.active.get(channel).map(|room| room.choose(&context.thresholds, true));
        choice.is_none_or(|choice| choice.strategy == Strategy::Inline)
    }

    fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.sliced.is_empty()
    }

    /// True while there is work, here or with the pool.
    fn is_busy(&self) -> bool {
        self.has_work() || self.in_flight > 0
    }

    fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn apply(&mut self, command: Command, context: &Context) {
        match command {
            Command::Publish { publications, committed_at } => {
                for publication in publications {
                    self.publish(publication, committed_at, context);
                }
            }
            Command::Join(ref join) => {
                let channel = join.channel.clone();
                self.activate(&channel, context).apply_or_defer(command, context);
            }
            Command::Leave { ref channel, .. } => {
                if let Some(room) = self.active.get_mut(channel) {
                    room.apply_or_defer(command, context);
                }
            }
            Command::CaughtUp(ref job) => {
                if let Some(room) = self.active.get_mut(job.channel()) {
                    room.apply_or_defer(command, context);
                }
            }
            Command::Head { channel, head } => self.on_head(&channel, head, context),
            Command::Served { channel } => self.land(channel, context),
            Command::Presence { channel, answer } => {
                let presence = self.active.get(&channel).map(Room::presence).unwrap_or_default();
                let _ = answer.try_send(presence);
            }
            Command::Status { query, answer } => {
                let _ = answer.try_send(self.status(&query));
            }
            Command::Wish { channel, wish, answer } => {
                let _ = answer.try_send(self.wish(channel, wish));
            }
            Command::Nothing => {}
            Command::Settle { done } => self.settling.push(done),
            Command::Stop => {}
        }
    }

    fn publish(&mut self, publication: Publication, committed_at: Instant, context: &Context) {
        context.metrics.publications_total.inc();
        let channel = publication.channel.clone();
        let room = self.activate(&channel, context);
        room.publish(publication, committed_at, context);
        if room.wants_fan_out() && self.dirty.last() != Some(&channel) {
            self.dirty.push(channel);
        }
    }

    fn on_head(&mut self, channel: &Channel, head: Option<Seq>, context: &Context) {
        if let Some(room) = self.active.get_mut(channel) {
            room.on_head(head, context);
        }
    }

    /// The room, brought into memory if it was not, and marked as used now.
    fn activate(&mut self, channel: &Channel, context: &Context) -> &mut Room {
        let now = Instant::now();
        let room = self.active.entry(channel.clone()).or_insert_with(|| {
            context.metrics.rooms_active.inc();
            context.metrics.activations_total.inc();
            self.timers.insert((now + context.idle_timeout, channel.clone()));
            let wish = self.wishes.get(channel).copied();
            Room::new(channel.clone(), context.options(channel), wish, now)
        });
        room.last_activity = now;
        room
    }

    /// Starts the fan-outs of this turn and gives each large one that is under way one slice.
    fn deliver(&mut self, sender_holds_idle_shard: bool, inbox: &Arc<Inbox<Command>>, context: &Context) {
        for _ in 0..self.sliced.len() {
            let Some(channel) = self.sliced.pop_front() else { break };
            self.step(channel, inbox, context);
        }
        for channel in std::mem::take(&mut self.dirty) {
            let Some(room) = self.active.get_mut(&channel) else { continue };
            if room.wants_fan_out() {
                room.begin_fan_out(&context.thresholds, sender_holds_idle_shard);
                self.step(channel, inbox, context);
            }
        }
    }

    fn step(&mut self, channel: Channel, inbox: &Arc<Inbox<Command>>, context: &Context) {
        let Some(room) = self.active.get_mut(&channel) else { return };
        let done = {
            let (inbox, channel, metrics) = (inbox.clone(), channel.clone(), context.metrics.clone());
            move || {
                metrics.shard_queue_depth.inc();
                inbox.send(Command::Served { channel: channel.clone() });
            }
        };
        room.step_fan_out(done, context);
        if room.is_in_flight() {
            self.in_flight += 1;
        } else {
            self.go_on(channel);
        }
    }

    /// Takes back a slice that the pool has served.
    fn land(&mut self, channel: Channel, context: &Context) {
        let Some(room) = self.active.get_mut(&channel) else { return };
        if room.land(context) {
            self.in_flight -= 1;
            self.go_on(channel);
        }
    }

    /// Has a room in line again if it has more to send.
    fn go_on(&mut self, channel: Channel) {
        let Some(room) = self.active.get(&channel) else { return };
        if room.in_fan_out() {
            self.sliced.push_back(channel);
        } else if room.wants_fan_out() {
            self.dirty.push(channel);
        }
    }

    /// Lets idle rooms go, a bounded number a turn.
    fn evict_idle(&mut self, now: Instant, context: &Context) {
        for _ in 0..EVICTIONS_PER_TURN_MAX {
            match self.timers.first() {
                Some((at, _)) if *at <= now => {}
                _ => return,
            }
            let Some((_, channel)) = self.timers.pop_first() else { return };
            let Some(room) = self.active.get_mut(&channel) else { continue };
            let idle_at = room.last_activity + context.idle_timeout;
            if idle_at > now {
                self.timers.insert((idle_at, channel));
            } else if room.is_unused() {
                self.active.remove(&channel);
                context.metrics.rooms_active.dec();
                context.metrics.evictions_total.inc();
            } else {
                room.rest();
                self.timers.insert((now + context.idle_timeout, channel));
            }
        }
    }

    fn wish(&mut self, channel: Channel, wish: Option<Delivery>) -> bool {
        if let Some(room) = self.active.get_mut(&channel) {
            room.wish(wish);
        }
        match wish {
            None => {
                self.wishes.remove(&channel);
            }
            Some(_) if self.wishes.len() >= WISHES_PER_SHARD_MAX && !self.wishes.contains_key(&channel) => {
                return false;
            }
            Some(wish) => {
                self.wishes.insert(channel, wish);
            }
        }
        true
    }

    fn status(&self, query: &RoomQuery) -> Vec<RoomStatus> {
        let now = Instant::now();
        let mut rooms: Vec<(u64, &Room)> = self
            .active
            .values()
            .filter(|room| (query.matches)(room.channel()))
            .map(|room| (room.rank(query.order, now), room))
            .collect();
        if rooms.len() > query.limit {
            rooms.select_nth_unstable_by_key(query.limit, |(rank, _)| Reverse(*rank));
            rooms.truncate(query.limit);
        }
        rooms.into_iter().map(|(_, room)| room.status(now)).collect()
    }

    /// Drops all rooms and tells their listeners to come again.
    fn dissolve(&mut self, context: &Context) {
        let wishes = std::mem::take(&mut self.wishes);
        for room in std::mem::take(self).active.values_mut() {
            context.metrics.rooms_active.dec();
            room.dissolve(context);
        }
        self.wishes = wishes;
    }
}
