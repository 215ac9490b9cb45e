//! Group commit by the committing threads themselves: leader and followers.
//!
//! A thread puts what it wants committed into the lane. If nobody is committing it becomes the
//! leader: it takes everything that waits, commits it as one batch, and hands out the results; if
//! more waits by then, it makes the first waiter the next leader. So batches are as large as the
//! load makes them, a lone commit waits for nobody, and there is no timer and no thread. Knows
//! nothing of what is committed: the work is a closure, the items are opaque.
//!
//! Exactly one thread is leader while anything waits; batches are committed one after the other, in
//! the order their items came in.

mod rule;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

pub(crate) use rule::BatchLimits;

/// What the lane has to know of an item.
pub(crate) trait Item {
    /// Its share of a batch, in bytes.
    fn bytes(&self) -> usize;
}

/// What a batch came to: one result an item, and what the leader does once others may commit.
pub(crate) struct Committed<'a, R> {
    pub(crate) results: Vec<R>,
    pub(crate) afterwards: Option<Box<dyn FnOnce() + 'a>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane<T, R> {
    state: Mutex<State<T, R>>,
    limits: BatchLimits,
    /// The result of an item whose batch panicked.
    on_panic: fn() -> R,
}

#[derive(Debug)]
struct State<T, R> {
    queue: VecDeque<(T, Arc<Ticket<R>>)>,
    /// A leader exists: it commits, or was named and is waking up.
    led: bool,
}

/// Where the results of one submission are gathered.
#[derive(Debug)]
struct Ticket<R> {
    progress: Mutex<Progress<R>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Progress<R> {
    results: Vec<R>,
    expected: usize,
    /// Its thread is to lead.
    named_leader: bool,
}

impl<T: Item, R> Lane<T, R> {
    pub(crate) fn new(limits: BatchLimits, on_panic: fn() -> R) -> Self {
        let state = State { queue: VecDeque::new(), led: false };
        Self { state: Mutex::new(state), limits, on_panic }
    }

    /// Has the items committed, in order, and returns their results in the same order. The caller
    /// may have to commit for others meanwhile, with `commit`, which must do the same whoever calls.
    pub(crate) fn submit<'a>(&self, items: Vec<T>, commit: impl Fn(Vec<T>) -> Committed<'a, R>) -> Vec<R> {
        if items.is_empty() {
            return Vec::new();
        }
        let ticket = Arc::new(Ticket::new(items.len()));
        let mut leads = {
            let mut state = self.lock();
            state.queue.extend(items.into_iter().map(|item| (item, ticket.clone())));
            !std::mem::replace(&mut state.led, true)
        };
        loop {
            if leads {
                self.lead(&ticket, &commit);
            }
            match ticket.wait() {
                Some(results) => return results,
                None => leads = true,
            }
        }
    }

    /// Commits batches until the leader's own items are done, then lets the next one lead.
    fn lead<'a>(&self, own: &Ticket<R>, commit: &impl Fn(Vec<T>) -> Committed<'a, R>) {
        let mut afterwards: Option<Box<dyn FnOnce() + 'a>> = None;
        while !own.is_done() {
            if let Some(afterwards) = afterwards.take() {
                afterwards();
            }
            let (items, tickets) = self.take_batch();
            let committed = catch_unwind(AssertUnwindSafe(|| commit(items))).unwrap_or_else(|_| {
                tracing::error!("a commit panicked; its messages are refused");
                Committed { results: tickets.iter().map(|_| (self.on_panic)()).collect(), afterwards: None }
            });
            afterwards = committed.afterwards;
            hand_out(tickets, committed.results);
        }
        self.pass_on();
        if let Some(afterwards) = afterwards {
            afterwards();
        }
    }

    fn take_batch(&self) -> (Vec<T>, Vec<Arc<Ticket<R>>>) {
        let mut state = self.lock();
        let sizes = state.queue.iter().map(|(item, _)| item.bytes());
        let length = rule::batch_length(sizes, self.limits);
        state.queue.drain(..length).unzip()
    }

    /// Names the first waiter leader, or leaves the lane without one if nobody waits.
    fn pass_on(&self) {
        let next = {
            let mut state = self.lock();
            let next = state.queue.front().map(|(_, ticket)| ticket.clone());
            state.led = next.is_some();
            next
        };
        if let Some(next) = next {
            next.name_leader();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives each ticket its results; neighbours of one submission share a lock and a wake-up.
fn hand_out<R>(tickets: Vec<Arc<Ticket<R>>>, results: Vec<R>) {
    let mut pairs = tickets.into_iter().zip(results).peekable();
    while let Some((ticket, result)) = pairs.next() {
        let mut own = vec![result];
        while let Some((_, result)) = pairs.next_if(|(other, _)| Arc::ptr_eq(other, &ticket)) {
            own.push(result);
        }
        ticket.add(own);
    }
}

impl<R> Ticket<R> {
    fn new(expected: usize) -> Self {
        let progress = Progress { results: Vec::with_capacity(expected), expected, named_leader: false };
        Self { progress: Mutex::new(progress), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Progress<R>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        let progress = self.lock();
        progress.results.len() == progress.expected
    }

    fn add(&self, results: Vec<R>) {
        let mut progress = self.lock();
        progress.results.extend(results);
        if progress.results.len() == progress.expected {
            self.changed.notify_one();
        }
    }

    fn name_leader(&self) {
        self.lock().named_leader = true;
        self.changed.notify_one();
    }

    /// Waits for all results, or (`None`) for being named leader.
    fn wait(&self) -> Option<Vec<R>> {
        let mut progress = self.lock();
        loop {
            if progress.results.len() == progress.expected {
                return Some(std::mem::take(&mut progress.results));
            }
            if std::mem::take(&mut progress.named_leader) {
                return None;
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests;
