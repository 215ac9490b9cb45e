//! The order in which those who wait are called: in turns between those who ask.
//!
//! Rounds are numbered, and in each of them everybody who waits has one place, whatever number of connections they
//! have. So four hundred connections of one user wait for each other, and another user's question for one or two of
//! them. Nobody joins a round that has begun, so it ends.

use std::collections::BTreeMap;

use crate::ids::ConnectionId;
use crate::net::rates::Who;
use crate::outbox::Reader;
use crate::sync::Arc;

/// A place in the order: the round, and in a round the arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    round: u64,
    number: u64,
}

/// Slots, and those who wait for one.
#[derive(Debug)]
pub(super) struct Line {
    free: usize,
    most: usize,
    next_number: u64,
    /// The round of whoever was called last.
    round: u64,
    /// The latest arrival that was called.
    latest_called: u64,
    /// One a connection, so bounded by these.
    waiting: BTreeMap<Turn, Waiting>,
    /// Those who wait. A tree, because it gives its memory back.
    shares: BTreeMap<Who, Share>,
}

/// The places in line of one of those who ask.
#[derive(Debug)]
struct Share {
    waiting: usize,
    last_round: u64,
}

pub(super) struct Waiting {
    pub(super) id: ConnectionId,
    pub(super) who: Who,
    pub(super) reader: Option<Arc<dyn Reader>>,
}

impl Line {
    pub(super) fn new(most: usize) -> Self {
        debug_assert!(most > 0, "somebody may ask");
        Self {
            free: most,
            most,
            next_number: 0,
            round: 0,
            latest_called: 0,
            waiting: BTreeMap::new(),
            shares: BTreeMap::new(),
        }
    }

    /// A slot that nobody waits for.
    pub(super) fn take_free(&mut self) -> Option<Turn> {
        debug_assert!(self.free == 0 || self.waiting.is_empty(), "nobody waits for a free slot");
        self.free = self.free.checked_sub(1)?;
        Some(self.turn(self.round))
    }

    /// A place in the first round to come in which its share has none.
    pub(super) fn join(&mut self, waiting: Waiting) -> Turn {
        debug_assert_eq!(self.free, 0, "a slot is free");
        let none = Share { waiting: 0, last_round: self.round };
        let share = self.shares.entry(waiting.who).or_insert(none);
        share.last_round = self.round.max(share.last_round) + 1;
        share.waiting += 1;
        let round = share.last_round;
        let turn = self.turn(round);
        self.waiting.insert(turn, waiting);
        turn
    }

    /// Takes a place in line back; `None` when it had become a slot.
    pub(super) fn leave(&mut self, turn: Turn) -> Option<Waiting> {
        let left = self.waiting.remove(&turn)?;
        self.give_back_share(left.who);
        Some(left)
    }

    /// Gives a slot that was given back to the first in line.
    pub(super) fn call(&mut self) -> Option<Waiting> {
        let Some((turn, first)) = self.waiting.pop_first() else {
            self.free += 1;
            debug_assert!(self.free <= self.most, "a slot is given back once");
            return None;
        };
        debug_assert!(turn.round >= self.round, "somebody joined a round that was over");
        self.round = turn.round;
        self.latest_called = self.latest_called.max(turn.number);
        self.give_back_share(first.who);
        Some(first)
    }

    /// True for a place in line; false for a slot.
    pub(super) fn is_waiting(&self, turn: Turn) -> bool {
        self.waiting.contains_key(&turn)
    }

    /// True when somebody who came later was called before: its own share was the reason to wait.
    pub(super) fn is_overtaken(&self, turn: Turn) -> bool {
        turn.number < self.latest_called
    }

