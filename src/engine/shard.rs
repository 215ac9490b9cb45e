//! A shard: the rooms that hash to it, who may touch them, and the life of its worker.
//!
//! Ownership protocol: whoever holds the lock of the state owns the rooms. Commands leave the mailbox
//! only while the lock is held, so "the mailbox is empty and I hold the lock" means that nothing is
//! outstanding. That is what makes inline delivery and eviction safe.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::command::Command;
use super::commit::CommitTimes;
use super::context::Context;
use super::epoch::Epoch;
use super::mailboxes::Mailbox;
use super::rooms::Rooms;
use crate::limits::SHARD_TURN_COMMANDS_MAX;
use crate::publication::Publication;
use crate::sync::{Arc, Mutex, MutexGuard, TryLockError, lock};

/// The rooms of one mailbox and their lock. Shared by the shard's worker and committing threads.
#[derive(Debug)]
pub(super) struct Shard {
    mailbox: Arc<Mailbox>,
    rooms: Mutex<Rooms>,
    context: Arc<Context>,
}

/// Time at which the worker has to look again if no command comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// At once: a fan-out has slices left, or the mailbox was not emptied.
    No,
    /// At this time a room may be idle.
    Until(Instant),
    /// Only for a command.
    ForCommand,
    /// Never: the worker was told to stop.
    Stop,
}

impl Shard {
    pub(super) fn new(mailbox: Arc<Mailbox>, epoch: Arc<str>, context: Arc<Context>) -> Self {
        Self { mailbox, rooms: Mutex::new(Rooms::new(Epoch::new(epoch))), context }
    }

    /// The life of the worker.
    pub(super) fn run(&self) {
        loop {
            match self.turn() {
                Wait::Stop => return,
                wait => self.sleep(wait),
            }
        }
    }

    /// Sleeps until there is a command or the time is over.
    pub(super) fn sleep(&self, wait: Wait) {
        match wait {
            Wait::No | Wait::Stop => {}
            Wait::Until(instant) => self.mailbox.wait(Some(instant)),
            Wait::ForCommand => self.mailbox.wait(None),
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
            self.reset_after_panic(&mut rooms);
            if stop { Wait::Stop } else { Wait::No }
        })
    }

    /// `stop` becomes true when the worker was told to, and stays that when this panics.
    fn turn_with(&self, rooms: &mut Rooms, stop: &mut bool) -> Wait {
        let mut applied = 0;
        while applied < SHARD_TURN_COMMANDS_MAX {
            match self.mailbox.try_take() {
                Some(Command::Stop) => *stop = true,
                Some(command) => rooms.apply(command, &self.context),
                None => break,
            }
            applied += 1;
        }
        if applied > 0 {
            self.context.metrics.shard_turn_commands.observe(applied as f64);
            self.mailbox.count_taken(applied);
        }
        rooms.deliver(false, &self.mailbox, &self.context);
        rooms.end_turn(Instant::now(), &self.context);
        if *stop {
            self.finish(rooms);
            return Wait::Stop;
        }
        if rooms.has_work() || !self.mailbox.is_empty() {
            return Wait::No;
        }
        rooms.next_timer().map_or(Wait::ForCommand, Wait::Until)
    }

    /// Serves all that is to be served and nothing that comes now.
    fn finish(&self, rooms: &mut Rooms) {
        while rooms.is_busy() {
            rooms.deliver(false, &self.mailbox, &self.context);
            if rooms.waits_for_pool() {
                self.mailbox.wait(None);
            }
            while let Some(command) = self.mailbox.try_take() {
                self.mailbox.count_taken(1);
                if let Command::SliceDone { channel } = command {
                    rooms.finish_slice(channel, &self.context);
                }
            }
        }
        debug_assert!(!rooms.is_busy(), "a stopped shard owes nobody a message");
    }

    /// Counts the panic, because tests tell a broken invariant by that.
    fn reset_after_panic(&self, rooms: &mut Rooms) {
        tracing::error!("a delivery panicked; the rooms of its shard start anew");
        self.context.metrics.shard_panics_total.inc();
        rooms.reset(&self.context);
    }

    /// For the thread that committed publications: the right to deliver them itself, if the shard
    /// is idle, nothing is queued, and their rooms are small.
    pub(super) fn try_own(&self, publications: &[Publication]) -> Option<Owned<'_>> {
        let rooms = match self.rooms.try_lock() {
            Ok(rooms) => rooms,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let idle = self.mailbox.is_empty() && !rooms.has_work();
        let small = |publication: &Publication| rooms.goes_inline(&publication.channel, &self.context);
        (idle && publications.iter().all(small)).then_some(Owned { shard: self, rooms })
    }

    /// Lets the next delivery of this shard panic.
    #[cfg(all(test, not(feature = "model")))]
    pub(super) fn panic_next(&self) {
        self.lock().panic_next = true;
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
    /// Delivers the publications inline and gives the shard back.
    pub(super) fn deliver(mut self, publications: Vec<Publication>, times: CommitTimes) {
        let Self { shard, ref mut rooms } = self;
        let delivered = catch_unwind(AssertUnwindSafe(|| {
            rooms.deliver_inline(publications, times, &shard.mailbox, &shard.context)
        }));
        match delivered {
            Ok(worker_may_sleep) if worker_may_sleep => {}
            Ok(_) => shard.mailbox.wake(),
            Err(_) => shard.reset_after_panic(rooms),
        }
    }
}
