//! Slots to ask the database: for a bounded number of connections, in turns between users.
//!
//! A query keeps the thread of its turn for as long as the database takes. So a connection first gets a slot, or
//! stands in line for one, parked, without a thread. A slot that is given back belongs to the first in [`line`], who
//! is woken to use it. Knows no socket and no query.

mod line;

use std::time::Instant;

use crate::config::Config;
use crate::ids::ConnectionId;
use crate::limits::QUERY_WAIT;
use crate::metrics::Metrics;
use crate::outbox::Reader;
use crate::sync::{Arc, Mutex, lock};
use line::{Line, Turn, Waiting};

use super::rates::{Limit, Who};

/// Share of the readers that queries of one kind may keep: half of them are left when both kinds wait for the
/// database.
const READERS_SHARE: usize = 4;

/// The slots of a server.
#[derive(Debug)]
pub(in crate::net) struct Queries {
    reads: Arc<Slots>,
    /// Apart, because SQLite's only writer may be busy for long while there are connections that read.
    writes: Arc<Slots>,
}

/// What a query does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Kind {
    /// It reads.
    Read,
    /// It changes rows that are no messages.
    Write,
}

/// A connection that asks, and who serves it.
#[derive(Clone, Copy)]
pub(in crate::net) struct Asker<'a> {
    pub(in crate::net) id: ConnectionId,
    /// `None`: nobody wakes it, and it asks again by itself.
    pub(in crate::net) reader: Option<&'a Arc<dyn Reader>>,
}

/// The reason not to query now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum NoSlot {
    /// The connection stands in line. It is woken when it has a slot, and asks again.
    Wait,
    /// It stood there for [`QUERY_WAIT`], and does no longer: the database is too slow for those who ask.
    TooLate,
    /// The same, while others who came later were called: too many connections of the same user ask at once.
    TooMany,
}

/// The right to query, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(in crate::net) struct Slot(#[expect(dead_code, reason = "kept for its drop")] Ticket);

/// A place in line, and the slot that it has become if its connection was called. Whoever drops it leaves the line, or
/// passes the slot on.
#[derive(Debug)]
pub(in crate::net) struct Place {
    ticket: Ticket,
    /// The moment to give up.
    deadline: Instant,
}

/// One entry in line, or a slot.
#[derive(Debug)]
struct Ticket {
    slots: Arc<Slots>,
    turn: Turn,
}

/// The slots of one kind of query.
#[derive(Debug)]
struct Slots {
    line: Mutex<Line>,
    metrics: Arc<Metrics>,
}

impl Queries {
    /// As many slots of each kind as the database has connections that read, within a share of the readers.
    pub(in crate::net) fn new(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let connections = usize::try_from(config.database.read_connections).unwrap_or(usize::MAX);
        let most = connections.min(config.readers_max / READERS_SHARE).max(1);
        Self { reads: Slots::new(most, metrics.clone()), writes: Slots::new(most, metrics.clone()) }
    }

    /// A slot for a connection of `who`, which keeps its `place` in line from one turn to the next, and has waited
    /// `since` then. In each round of the line, all connections of one of these have one place.
    ///
    /// # Errors
    /// [`NoSlot`]
    pub(in crate::net) fn ask(
        &self,
        kind: Kind,
        place: &mut Option<Box<Place>>,
        (who, asker): (Who, Asker<'_>),
        since: Instant,
    ) -> Result<Slot, NoSlot> {
        let stood = match place.take() {
            Some(stood) => stood,
            None => match self.of(kind).ask(who, asker, since) {
                Ok(slot) => return Ok(slot),
                Err(stood) => Box::new(stood),
            },
        };
        match stood.claim() {
            Ok(slot) => Ok(slot),
            Err(stood) if stood.deadline <= Instant::now() => Err(stood.give_up()),
            Err(stood) => {
                *place = Some(Box::new(stood));
                Err(NoSlot::Wait)
            }
        }
    }

    /// A slot that is free now and that nobody waits for.
    pub(in crate::net) fn ask_once(&self, kind: Kind) -> Option<Slot> {
        self.of(kind).take_free()
    }

    fn of(&self, kind: Kind) -> &Arc<Slots> {
        match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        }
    }
}

impl Place {
    /// The moment by which its connection is to have a slot, or is told that it gets none.
    pub(in crate::net) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Lets its time be over.
    #[cfg(test)]
    #[cfg(not(feature = "model"))]
    pub(in crate::net) fn expire(&mut self) {
        self.deadline = Instant::now();
    }

