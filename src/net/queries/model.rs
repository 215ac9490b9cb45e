//! The line in every order of steps: connections of two users ask, are called, use their slot, and some leave before or after
//! they were called. There are never more slots than there are, and nobody who stays is forgotten.

use shuttle::thread;

use super::*;
use crate::net::rates::Rates;
use crate::outbox::Work;
use crate::sync::model::explore;
use crate::sync::{Condvar, wait};

/// Slots, and connections that want one.
const SLOTS: usize = 2;
const ASKERS: u64 = 4;

thread_local! {
    /// Of all runs; making them costs more than a run.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new());
    static USERS: [Who; 2] = {
        let rates = Rates::new(&Config::default());
        [rates.user("ann"), rates.user("bob")]
    };
}

/// Readers that serve one connection each.
#[derive(Default)]
struct Rig {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    woken: Vec<u64>,
    /// Connections that have a slot.
    using: usize,
}

impl Reader for Rig {
    fn run(&self, _: Work) {
        panic!("a line has no work");
    }

    fn wake(&self, id: ConnectionId) {
        lock(&self.state).woken.push(id.0);
        self.changed.notify_all();
    }
}

impl Rig {
    /// Sleeps as a parked connection does.
    fn park(&self, id: u64) {
        let mut state = lock(&self.state);
        loop {
            if let Some(at) = state.woken.iter().position(|woken| *woken == id) {
                state.woken.swap_remove(at);
                return;
            }
            state = wait(&self.changed, state);
        }
    }

    fn use_slot(&self, slot: Slot) {
        let mut state = lock(&self.state);
        state.using += 1;
        assert!(state.using <= SLOTS, "more slots than there are");
        drop(state);
        thread::yield_now();
        lock(&self.state).using -= 1;
        drop(slot);
    }

    /// The connections with an odd id leave the line, at whatever moment.
    fn ask(self: Arc<Self>, slots: &Arc<Slots>, who: Who, id: u64) {
        let reader: Arc<dyn Reader> = self.clone();
        let asker = Asker { id: ConnectionId(id), reader: Some(&reader) };
        match slots.ask(who, asker, std::time::Instant::now()) {
            Ok(slot) => self.use_slot(slot),
            Err(place) if id % 2 == 1 => drop(place),
            Err(place) => {
                self.park(id);
                self.use_slot(place.claim().expect("whoever is called has a slot"));
            }
        }
    }
}

#[test]
fn every_slot_is_used_by_one_and_comes_back() {
    explore(3000, || {
        let (rig, slots) = (Arc::new(Rig::default()), Slots::new(SLOTS, METRICS.with(Arc::clone)));
        let askers = (0..ASKERS).map(|id| {
            let (rig, slots) = (rig.clone(), slots.clone());
            // Three of one user, one of another.
            let who = USERS.with(|users| users[usize::from(id == 2)]);
            thread::spawn(move || rig.ask(&slots, who, id))
        });
        let askers: Vec<_> = askers.collect();
        askers.into_iter().for_each(|thread| thread.join().expect("a connection failed"));
        let line = lock(&slots.line);
        assert_eq!((line.free(), line.waiting()), (SLOTS, 0), "every slot came back");
    });
}
