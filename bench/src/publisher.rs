//! When a publisher publishes what: by a schedule, or whenever an answer came.

use std::collections::VecDeque;

use crate::dialect::FIRST_PUBLISH_ID;
use crate::plan::{Group, Pace};

/// The publishing side of one connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Index of its connection in the thread.
    pub(crate) connection: usize,
    pub(crate) group: usize,
    /// Its number in the group.
    pub(crate) number: usize,
    rooms: usize,
    /// Stays in the room it listens to; its messages are under way until they came back to it.
    listens: bool,
    next_room: usize,
    pace: Pace,
    /// Between two messages of this publisher; only for a rate.
    interval_ns: f64,
    /// Messages due so far; only for a rate.
    scheduled: u64,
    phase_ns: f64,
    next_id: u64,
    /// Publishes sent, by id from `first_id` on; `None` once answered.
    sent: VecDeque<Option<Sent>>,
    first_id: u64,
    under_way: usize,
}

/// A publish that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) room: usize,
    pub(crate) due_ns: u64,
    /// The publisher's messages count from 0.
    pub(crate) number: u64,
    awaits_answer: bool,
    /// Of the publisher's own copy.
    awaits_copy: bool,
}

impl Publisher {
    /// The `number`th publisher of a group, on this connection of its thread.
    pub(crate) fn new(connection: usize, group: usize, plan: &Group, number: usize) -> Self {
        let share = plan.publishers as f64;
        let interval_ns = match plan.pace {
            Pace::Rate(rate) => 1e9 * share / rate,
            Pace::Window(_) => 0.0,
        };
        Self {
            connection,
            group,
            number,
            rooms: plan.rooms,
            listens: plan.publishers_listen,
            next_room: if plan.publishers_listen {
                number % plan.rooms
            } else {
                number * plan.rooms / plan.publishers.max(1)
            },
            pace: plan.pace,
            interval_ns,
            scheduled: 0,
            phase_ns: interval_ns * number as f64 / share,
            next_id: FIRST_PUBLISH_ID,
            sent: VecDeque::new(),
            first_id: FIRST_PUBLISH_ID,
            under_way: 0,
        }
    }

    /// The next publish that is due by now, if there is one: its id, room and due time.
    pub(crate) fn next(&mut self, run_from_ns: u64, now_ns: u64) -> Option<(u64, Sent)> {
        let due_ns = match self.pace {
            Pace::Window(window) if self.under_way >= window => return None,
            Pace::Window(_) => now_ns,
            Pace::Rate(_) => self.due_ns(run_from_ns).filter(|due| *due <= now_ns)?,
        };
        self.scheduled += 1;
        let id = self.next_id;
        let sent = Sent {
            room: self.next_room,
            due_ns,
            number: id - FIRST_PUBLISH_ID,
            awaits_answer: true,
            awaits_copy: self.listens,
        };
        if !self.listens {
            self.next_room = (self.next_room + 1) % self.rooms;
        }
        self.next_id += 1;
        self.sent.push_back(Some(sent));
        self.under_way += 1;
        Some((id, sent))
    }

    /// Takes back the last publish, which does not leave.
    pub(crate) fn withdraw(&mut self) {
        self.under_way -= usize::from(self.sent.pop_back().flatten().is_some());
        self.next_id = self.first_id + self.sent.len() as u64;
    }

    /// When the next message is due; `None` when that depends on an answer.
    pub(crate) fn due_ns(&self, run_from_ns: u64) -> Option<u64> {
        let after = self.phase_ns + self.interval_ns * self.scheduled as f64;
        matches!(self.pace, Pace::Rate(_)).then_some(run_from_ns + after as u64)
    }

    /// Publishes that wait for their answers.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = Sent> {
        self.sent.iter().flatten().filter(|sent| sent.awaits_answer).copied()
    }

    /// The publish that an answer belongs to, if it still waits for one.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Sent> {
        let sent = self.find(id).filter(|sent| sent.awaits_answer)?;
        sent.awaits_answer = false;
        let answered = *sent;
        self.release(id);
        Some(answered)
    }

    /// The publisher has its own copy of this message, or will not get one.
    pub(crate) fn copied(&mut self, id: u64) {
        if let Some(sent) = self.find(id) {
            sent.awaits_copy = false;
            self.release(id);
        }
    }

    fn find(&mut self, id: u64) -> Option<&mut Sent> {
        let index = usize::try_from(id.checked_sub(self.first_id)?).ok()?;
        self.sent.get_mut(index)?.as_mut()
    }

    /// Forgets a publish that waits for nothing any more.
    fn release(&mut self, id: u64) {
        let index = (id - self.first_id) as usize;
        if self.sent[index].is_some_and(|sent| sent.awaits_answer || sent.awaits_copy) {
            return;
        }
        self.sent[index] = None;
        debug_assert!(self.under_way > 0, "what waits was under way");
        self.under_way -= 1;
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first_id += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(publishers: usize, pace: Pace) -> Group {
        Group {
            name: "g".into(),
            rooms: 3,
            listeners: 0,
            publishers,
            publishers_listen: false,
            pace,
            size: 128,
        }
    }

    #[test]
    fn a_rate_is_kept_whatever_the_server_does() {
        let mut publisher = Publisher::new(0, 0, &group(2, Pace::Rate(1000.0)), 1);
        assert_eq!(
            publisher.due_ns(0),
            Some(1_000_000),
            "the second publisher begins half an interval later"
        );
        let due: Vec<u64> =
            std::iter::from_fn(|| publisher.next(0, 10_000_000)).map(|(_, sent)| sent.due_ns).collect();
        assert_eq!(due, [1_000_000, 3_000_000, 5_000_000, 7_000_000, 9_000_000]);
    }

    #[test]
    fn an_answer_frees_capacity_in_the_window() {
        let mut publisher = Publisher::new(0, 0, &group(1, Pace::Window(2)), 0);
        let ids: Vec<u64> = std::iter::from_fn(|| publisher.next(0, 5)).map(|(id, _)| id).collect();
        assert_eq!(ids, [3, 4]);
        assert_eq!(publisher.answered(4).unwrap().room, 1);
        assert!(publisher.answered(4).is_none());
        let (id, sent) = publisher.next(0, 6).unwrap();
        assert_eq!((id, sent.room, sent.number), (5, 2, 2));
        assert!(publisher.next(0, 7).is_none());
        assert!(publisher.answered(3).is_some() && publisher.answered(5).is_some());
        assert_eq!(publisher.first_id, 6);
    }

    #[test]
    fn one_that_listens_waits_for_its_own_copies() {
        let plan = Group { listeners: 3, publishers_listen: true, ..group(3, Pace::Window(1)) };
        let mut publisher = Publisher::new(0, 0, &plan, 2);
        let (first, sent) = publisher.next(0, 5).unwrap();
        assert_eq!((sent.room, sent.number), (2, 0));
        publisher.copied(first);
        assert!(publisher.next(0, 6).is_none() && publisher.unanswered().count() == 1);
        assert!(publisher.answered(first).is_some() && publisher.answered(first).is_none());
        let (second, sent) = publisher.next(0, 7).unwrap();
        assert_eq!((sent.room, sent.number), (2, 1));
        assert!(publisher.answered(second).is_some() && publisher.unanswered().count() == 0);
        assert!(publisher.next(0, 8).is_none(), "its own copy is not there");
        publisher.copied(second);
        assert!(publisher.next(0, 9).is_some());
        publisher.withdraw();
        assert_eq!(publisher.next(0, 10).unwrap().1.number, 2, "the one before did not leave");
    }
}
