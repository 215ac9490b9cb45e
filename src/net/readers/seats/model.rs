//! The seats in every order of steps: whatever may come to a connection comes at the same time, while two readers
//! serve it. It has one owner at any time, every wake-up leads to a turn that begins after it, and an event that is
//! waited for is not missed.

mod answer;
mod ends;

use std::collections::VecDeque;

use shuttle::thread;

use super::*;
use crate::net::readers::wait::{Interest, Next, Wait};
use crate::outbox::{Reader, Work};
use crate::sync::model::explore;
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, lock, wait};

const ID: ConnectionId = ConnectionId(1);

/// A connection of a scenario.
trait Probe: Send + 'static {
    fn turn(&mut self, found: Found) -> Next;
}

/// What a turn finds.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Bytes came, which the turn reads.
    bytes: bool,
    /// The socket takes bytes.
    space: bool,
    /// Its deadline has passed.
    due: bool,
}

/// The readers, with a socket in a few flags.
struct Pool<C> {
    seats: Seats<C>,
    state: Mutex<State<C>>,
    changed: Condvar,
}

/// Something that waits for a reader.
enum Task<C> {
    Turn(Box<C>),
    Asked,
    /// What the socket was armed for has come.
    Event,
}

struct State<C> {
    queue: VecDeque<Task<C>>,
    armed: Option<Interest>,
    /// Bytes that nobody read yet.
    bytes: bool,
    space: bool,
    /// Things that were asked for so far.
    asked: usize,
    /// Those that the last turn has seen.
    seen: usize,
    in_turn: bool,
    /// It is listed for its deadline.
    listed: bool,
    /// Times that the deadline has come: the first is for a ping, the second ends it.
    ticks: usize,
    due_seen: bool,
    /// The interest with which it was parked last.
    interest: Option<Interest>,
    /// It has ended.
    over: bool,
    stopped: bool,
}

impl<C: Probe> Pool<C> {
    /// Readers that are about to give the connection its first turn.
    fn new(probe: impl FnOnce(&Arc<Self>) -> C) -> Arc<Self> {
        let state = State {
            queue: VecDeque::new(),
            armed: None,
            bytes: false,
            space: false,
            asked: 0,
            seen: 0,
            in_turn: false,
            listed: false,
            ticks: 0,
            due_seen: false,
            interest: None,
            over: false,
            stopped: false,
        };
        let pool =
            Arc::new(Self { seats: Seats::default(), state: Mutex::new(state), changed: Condvar::new() });
        let probe = probe(&pool);
        pool.seats.add(ID);
        pool.enqueue(Task::Turn(Box::new(probe)));
        pool
    }

    /// Starts a thread of the scenario.
    fn go(self: &Arc<Self>, run: impl FnOnce(&Self) + Send + 'static) -> thread::JoinHandle<()> {
        let pool = self.clone();
        thread::spawn(move || run(&pool))
    }

    fn wake_up(&self) {
        lock(&self.state).asked += 1;
        if let Some(probe) = self.seats.take(ID) {
            self.enqueue(Task::Turn(probe));
        }
    }

    /// Bytes arrive.
    fn receive(&self) {
        let mut state = lock(&self.state);
        (state.bytes, state.asked) = (true, state.asked + 1);
        self.tell(state);
    }

    /// The peer reads: the socket takes bytes from now on.
    fn make_space(&self) {
        let mut state = lock(&self.state);
        state.space = true;
        self.tell(state);
    }

    /// Tells what the socket is armed for, once.
    fn tell(&self, mut state: MutexGuard<'_, State<C>>) {
        let is_there = match state.armed {
            Some(Interest::Read) => state.bytes,
            Some(Interest::Write) => state.space,
            None => false,
        };
        if is_there {
            state.armed = None;
            state.queue.push_back(Task::Event);
            self.changed.notify_all();
        }
    }

    fn arm(&self, interest: Interest) {
        let mut state = lock(&self.state);
        state.armed = Some(interest);
        self.tell(state);
    }

    /// The loop of the deadlines: the moment comes when it is listed, and again when it is listed again.
    fn watch_deadlines(&self) {
        let mut state = lock(&self.state);
        while !state.stopped {
            if !std::mem::take(&mut state.listed) {
                state = wait(&self.changed, state);
                continue;
            }
            drop(state);
            if let Some(probe) = self.seats.take_due(ID) {
                self.tick(probe);
            }
            state = lock(&self.state);
        }
    }

    fn tick(&self, probe: Box<C>) {
        let mut state = lock(&self.state);
        state.ticks += 1;
        let is_ping = state.ticks == 1;
        state.asked += usize::from(!is_ping);
        drop(state);
        let deadline = is_ping.then(Instant::now);
        match self.seats.park(ID, probe, deadline, |_, _| self.list()) {
            Err(woken) => self.enqueue(Task::Turn(woken)),
            Ok(()) if !is_ping && self.seats.ask(ID) => self.enqueue(Task::Asked),
            Ok(()) => {}
        }
    }

    fn list(&self) {
        lock(&self.state).listed = true;
        self.changed.notify_all();
    }

    fn enqueue(&self, task: Task<C>) {
        lock(&self.state).queue.push_back(task);
        self.changed.notify_all();
    }

    /// The loop of a reader.
    fn serve(&self) {
        let mut state = lock(&self.state);
        while !state.stopped {
            let Some(task) = state.queue.pop_front() else {
                state = wait(&self.changed, state);
                continue;
            };
            drop(state);
            let probe = match task {
                Task::Turn(probe) => Some(probe),
                Task::Asked => self.seats.take_asked(ID),
                Task::Event => self.seats.take(ID),
            };
            if let Some(probe) = probe {
                self.give_turns(probe);
            }
            state = lock(&self.state);
        }
    }

    fn give_turns(&self, mut probe: Box<C>) {
        loop {
            let Next::Wait(wait) = self.turn(&mut probe) else {
                self.seats.remove(ID);
                drop(probe);
                let mut state = lock(&self.state);
                (state.over, state.listed) = (true, false);
                return self.changed.notify_all();
            };
            let arm = |_: &C| wait.interest.into_iter().for_each(|interest| self.arm(interest));
            match self.seats.arm_and_park(ID, probe, arm, wait.deadline, |_, _| self.list()) {
                Ok(()) => return,
                Err(woken) => probe = woken,
            }
        }
    }

    fn turn(&self, probe: &mut C) -> Next {
        let mut state = lock(&self.state);
        assert!(!std::mem::replace(&mut state.in_turn, true), "two owners");
        let (asked, due) = (state.asked, state.ticks > 1);
        let found = Found { bytes: std::mem::take(&mut state.bytes), space: state.space, due };
        drop(state);
        // Without the lock, for an outbox is asked, which wakes with its own held.
        let next = probe.turn(found);
        let mut state = lock(&self.state);
        (state.in_turn, state.seen, state.due_seen) = (false, asked, due);
        if let Next::Wait(Wait { interest, .. }) = next {
            state.interest = interest;
        }
        self.changed.notify_all();
        next
    }

    /// Waits for a state.
    fn settle(&self, is_settled: impl Fn(&State<C>) -> bool) {
        let mut state = lock(&self.state);
        while !is_settled(&state) {
            state = wait(&self.changed, state);
        }
    }

    fn stop(&self, threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        lock(&self.state).stopped = true;
        self.changed.notify_all();
        join(threads);
    }
}

impl<C: Probe> Reader for Pool<C> {
    fn run(&self, _: Work) {
        panic!("nobody commits");
    }

    fn wake(&self, _: ConnectionId) {
        self.wake_up();
    }
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().expect("a thread of the scenario failed"));
}
