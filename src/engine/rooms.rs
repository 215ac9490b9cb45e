//! The rooms of one shard: which are in memory, which have something to send, and when they are idle.
//!
//! Only the owner of the shard touches them. Exactly one timer an active room; a room with something
//! to send is in `dirty`, with a fan-out under way in `sliced` or with the pool, never in two of them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use ahash::AHashMap;
use crossbeam_channel::Sender;

use super::catch_up::lookups::{HeadQuestion, ReadHead};
use super::command::Command;
use super::commit::CommitTimes;
use super::context::Context;
use super::delivery::choice::Strategy;
use super::epoch::Epoch;
use super::inspect::{RoomQuery, RoomStatus};
use super::mailboxes::Mailbox;
use super::room::change::RoomChange;
use super::room::state::{HistoryForked, Room};
use super::room_map::{Named, RoomMap};
use crate::config::Delivery;
use crate::ids::Channel;
use crate::limits::{EVICTIONS_PER_TURN_MAX, STRATEGY_OVERRIDES_PER_SHARD_MAX};
use crate::publication::Publication;
use crate::store::Found;
use crate::sync::Arc;

/// Rooms of a shard up to which a debug build checks each of them after every turn.
const ROOMS_CHECKED_MAX: usize = 64;

/// The rooms of one shard.
#[derive(Debug)]
pub(super) struct Rooms {
    /// The history that the positions of its rooms belong to.
    epoch: Epoch,
    active: RoomMap<Room>,
    /// Rooms with something to send.
    dirty: Vec<Channel>,
    /// Rooms with a fan-out under way on this shard; each gets a slice a turn.
    sliced: VecDeque<Channel>,
    /// Number of rooms that have a slice with the pool.
    in_flight: usize,
    /// Times at which rooms may be idle; exactly one entry an active room.
    timers: BTreeSet<(Instant, Channel)>,
    /// Callers that wait for everything to be sent.
    flushes: Vec<Sender<()>>,
    /// The delivery an operator set for single rooms, active or not.
    strategy_overrides: AHashMap<Channel, Delivery>,
    /// A test wants the next delivery to panic.
    #[cfg(all(test, not(feature = "model")))]
    pub(super) panic_next: bool,
}

impl Named for Room {
    fn channel(&self) -> &Channel {
        self.channel()
    }
}

