//! Questions for the heads of rooms, in the order in which the pool asks the log.
//!
//! Every join that waits for a head has an entry of its own, under its connection, and takes it out when it
//! is given up. Connections are served in turn, one question each: who asks for a thousand rooms delays
//! nobody else by more than one. A room is asked for once, whichever of its entries comes first.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::ids::{Channel, ConnectionId, Seq, SubscriptionId};
use crate::metrics::Metrics;
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, Ordering, lock};

/// The question for the head of one room. Its answer is for the room that asked it: one that leaves memory
/// and comes back asks anew.
#[derive(Debug)]
pub(in crate::engine) struct HeadQuestion {
    channel: Channel,
    /// A thread of the pool has taken it, and the answer comes.
    taken: AtomicBool,
}

/// A head as the log had it.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct ReadHead {
    pub(in crate::engine) seq: Seq,
    /// Not before it was read: a commit that began later is not counted in it.
    pub(in crate::engine) at: Instant,
}

/// The joins that wait for a head.
pub(super) struct HeadLookups {
    queue: Mutex<Queue>,
    /// Holds a token while there are entries, unless a thread is about to take one.
    wake: Sender<()>,
    entries_max: usize,
    metrics: Arc<Metrics>,
}

/// A subscription of a connection that waits. Those of one connection are in the order they came.
pub(in crate::engine) type Asker = (ConnectionId, SubscriptionId);

#[derive(Debug)]
struct Queue {
    entries: BTreeMap<Asker, Arc<HeadQuestion>>,
    /// The connection that was served last.
    served: ConnectionId,
    /// The last connection of the round; later ones, which may come without end, wait for the next round.
    round_end: ConnectionId,
}

impl HeadQuestion {
    pub(in crate::engine) fn new(channel: Channel) -> Arc<Self> {
        Arc::new(Self { channel, taken: AtomicBool::new(false) })
    }

    pub(in crate::engine) fn channel(&self) -> &Channel {
        &self.channel
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// False when it was taken before.
    fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }
}

impl HeadLookups {
    /// With at most so many entries, beyond which a connection may have one; and what wakes a thread of
    /// the pool.
    pub(super) fn new(entries_max: usize, metrics: Arc<Metrics>) -> (Self, Receiver<()>) {
        let (wake, asked) = bounded(1);
        let none = ConnectionId(0);
        let queue = Queue { entries: BTreeMap::new(), served: none, round_end: none };
        (Self { queue: Mutex::new(queue), wake, entries_max, metrics }, asked)
    }

    /// Enters a join that waits. False when too many wait, and its connection has another one among them.
    pub(super) fn enter(&self, asker: Asker, question: &Arc<HeadQuestion>) -> bool {
        if question.is_taken() {
            return true;
        }
        let mut queue = self.lock();
        if queue.entries.len() >= self.entries_max && queue.has_of(asker.0) {
            self.metrics.head_lookups_refused_total.inc();
            return false;
        }
        let other = queue.entries.insert(asker, question.clone());
        debug_assert!(other.is_none(), "a subscription joins once");
        drop(queue);
        self.metrics.head_lookups_waiting.inc();
        let _ = self.wake.try_send(());
        true
    }

    /// Takes out the entries of joins that wait no longer.
    pub(super) fn withdraw(&self, askers: impl Iterator<Item = Asker>) {
        let mut queue = self.lock();
        let withdrawn = askers.filter(|asker| queue.entries.remove(asker).is_some()).count();
        drop(queue);
        self.metrics.head_lookups_waiting.sub(withdrawn as i64);
    }

    /// Takes the next question that nobody has taken; the caller asks it and tells the room.
    pub(super) fn take_next(&self) -> Option<Arc<HeadQuestion>> {
        let mut queue = self.lock();
        let mut next = None;
        while let Some(question) = queue.pop() {
            self.metrics.head_lookups_waiting.dec();
            if question.take() {
                next = Some(question);
                break;
            }
        }
        let is_empty = queue.entries.is_empty();
        drop(queue);
        if !is_empty {
            let _ = self.wake.try_send(());
        }
        self.metrics.head_lookups_total.inc_by(u64::from(next.is_some()));
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }
}

impl Queue {
    fn has_of(&self, connection: ConnectionId) -> bool {
        self.entries
            .range((connection, SubscriptionId::MIN)..=(connection, SubscriptionId::MAX))
            .next()
            .is_some()
    }

