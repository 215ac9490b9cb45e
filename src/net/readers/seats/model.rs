//! The seats in every order of steps: a close, an abort, a deadline and bytes come to a connection at the same
//! time, while two readers serve it. It has one owner at any time, and every wake-up leads to a turn that
//! begins after it.

use std::collections::VecDeque;

use shuttle::thread;

use super::*;
use crate::sync::model::explore;
use crate::sync::{Arc, Condvar, Mutex, lock, wait};

const ID: ConnectionId = ConnectionId(1);

/// A connection that is asked to do things, and what it has seen of them in its turns.
#[derive(Debug, PartialEq, Eq)]
struct Probe {
    seen: usize,
}

/// The readers without sockets: a queue in the place of the poller's events.
#[derive(Default)]
struct Rig {
    seats: Seats<Probe>,
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Default)]
struct Work {
    /// Connections that are to have a turn.
    queue: VecDeque<Box<Probe>>,
    /// The socket is armed.
    armed: bool,
    /// Bytes that nobody read yet.
    bytes: bool,
    /// Things that were asked for so far.
    asked: usize,
    /// Those that the last turn has seen.
    seen: usize,
    /// The connection is listed for its deadline.
    listed: bool,
    /// Its deadline has passed.
    due: bool,
    /// A turn has seen that.
    due_seen: bool,
    stopped: bool,
}

impl Rig {
    /// Asks for something and wakes the connection, as a close of its outbox does.
    fn wake(&self) {
        lock(&self.work).asked += 1;
        if let Some(probe) = self.seats.take(ID) {
            self.enqueue(probe);
        }
    }

    /// Bytes arrive: the event is told once if the socket is armed.
    fn receive(&self) {
        let mut work = lock(&self.work);
        (work.bytes, work.asked) = (true, work.asked + 1);
        drop(work);
        self.tell_bytes();
    }

    fn tell_bytes(&self) {
        let mut work = lock(&self.work);
        let told = work.armed && work.bytes;
        work.armed &= !told;
        drop(work);
        if told && let Some(probe) = self.seats.take(ID) {
            self.enqueue(probe);
        }
    }

    /// The loop of the deadlines: the moment comes when it is listed, and again when it is listed again.
    fn watch_deadlines(&self) {
        let mut work = lock(&self.work);
        while !work.stopped {
            if !std::mem::take(&mut work.listed) {
                work = wait(&self.changed, work);
                continue;
            }
            if !std::mem::replace(&mut work.due, true) {
                work.asked += 1;
            }
            drop(work);
            if let Some(probe) = self.seats.take_due(ID) {
                self.enqueue(probe);
            }
            work = lock(&self.work);
        }
    }

    fn list(&self) {
        lock(&self.work).listed = true;
        self.changed.notify_all();
    }

    fn enqueue(&self, probe: Box<Probe>) {
        lock(&self.work).queue.push_back(probe);
        self.changed.notify_all();
    }

    /// The loop of a reader.
    fn serve(&self) {
        let mut work = lock(&self.work);
        while !work.stopped {
            let Some(mut probe) = work.queue.pop_front() else {
                work = wait(&self.changed, work);
                continue;
            };
            drop(work);
            loop {
                let deadline = self.turn(&mut probe);
                match self.seats.park(ID, probe, deadline, |_, _| self.list()) {
                    Ok(()) => break,
                    Err(woken) => probe = woken,
                }
            }
            lock(&self.work).armed = true;
            self.tell_bytes();
            work = lock(&self.work);
        }
    }

    /// Sees what was asked for; gives the deadline, until it has passed.
    fn turn(&self, probe: &mut Probe) -> Option<Instant> {
        let mut work = lock(&self.work);
        assert_eq!(probe.seen, work.seen, "two owners");
        (probe.seen, work.seen) = (work.asked, work.asked);
        work.bytes = false;
        work.due_seen = work.due;
        self.changed.notify_all();
        (!work.due_seen).then(Instant::now)
    }

    /// Waits until the last turn has seen all that was asked.
    fn settle(&self) {
        let mut work = lock(&self.work);
        while !work.due_seen || work.seen < work.asked {
            work = wait(&self.changed, work);
        }
    }
}

#[test]
fn every_wake_up_leads_to_a_turn_of_one_owner() {
    explore(3000, || {
        let rig = Arc::new(Rig::default());
        rig.seats.add(ID);
        rig.enqueue(Box::new(Probe { seen: 0 }));
        let go = |run: fn(&Rig)| {
            let rig = rig.clone();
            thread::spawn(move || run(&rig))
        };
        let readers = [go(Rig::serve), go(Rig::serve)];
        let deadlines = go(Rig::watch_deadlines);
        let others = [go(Rig::wake), go(Rig::wake), go(Rig::receive)];
        others.into_iter().for_each(|thread| thread.join().expect("a thread of the scenario failed"));
        rig.settle();
        lock(&rig.work).stopped = true;
        rig.changed.notify_all();
        readers.into_iter().chain([deadlines]).for_each(|thread| thread.join().expect("a reader failed"));
    });
}