    /// Number of connections that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        debug_assert_eq!(self.waiting.len(), self.shares.values().map(|share| share.waiting).sum::<usize>());
        self.waiting.len()
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free
    }

    fn give_back_share(&mut self, who: Who) {
        match self.shares.get_mut(&who) {
            Some(share) if share.waiting > 1 => share.waiting -= 1,
            share => {
                debug_assert!(share.is_some(), "who waits has a share");
                self.shares.remove(&who);
            }
        }
    }

    fn turn(&mut self, round: u64) -> Turn {
        self.next_number += 1;
        Turn { round, number: self.next_number }
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mutation::Random;
    use crate::net::rates::Rates;

    /// A line without a free slot, and the names of those who may join it.
    fn line(count: u64) -> (Line, Vec<Who>) {
        let (mut line, rates) = (Line::new(1), Rates::new(&Config::default()));
        line.take_free().unwrap();
        (line, (0..count).map(|number| rates.user(&number.to_string())).collect())
    }

    fn waiting(who: Who, id: u64) -> Waiting {
        Waiting { id: ConnectionId(id), who, reader: None }
    }

    fn called(line: &mut Line) -> Vec<u64> {
        std::iter::from_fn(|| line.call()).map(|one| one.id.0).collect()
    }

    #[test]
    fn who_has_many_connections_has_one_place_a_round() {
        let (mut line, names) = line(3);
        for id in 0..5 {
            line.join(waiting(names[0], id));
        }
        let second = line.join(waiting(names[1], 10));
        line.join(waiting(names[1], 11));
        assert_eq!(line.call().map(|one| one.id.0), Some(0));
        line.join(waiting(names[2], 20));
        assert!(!line.is_overtaken(second));
        assert_eq!(called(&mut line), [10, 1, 11, 20, 2, 3, 4]);
    }

    #[test]
    fn whoever_asks_again_and_again_waits_for_few_of_the_others() {
        let (mut line, names) = line(2);
        let many: Vec<_> = (0..400).map(|id| line.join(waiting(names[0], id))).collect();
        line.call().unwrap();
        for round in 0..100 {
            line.join(waiting(names[1], 1000));
            line.join(waiting(names[0], 400 + round));
            let between = std::iter::from_fn(|| line.call()).take_while(|one| one.id.0 != 1000).count();
            assert_eq!(between, 1, "in round {round}");
        }
        assert!(line.is_overtaken(many[399]));
    }

    #[test]
    fn who_leaves_gives_its_share_back() {
        let (mut line, names) = line(2);
        let places: Vec<_> = (0..3).map(|id| line.join(waiting(names[0], id))).collect();
        assert!(places.iter().rev().all(|place| line.leave(*place).is_some()));
        assert!(line.leave(places[0]).is_none());
        line.join(waiting(names[1], 10));
        line.join(waiting(names[0], 3));
        assert_eq!(called(&mut line), [10, 3], "the places that were left count no more");
        assert_eq!((line.waiting(), line.free(), line.shares.len()), (0, 1, 0));
    }

    /// Whoever waits is called before anybody else was called three times.
    #[test]
    fn in_any_order_nobody_is_passed_three_times_by_the_same() {
        const NAMES: u64 = 6;
        let (mut line, names) = line(NAMES);
        let mut random = Random(11);
        let mut waits = [0; NAMES as usize];
        let mut passed = [[0; NAMES as usize]; NAMES as usize];
        for id in 0..50_000 {
            // The first of them asks by many connections.
            let name = if random.below(2) == 0 { 0 } else { random.below(names.len()) };
            if random.below(2) == 0 && waits[name] < if name == 0 { 50 } else { 3 } {
                waits[name] += 1;
                line.join(waiting(names[name], id));
            } else if line.waiting() > 0 {
                let who = line.call().unwrap().who;
                let called = names.iter().position(|name| *name == who).unwrap();
                waits[called] -= 1;
                passed[called] = [0; NAMES as usize];
                for other in (0..names.len()).filter(|other| *other != called && waits[*other] > 0) {
                    passed[other][called] += 1;
                    assert!(passed[other][called] < 3, "{passed:?}");
                }
            }
        }
    }
}
