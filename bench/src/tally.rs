//! What one thread of the load generator counts, and how the counts of several are put together.

use hdrhistogram::Histogram;

use crate::plan::Plan;

/// Latencies above this are recorded as this, in microseconds: a minute is a broken server.
const LATENCY_MAX_US: u64 = 60_000_000;

/// A latency distribution in microseconds, with three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latency(pub(crate) Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        // The bounds are constants that the library accepts.
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("constant bounds")))
    }

    pub(crate) fn record(&mut self, from_ns: u64, to_ns: u64) {
        self.0.saturating_record(to_ns.saturating_sub(from_ns).div_ceil(1000).clamp(1, LATENCY_MAX_US));
    }
}

/// Counts of one group.
#[derive(Debug, Clone)]
pub(crate) struct GroupTally {
    /// Publishes acknowledged, of those that were due in the measured time.
    pub(crate) published: u64,
    /// Publishes acknowledged within the measured time, whenever they were due.
    pub(crate) acknowledged_in_time: u64,
    /// Publishes that got no answer, or could not even leave.
    pub(crate) unanswered: u64,
    /// Publishes refused, at any time.
    pub(crate) refused: u64,
    /// Those of them that met a limit on rates (error 111).
    pub(crate) limited: u64,
    /// What the first refusal said.
    pub(crate) refusal: Option<String>,
    /// Publications that arrived, of messages due in the measured time.
    pub(crate) delivered: u64,
    /// Publications that arrived within the measured time, whenever they were due.
    pub(crate) delivered_in_time: u64,
    /// Publications that came with the reply to a listener that had been away.
    pub(crate) recovered: u64,
    pub(crate) repeated: u64,
    pub(crate) out_of_order: u64,
    /// From when a publish was due to its ack.
    pub(crate) ack: Latency,
    /// From when a publish was due to each arrival.
    pub(crate) delivery: Latency,
    /// By room: what was acknowledged, and arrivals by listener and by message.
    pub(crate) rooms: Vec<RoomTally>,
}

/// Counts of one room.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoomTally {
    /// Publishes that every listener is owed: those that were acknowledged, and where the protocol does not
    /// acknowledge, all.
    pub(crate) owed: u64,
    /// Other publishes, of which it is not known whether the server has them.
    pub(crate) unanswered: u64,
    /// Where each listener was at the end.
    pub(crate) ends: Vec<End>,
    /// Seq of the first entry of `messages`: its offset, where there are offsets.
    first: u64,
    messages: Vec<Message>,
}

/// What one listener got, all in all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    /// Publications, each once if they have offsets.
    pub(crate) arrived: u64,
    /// Offsets before the last one that did not come.
    pub(crate) missing: u64,
    /// The last offset; 0: there are none.
    pub(crate) last: u64,
}

/// Arrivals of one message at the listeners of one thread.
#[derive(Debug, Clone, Copy, Default)]
struct Message {
    due_ns: u64,
    last_ns: u64,
    arrivals: u32,
}

/// Offsets by which a message may be ahead of the first one and still be followed to its last listener.
const FOLLOWED_MAX: usize = 100_000_000;

impl RoomTally {
    /// Arrivals that were owed and never came. A listener is owed `owed`, and all that
    /// another one got; a surplus of one does not make up for another's loss.
    pub(crate) fn lost(&self) -> u64 {
        let head = self.ends.iter().map(|end| end.last).max().unwrap_or(0);
        let behind = |end: &End| end.missing.saturating_add(head - end.last);
        let short = |end: &End| self.owed.saturating_sub(end.arrived);
        self.ends.iter().map(|end| behind(end).max(short(end))).fold(0, u64::saturating_add)
    }

    /// Arrivals more than there were publishes, at listeners that know them only by their number.
    pub(crate) fn surplus(&self) -> u64 {
        let published = self.owed + self.unanswered;
        let without_offsets = self.ends.iter().filter(|end| end.last == 0);
        without_offsets.map(|end| end.arrived.saturating_sub(published)).sum()
    }

    /// Notes an arrival of a message of the measured time, by its number in the order of the room.
    pub(crate) fn arrive(&mut self, seq: u64, due_ns: u64, now_ns: u64) {
        let Some(index) = self.reserve(seq, 1) else { return };
        let message = &mut self.messages[index];
        message.due_ns = due_ns;
        message.last_ns = message.last_ns.max(now_ns);
        message.arrivals += 1;
    }

    /// Makes `messages` cover `count` numbers from `seq` on; returns the index of the first. `None`: too far away.
    fn reserve(&mut self, seq: u64, count: usize) -> Option<usize> {
        if self.messages.is_empty() {
            self.first = seq;
        }
        let reach = usize::try_from(seq.abs_diff(self.first)).ok()?.checked_add(count)?;
        if reach > FOLLOWED_MAX {
            return None;
        }
        if seq < self.first {
            let missing = (self.first - seq) as usize;
            self.messages.splice(0..0, vec![Message::default(); missing]);
            self.first = seq;
        }
        let index = (seq - self.first) as usize;
        if self.messages.len() < index + count {
            self.messages.resize(index + count, Message::default());
        }
        debug_assert!(self.first <= seq && index + count <= self.messages.len());
        Some(index)
    }