    /// Takes out the oldest entry of the connection whose turn it is.
    fn pop(&mut self) -> Option<Arc<HeadQuestion>> {
        debug_assert!(self.served <= self.round_end, "a round ends");
        let rest =
            (Excluded((self.served, SubscriptionId::MAX)), Included((self.round_end, SubscriptionId::MAX)));
        let next = match self.entries.range(rest).next() {
            Some((next, _)) => *next,
            None => {
                (self.round_end, _) = *self.entries.last_key_value()?.0;
                *self.entries.first_key_value()?.0
            }
        };
        (self.served, _) = next;
        self.entries.remove(&next)
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    fn lookups(entries_max: usize) -> HeadLookups {
        HeadLookups::new(entries_max, Arc::new(Metrics::new())).0
    }

    fn asker(connection: u64, subscription: u64) -> Asker {
        (ConnectionId(connection), SubscriptionId(subscription))
    }

    /// Enters a join of its own room.
    fn ask(lookups: &HeadLookups, connection: u64, subscription: u64) -> bool {
        let room = Channel::new(&format!("{connection}-{subscription}")).unwrap();
        lookups.enter(asker(connection, subscription), &HeadQuestion::new(room))
    }

    fn served(lookups: &HeadLookups) -> Option<String> {
        lookups.take_next().map(|question| question.channel().to_string())
    }

    #[test]
    fn connections_are_served_in_turn() {
        let lookups = lookups(usize::MAX);
        (1..=1000).for_each(|subscription| assert!(ask(&lookups, 1, subscription)));
        assert_eq!(served(&lookups).unwrap(), "1-1");
        ask(&lookups, 2, 1001);
        ask(&lookups, 3, 1002);
        let order: Vec<_> = (0..4).map_while(|_| served(&lookups)).collect();
        assert_eq!(order, ["1-2", "2-1001", "3-1002", "1-3"]);
    }

    /// Newer connections have higher numbers; they wait for the next round.
    #[test]
    fn connections_that_come_without_end_delay_nobody() {
        let lookups = lookups(usize::MAX);
        ask(&lookups, 2, 1);
        ask(&lookups, 3, 2);
        assert_eq!(served(&lookups).unwrap(), "2-1");
        ask(&lookups, 1, 3);
        let before = (10..20).find(|connection| {
            ask(&lookups, *connection, *connection);
            served(&lookups).unwrap() == "1-3"
        });
        assert_eq!(before, Some(11), "the rest of the round, then the first");
    }

    #[test]
    fn a_room_is_asked_for_once_by_those_who_stay() {
        let lookups = lookups(usize::MAX);
        let question = HeadQuestion::new(Channel::new("room").unwrap());
        (1..=3).for_each(|connection| assert!(lookups.enter(asker(connection, connection), &question)));
        lookups.withdraw([asker(1, 1)].into_iter());
        assert_eq!(served(&lookups).as_deref(), Some("room"), "two still wait");
        assert!(lookups.enter(asker(4, 4), &question), "the answer is for this one too");
        assert_eq!((served(&lookups), lookups.lock().entries.len()), (None, 0));
        assert_eq!(lookups.metrics.head_lookups_waiting.get(), 0);
    }

    #[test]
    fn a_join_that_is_given_up_is_not_asked_for() {
        let lookups = lookups(usize::MAX);
        (1..=3).for_each(|subscription| assert!(ask(&lookups, 1, subscription)));
        lookups.withdraw([asker(1, 1), asker(1, 2), asker(9, 9)].into_iter());
        assert_eq!(lookups.metrics.head_lookups_waiting.get(), 1);
        assert_eq!((served(&lookups).as_deref(), served(&lookups)), (Some("1-3"), None));
    }

    /// When too many wait, those are refused that have another one waiting.
    #[test]
    fn a_full_queue_takes_one_of_each_connection() {
        let lookups = lookups(3);
        let taken = (1..=5).map(|subscription| ask(&lookups, 1, subscription));
        assert_eq!(taken.collect::<Vec<_>>(), [true, true, true, false, false]);
        assert!(ask(&lookups, 2, 6) && !ask(&lookups, 2, 7));
        assert_eq!(lookups.metrics.head_lookups_refused_total.get(), 3);
    }

    /// As long as there are entries, a thread that waits is woken.
    #[test]
    fn there_is_a_token_while_joins_wait() {
        let (lookups, asked) = HeadLookups::new(usize::MAX, Arc::new(Metrics::new()));
        (1..=3).for_each(|subscription| assert!(ask(&lookups, 1, subscription)));
        for left in [2, 1, 0] {
            assert!(asked.try_recv().is_ok(), "{left} are left behind the next");
            served(&lookups).unwrap();
        }
        assert!(asked.try_recv().is_err());
    }
}