    /// The slot, if its connection was called.
    fn claim(self) -> Result<Slot, Self> {
        if self.ticket.is_waiting() { Err(self) } else { Ok(Slot(self.ticket)) }
    }

    /// Leaves the line when its time is over, and says why.
    fn give_up(self) -> NoSlot {
        let Slots { line, metrics } = &*self.ticket.slots;
        metrics.queries_refused_total.inc();
        if lock(line).is_overtaken(self.ticket.turn) {
            metrics.limited_total.with_label_values(&[Limit::Queries.as_str()]).inc();
            NoSlot::TooMany
        } else {
            NoSlot::TooLate
        }
    }
}

impl Slots {
    fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { line: Mutex::new(Line::new(most)), metrics })
    }

    /// A slot, or a place in line.
    fn ask(self: &Arc<Self>, who: Who, asker: Asker<'_>, since: Instant) -> Result<Slot, Place> {
        let mut line = lock(&self.line);
        if let Some(turn) = line.take_free() {
            return Ok(Slot(Ticket { slots: self.clone(), turn }));
        }
        let Asker { id, reader } = asker;
        let turn = line.join(Waiting { id, who, reader: reader.cloned() });
        drop(line);
        self.metrics.queries_waiting.inc();
        self.metrics.queries_waited_total.inc();
        let ticket = Ticket { slots: self.clone(), turn };
        Err(Place { ticket, deadline: since + QUERY_WAIT })
    }

    fn take_free(self: &Arc<Self>) -> Option<Slot> {
        let turn = lock(&self.line).take_free()?;
        Some(Slot(Ticket { slots: self.clone(), turn }))
    }

    /// Takes a ticket back, and calls the next if it was a slot.
    fn take_back(&self, turn: Turn) {
        let mut line = lock(&self.line);
        let left = line.leave(turn);
        let called = if left.is_none() { line.call() } else { None };
        drop(line);
        if left.is_some() || called.is_some() {
            self.metrics.queries_waiting.dec();
        }
        if let Some(Waiting { id, reader: Some(reader), .. }) = called {
            reader.wake(id);
        }
    }
}

impl Ticket {
    /// True for a place in line; false for a slot.
    fn is_waiting(&self) -> bool {
        lock(&self.slots.line).is_waiting(self.turn)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.slots.take_back(self.turn);
    }
}