    fn merge(&mut self, other: &Self) {
        self.owed += other.owed;
        self.unanswered += other.unanswered;
        self.ends.extend(&other.ends);
        if other.messages.is_empty() {
            return;
        }
        let Some(shift) = self.reserve(other.first, other.messages.len()) else { return };
        for (mine, theirs) in self.messages[shift..].iter_mut().zip(&other.messages) {
            mine.due_ns = mine.due_ns.max(theirs.due_ns);
            mine.last_ns = mine.last_ns.max(theirs.last_ns);
            mine.arrivals += theirs.arrivals;
        }
    }
}

impl GroupTally {
    fn new(rooms: usize) -> Self {
        Self {
            published: 0,
            acknowledged_in_time: 0,
            unanswered: 0,
            refused: 0,
            limited: 0,
            refusal: None,
            delivered: 0,
            delivered_in_time: 0,
            recovered: 0,
            repeated: 0,
            out_of_order: 0,
            ack: Latency::new(),
            delivery: Latency::new(),
            rooms: vec![RoomTally::default(); rooms],
        }
    }

    /// From when a publish was due to its arrival at the last listener, for messages that reached all.
    pub(crate) fn last_delivery(&self, listeners_of: impl Fn(usize) -> usize) -> Latency {
        let mut latency = Latency::new();
        for (number, room) in self.rooms.iter().enumerate() {
            let listeners = listeners_of(number);
            for message in room.messages.iter().filter(|message| message.arrivals > 0) {
                if message.arrivals as usize == listeners {
                    latency.record(message.due_ns, message.last_ns);
                }
            }
        }
        latency
    }

    fn merge(&mut self, other: Self) {
        self.published += other.published;
        self.acknowledged_in_time += other.acknowledged_in_time;
        self.unanswered += other.unanswered;
        self.refused += other.refused;
        self.limited += other.limited;
        self.refusal = self.refusal.take().or(other.refusal);
        self.delivered += other.delivered;
        self.delivered_in_time += other.delivered_in_time;
        self.recovered += other.recovered;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
        // Both have the same bounds, so adding does not fail.
        let _ = self.ack.0.add(other.ack.0);
        let _ = self.delivery.0.add(other.delivery.0);
        for (mine, theirs) in self.rooms.iter_mut().zip(&other.rooms) {
            mine.merge(theirs);
        }
    }
}

/// Counts of one thread, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) groups: Vec<GroupTally>,
    /// Connections that failed or were ended by the server, and what the first one met.
    pub(crate) broken: u64,
    pub(crate) breakage: Option<String>,
    /// Processor time of the busiest thread in the measured time, as a share of it.
    pub(crate) busiest: f64,
    /// Longest time a message of the measured time lay in a socket before it was read.
    pub(crate) read_late_ns: u64,
}

impl Tally {
    pub(crate) fn new(plan: &Plan) -> Self {
        let groups = plan.groups.iter().map(|group| GroupTally::new(group.rooms)).collect();
        Self { groups, broken: 0, breakage: None, busiest: 0.0, read_late_ns: 0 }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.broken += other.broken;
        self.busiest = self.busiest.max(other.busiest);
        self.read_late_ns = self.read_late_ns.max(other.read_late_ns);
        self.breakage = self.breakage.take().or(other.breakage);
        for (mine, theirs) in self.groups.iter_mut().zip(other.groups) {
            mine.merge(theirs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surplus_in_one_room_does_not_hide_a_loss() {
        let end = |arrived, missing, last| End { arrived, missing, last };
        let with_offsets = RoomTally {
            owed: 67,
            unanswered: 33,
            ends: vec![end(100, 0, 100), end(60, 0, 60), end(98, 2, 100)],
            ..RoomTally::default()
        };
        assert_eq!((with_offsets.lost(), with_offsets.surplus()), (42, 0));
        let to_nobody = RoomTally { owed: 10, ends: vec![end(8, 0, 8); 2], ..RoomTally::default() };
        assert_eq!(to_nobody.lost(), 4);
        let without = RoomTally { owed: 10, ends: vec![end(8, 0, 0), end(12, 0, 0)], ..RoomTally::default() };
        assert_eq!((without.lost(), without.surplus()), (2, 2));
    }

    #[test]
    fn messages_are_followed_in_whichever_order_they_come() {
        let mut tally = GroupTally::new(1);
        for (seq, now_ns) in [(6, 3_000), (4, 5_000), (5, 4_000), (4 + FOLLOWED_MAX as u64, 9_000)] {
            tally.rooms[0].arrive(seq, 1_000, now_ns);
        }
        let latency = tally.last_delivery(|_| 1);
        assert_eq!((latency.0.len(), latency.0.max()), (3, 4), "one is too far away");
    }

    #[test]
    fn the_last_arrival_of_all_threads_counts() {
        let (mut one, mut two) = (RoomTally::default(), RoomTally::default());
        one.arrive(5, 1_000, 11_000);
        one.arrive(6, 2_000, 9_000);
        two.arrive(4, 500, 1_500);
        two.arrive(5, 1_000, 21_000);
        let mut tally = GroupTally::new(1);
        tally.rooms[0].merge(&one);
        tally.rooms[0].merge(&two);
        let latency = tally.last_delivery(|_| 2);
        assert_eq!((latency.0.len(), latency.0.max()), (1, 20), "only message 5 reached both listeners");
    }
}