impl Rooms {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            active: RoomMap::default(),
            dirty: Vec::new(),
            sliced: VecDeque::new(),
            in_flight: 0,
            timers: BTreeSet::new(),
            flushes: Vec::new(),
            strategy_overrides: AHashMap::new(),
            #[cfg(all(test, not(feature = "model")))]
            panic_next: false,
        }
    }

    /// True when the sender of a publication should deliver it itself; the shard is idle.
    pub(super) fn goes_inline(&self, channel: &Channel, context: &Context) -> bool {
        // Without a room in memory there is nobody to deliver to.
        let choice = self.active.get(channel).map(|room| room.choose(&context.rooms, true));
        choice.is_none_or(|choice| choice.strategy == Strategy::Inline)
    }

    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.sliced.is_empty()
    }

    /// True while there is work, here or with the pool.
    pub(super) fn is_busy(&self) -> bool {
        self.has_work() || self.in_flight > 0
    }

    /// True when the only work left is with the pool.
    pub(super) fn waits_for_pool(&self) -> bool {
        !self.has_work() && self.in_flight > 0
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn apply(&mut self, command: Command, context: &Context) {
        match command {
            Command::Publish { publications, times } => {
                for publication in publications {
                    self.publish(publication, times, context);
                }
            }
            Command::Change(change) => self.change(change, context),
            Command::Head { question, head } => self.on_head(&question, head, context),
            Command::Found(found) => self.on_found(found, context),
            Command::StartAnew { epoch } => self.start_anew(epoch, context),
            Command::SliceDone { channel } => self.finish_slice(channel, context),
            Command::Presence { channel, answer } => {
                let presence = self.active.get(&channel).map(Room::presence).unwrap_or_default();
                let _ = answer.try_send(presence);
            }
            Command::Status { query, answer } => {
                let _ = answer.try_send(self.status(&query));
            }
            Command::OverrideStrategy { channel, delivery, answer } => {
                let _ = answer.try_send(self.override_strategy(channel, delivery));
            }
            Command::Flush { done } => self.flushes.push(done),
            Command::Wake | Command::Stop => {}
        }
    }

    /// Only a join brings a room into memory; without it there is nobody to leave or to catch up.
    fn change(&mut self, change: RoomChange, context: &Context) {
        let room = match &change {
            RoomChange::Join(join) => Some(self.activate(join.channel(), context)),
            change => self.active.get_mut(change.channel()),
        };
        if let Some(room) = room {
            let channel = room.channel().clone();
            room.apply_or_defer(change, context);
            self.settle(&channel, context);
        }
    }

    fn publish(&mut self, publication: Publication, times: CommitTimes, context: &Context) {
        context.metrics.publications_total.inc();
        let channel = publication.channel.clone();
        if let Err(publication) = self.activate(&channel, context).publish(publication, times, context) {
            self.doubt(&channel, context);
            let taken = self.activate(&channel, context).publish(publication, times, context);
            debug_assert!(taken.is_ok(), "a room that starts anew knows no numbers");
        }
        let Some(room) = self.active.get(&channel) else { return };
        if !room.wants_fan_out() {
            self.settle(&channel, context);
        } else if self.dirty.last() != Some(&channel) {
            self.dirty.push(channel);
        }
    }

    fn on_head(&mut self, question: &Arc<HeadQuestion>, head: Option<ReadHead>, context: &Context) {
        let channel = question.channel();
        let Some(room) = self.active.get_mut(channel) else { return };
        match room.on_head(question, head, context) {
            Ok(()) if room.wants_fan_out() => self.dirty.push(channel.clone()),
            Ok(()) => self.settle(channel, context),
            Err(HistoryForked) => self.doubt(channel, context),
        }
    }

    /// A room that is not in memory reads its head when it is.
    fn on_found(&mut self, found: Found, context: &Context) {
        let channel = found.channel.clone();
        let is_ours = self.epoch.is_settled(&found.epoch);
        let Some(room) = self.active.get_mut(&channel).filter(|_| is_ours) else { return };
        room.on_found(found, context);
        if room.wants_fan_out() {
            self.dirty.push(channel);
        } else {
            self.settle(&channel, context);
        }
    }

    /// A room has seen that numbers were given twice. Its shard starts anew at once, and recovers nobody until
    /// the history has another name, which the pool asks for.
    fn doubt(&mut self, channel: &Channel, context: &Context) {
        tracing::warn!(%channel, "the log went back behind messages that were delivered");
        context.catch_up.doubt(self.epoch.name());
        self.reset(context);
        self.epoch = self.epoch.doubted();
    }

    /// The history has another name.
    fn start_anew(&mut self, epoch: Arc<str>, context: &Context) {
        if !self.epoch.is_settled(&epoch) {
            self.reset(context);
            self.epoch = Epoch::new(epoch);
        }
    }

    /// The room, brought into memory if it was not, and marked as used now.
    fn activate(&mut self, channel: &Channel, context: &Context) -> &mut Room {
        let now = Instant::now();
        let room = self.active.get_or_insert_with(channel, || {
            context.metrics.rooms_active.inc();
            context.metrics.activations_total.inc();
            let timer = now + context.rooms.idle_timeout;
            self.timers.insert((timer, channel.clone()));
            let delivery = self.strategy_overrides.get(channel).copied();
            Room::new(channel.clone(), self.epoch.clone(), context.options(channel), delivery, (now, timer))
        });
        room.usage.last_activity = now;
        room
    }

    /// Delivers publications for the thread that committed them, which holds the idle shard. True when the
    /// worker may sleep on: it knows of every timer and there is no work left.
    pub(super) fn deliver_inline(
        &mut self,
        publications: Vec<Publication>,
        times: CommitTimes,
        mailbox: &Arc<Mailbox>,
        context: &Context,
    ) -> bool {
        let timer_before = self.next_timer();
        for publication in publications {
            self.publish(publication, times, context);
        }
        self.deliver(true, mailbox, context);
        self.assert_consistent();
        let knows_timers = self.next_timer().is_none_or(|timer| timer_before.is_some_and(|at| at <= timer));
        knows_timers && !self.has_work()
    }

    /// Starts the fan-outs of this turn and gives each large one that is under way one slice.
    pub(super) fn deliver(
        &mut self,
        sender_holds_idle_shard: bool,
        mailbox: &Arc<Mailbox>,
        context: &Context,
    ) {
        #[cfg(all(test, not(feature = "model")))]
        assert!(!self.panic_next, "a test wants this panic");
        for _ in 0..self.sliced.len() {
            let Some(channel) = self.sliced.pop_front() else { break };
            self.step(channel, mailbox, context);
        }
        for channel in std::mem::take(&mut self.dirty) {
            let Some(room) = self.active.get_mut(&channel) else { continue };
            if room.wants_fan_out() {
                room.begin_fan_out(&context.rooms, sender_holds_idle_shard);
                self.step(channel, mailbox, context);
            }
        }
    }

    fn step(&mut self, channel: Channel, mailbox: &Arc<Mailbox>, context: &Context) {
        let Some(room) = self.active.get_mut(&channel) else { return };
        debug_assert!(!room.is_in_flight(), "a room has one slice at a time");
        room.step_fan_out(mailbox, context);
        if room.is_in_flight() {
            self.in_flight += 1;
        } else {
            self.queue_again(channel, context);
        }
    }

    /// Takes back a slice that the pool has served.
    pub(super) fn finish_slice(&mut self, channel: Channel, context: &Context) {
        let Some(room) = self.active.get_mut(&channel) else { return };
        if room.finish_slice(context) {
            debug_assert!(self.in_flight > 0, "a slice was finished that nobody began");
            self.in_flight -= 1;
            self.queue_again(channel, context);
        }
    }

    /// Queues a room again if it has more to send. At the end of its fan-out its last member may have left.
    fn queue_again(&mut self, channel: Channel, context: &Context) {
        let Some(room) = self.active.get(&channel) else { return };
        if room.in_fan_out() {
            self.sliced.push_back(channel);
        } else if room.wants_fan_out() {
            self.dirty.push(channel);
        } else {
            self.settle(&channel, context);
        }
    }

    /// The end of a worker's turn: answers flushes, lets idle rooms go, checks what is said above.
    pub(super) fn end_turn(&mut self, now: Instant, context: &Context) {
        if !self.is_busy() {
            self.flushes.clear();
        }
        self.evict_idle(now, context);
        self.assert_consistent();
    }

    /// Lets a room go that nobody uses and that need not stay, or sets its timer to the end of its stay. For
    /// every room after what may have ended its use.
    fn settle(&mut self, channel: &Channel, context: &Context) {
        let Some(room) = self.active.get_mut(channel).filter(|room| room.is_unused()) else { return };
        let Some(idle_at) = room.idle_at(context.rooms.idle_timeout) else {
            self.timers.remove(&(room.usage.timer, channel.clone()));
            return self.let_go(channel, context);
        };
        if idle_at < room.usage.timer {
            let moved = self.timers.remove(&(room.usage.timer, channel.clone()));
            debug_assert!(moved, "the timer of a room is another one");
            room.usage.timer = idle_at;
            self.timers.insert((idle_at, channel.clone()));
        }
    }

    /// Drops a room whose timer is gone.
    fn let_go(&mut self, channel: &Channel, context: &Context) {
        self.active.remove(channel);
        context.metrics.rooms_active.dec();
        context.metrics.evictions_total.inc();
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
            match room.next_timer(now, context.rooms.idle_timeout) {
                Some(timer) => {
                    room.usage.timer = timer;
                    self.timers.insert((timer, channel));
                }
                None => self.let_go(&channel, context),
            }
        }
    }

    /// False when too many rooms have an override already.
    fn override_strategy(&mut self, channel: Channel, delivery: Option<Delivery>) -> bool {
        let overrides = &mut self.strategy_overrides;
        let Some(wanted) = delivery else {
            overrides.remove(&channel);
            self.note_override(&channel, None);
            return true;
        };
        if overrides.len() >= STRATEGY_OVERRIDES_PER_SHARD_MAX && !overrides.contains_key(&channel) {
            return false;
        }
        self.note_override(&channel, delivery);
        self.strategy_overrides.insert(channel, wanted);
        true
    }

    fn note_override(&mut self, channel: &Channel, delivery: Option<Delivery>) {
        if let Some(room) = self.active.get_mut(channel) {
            room.override_strategy(delivery);
        }
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
    pub(super) fn reset(&mut self, context: &Context) {
        let overrides = std::mem::take(&mut self.strategy_overrides);
        let anew = Self::new(self.epoch.clone());
        for room in std::mem::replace(self, anew).active.values_mut() {
            context.metrics.rooms_active.dec();
            room.reset(context);
        }
        self.strategy_overrides = overrides;
    }

    /// Checks between two turns what the head of this file says; rooms one by one only while they are few.
    fn assert_consistent(&self) {
        debug_assert_eq!(self.timers.len(), self.active.len(), "exactly one timer an active room");
        debug_assert!(self.strategy_overrides.len() <= STRATEGY_OVERRIDES_PER_SHARD_MAX);
        debug_assert!(self.in_flight <= self.active.len(), "one slice a room at most");
        if cfg!(debug_assertions) && self.active.len() <= ROOMS_CHECKED_MAX {
            let in_flight = self.active.values().filter(|room| room.is_in_flight()).count();
            assert_eq!(self.in_flight, in_flight, "slices with the pool were counted wrongly");
            for room in self.active.values() {
                let channel = room.channel();
                room.assert_consistent();
                let (dirty, sliced) = (self.dirty.contains(channel), self.sliced.contains(channel));
                assert!(!room.wants_fan_out() || dirty, "a room with something to send is forgotten");
                let steps = room.in_fan_out() && !room.is_in_flight();
                assert_eq!(sliced, steps, "a fan-out is stepped by the shard or served by the pool");
            }
            let timed = |(_, channel): &(Instant, Channel)| self.active.get(channel).is_some();
            assert!(self.timers.iter().all(timed), "a timer of a room that is gone");
        }
    }
}