#[cfg(all(test, feature = "model"))]
mod model;

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;
    use crate::net::rates::Rates;
    use crate::outbox::Work;

    /// Notes whom it is told to wake.
    #[derive(Default)]
    struct Woken(Mutex<Vec<u64>>);

    impl Reader for Woken {
        fn run(&self, _: Work) {
            panic!("a line has no work");
        }

        fn wake(&self, id: ConnectionId) {
            lock(&self.0).push(id.0);
        }
    }

    /// Two slots of each kind.
    struct Rig {
        queries: Queries,
        metrics: Arc<Metrics>,
        woken: Arc<Woken>,
        reader: Arc<dyn Reader>,
        rates: Rates,
    }

    impl Rig {
        fn new() -> Self {
            let (mut config, metrics) = (Config::default(), Arc::new(Metrics::new()));
            config.database.read_connections = 2;
            let woken = Arc::new(Woken::default());
            let (queries, rates) = (Queries::new(&config, &metrics), Rates::new(&config));
            Self { queries, metrics, reader: woken.clone(), woken, rates }
        }

        fn ask(&self, id: u64, place: &mut Option<Box<Place>>) -> Result<Slot, NoSlot> {
            let who = self.rates.connection(ConnectionId(id));
            self.ask_as(who, id, place)
        }

        fn ask_as(&self, who: Who, id: u64, place: &mut Option<Box<Place>>) -> Result<Slot, NoSlot> {
            let asker = Asker { id: ConnectionId(id), reader: Some(&self.reader) };
            self.queries.ask(Kind::Read, place, (who, asker), Instant::now())
        }

        fn woken(&self) -> Vec<u64> {
            std::mem::take(&mut lock(&self.woken.0))
        }

        fn waiting(&self) -> i64 {
            self.metrics.queries_waiting.get()
        }
    }

    #[test]
    fn a_slot_goes_to_whoever_has_waited_longest() {
        let rig = Rig::new();
        let mut places = [None, None, None, None, None];
        let [first, second, third, fourth, late] = &mut places;
        let slots = [rig.ask(1, first).unwrap(), rig.ask(2, second).unwrap()];
        assert!(rig.queries.ask_once(Kind::Write).is_some(), "those who read hold up nobody who writes");
        assert_eq!(rig.ask(3, third).unwrap_err(), NoSlot::Wait);
        assert_eq!(rig.ask(4, fourth).unwrap_err(), NoSlot::Wait);
        assert_eq!((rig.waiting(), rig.woken()), (2, vec![]));
        let [slot, other] = slots;
        drop(slot);
        assert_eq!((rig.waiting(), rig.woken()), (1, vec![3]));
        assert!(rig.queries.ask_once(Kind::Read).is_none(), "it is kept for who was called");
        assert_eq!(rig.ask(5, late).unwrap_err(), NoSlot::Wait, "and nobody overtakes");
        assert_eq!(rig.ask(4, fourth).unwrap_err(), NoSlot::Wait, "who is woken by something else waits on");
        let slot = rig.ask(3, third).unwrap();
        drop(other);
        assert_eq!(rig.woken(), [4]);
        *fourth = None;
        assert_eq!(rig.woken(), [5], "a slot that is not used is passed on");
        drop((rig.ask(5, late).unwrap(), slot));
        assert_eq!((rig.waiting(), rig.woken()), (0, vec![]));
        assert_eq!(rig.metrics.queries_waited_total.get(), 3);
        let all = [rig.ask(1, first), rig.ask(2, second)];
        assert!(all.iter().all(Result::is_ok), "every slot came back");
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let rig = Rig::new();
        let (mut place, mut next) = (None, None);
        let slots = [rig.ask(1, &mut None).unwrap(), rig.ask(2, &mut None).unwrap()];
        assert_eq!(rig.ask(3, &mut place).unwrap_err(), NoSlot::Wait);
        assert_eq!(rig.ask(4, &mut next).unwrap_err(), NoSlot::Wait);
        place.as_mut().unwrap().expire();
        assert_eq!(rig.ask(3, &mut place).unwrap_err(), NoSlot::TooLate);
        assert!(place.is_none());
        assert_eq!((rig.waiting(), rig.metrics.queries_refused_total.get()), (1, 1));
        drop(slots);
        assert_eq!(rig.woken(), [4], "who gave up is not called");
        next.as_mut().unwrap().expire();
        assert!(rig.ask(4, &mut next).is_ok(), "a slot that is there is used, however late");
    }

    #[test]
    fn who_waits_for_nobody_but_itself_is_told_so() {
        let rig = Rig::new();
        let (ann, bob) = (rig.rates.user("ann"), rig.rates.user("bob"));
        let mut slots = [rig.ask_as(ann, 1, &mut None).ok(), rig.ask_as(ann, 2, &mut None).ok()];
        let mut places = [None, None, None];
        let [first, second, of_bob] = &mut places;
        assert_eq!(rig.ask_as(ann, 3, first).unwrap_err(), NoSlot::Wait);
        assert_eq!(rig.ask_as(ann, 4, second).unwrap_err(), NoSlot::Wait);
        assert_eq!(rig.ask_as(bob, 5, of_bob).unwrap_err(), NoSlot::Wait);
        slots = [None, slots[1].take()];
        let _first = rig.ask_as(ann, 3, first).unwrap();
        drop(slots);
        assert_eq!(rig.woken(), [3, 5], "bob has waited for one of them only");
        second.as_mut().unwrap().expire();
        assert_eq!(rig.ask_as(ann, 4, second).unwrap_err(), NoSlot::TooMany);
        let limited = rig.metrics.limited_total.with_label_values(&["queries"]).get();
        assert_eq!((limited, rig.metrics.queries_refused_total.get()), (1, 1));
    }

    #[test]
    fn queries_keep_half_of_the_readers_at_most() {
        let most = |readers_max, read_connections| {
            let mut config = Config { readers_max, ..Config::default() };
            config.database.read_connections = read_connections;
            let queries = Queries::new(&config, &Arc::new(Metrics::new()));
            lock(&queries.reads.line).free()
        };
        assert_eq!([most(1024, 4), most(64, 256), most(8, 4), most(1, 4)], [4, 16, 2, 1]);
    }
}
