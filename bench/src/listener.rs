//! The listening side of a client: its room, and what arrived of it. Outlives the socket.

use crate::dialect::Joined;
use crate::payload::Stamp;
use crate::plan::Group;
use crate::sequence::{Arrival, Sequence};
use crate::tally::End;

/// What one listener has of its room.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) group: usize,
    pub(crate) room: usize,
    /// Epoch of the room, once it was told; a server may not tell positions.
    epoch: Option<String>,
    /// Offsets that arrived, where the server numbers its messages.
    by_offset: Sequence,
    /// Stamps that arrived, by publisher of the room, where it does not.
    by_publisher: Vec<Sequence>,
    /// Messages that arrived, but for repeated ones.
    arrived: u64,
}

/// How a message arrived, and its number in the order of the room, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) arrival: Arrival,
    pub(crate) seq: Option<u64>,
}

impl Listener {
    pub(crate) fn new(group: usize, room: usize) -> Self {
        Self {
            group,
            room,
            epoch: None,
            by_offset: Sequence::default(),
            by_publisher: Vec::new(),
            arrived: 0,
        }
    }

    /// Epoch and offset to come back with.
    pub(crate) fn position(&self) -> Option<(&str, u64)> {
        Some((self.epoch.as_deref()?, self.by_offset.last().unwrap_or(0)))
    }

    /// Takes the position it was told when it joined. False when it was told before, and what was missed
    /// since is not to be had.
    pub(crate) fn join(&mut self, joined: &Joined) -> bool {
        let may_go_on = self.epoch.is_none() || joined.recovered;
        let tells = !joined.epoch.is_empty();
        if self.epoch.is_none() && (tells || joined.offset > 0) {
            self.by_offset = Sequence::from(joined.offset + 1);
        }
        self.epoch = tells.then(|| joined.epoch.clone());
        may_go_on
    }

    /// Notes a message of its room; `group` is the one it belongs to.
    pub(crate) fn note(&mut self, group: &Group, offset: Option<u64>, stamp: Option<Stamp>) -> Noted {
        let noted = match (offset, stamp) {
            (Some(offset), _) => Noted { arrival: self.by_offset.note(offset), seq: Some(offset) },
            (None, Some(stamp)) => self.note_stamp(group, stamp),
            (None, None) => Noted { arrival: Arrival::Next, seq: None },
        };
        self.arrived += u64::from(matches!(noted.arrival, Arrival::Next | Arrival::Late));
        noted
    }

    fn note_stamp(&mut self, group: &Group, stamp: Stamp) -> Noted {
        let Some((publisher, number)) = group.locate(self.room, stamp.publisher, stamp.number) else {
            // Published to another room.
            return Noted { arrival: Arrival::Again, seq: None };
        };
        let publishers = group.publishers_of(self.room);
        self.by_publisher.resize(publishers, Sequence::from(0));
        let arrival = self.by_publisher[publisher].note(number);
        Noted { arrival, seq: number.checked_mul(publishers as u64).map(|seq| seq + publisher as u64) }
    }

    /// What it has all in all.
    pub(crate) fn end(&self) -> End {
        let (missing, last) = (self.by_offset.missing(), self.by_offset.last().unwrap_or(0));
        End { arrived: self.arrived, missing, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Scenario;

    fn group(rooms: usize, publishers: usize) -> Group {
        let mut group = Scenario::named("room").unwrap().groups(128).remove(0);
        (group.rooms, group.publishers) = (rooms, publishers);
        group
    }

    fn joined(offset: u64, recovered: bool) -> Joined {
        Joined { epoch: "e".into(), offset, recovered, missed: Vec::new() }
    }

    #[test]
    fn a_gap_outlives_the_connection() {
        let (group, mut listener) = (group(1, 1), Listener::new(0, 0));
        assert!(listener.join(&joined(3, false)));
        assert_eq!(listener.position(), Some(("e", 3)));
        assert_eq!(listener.note(&group, Some(6), None).arrival, Arrival::Next);
        assert!(listener.join(&joined(8, true)), "it is recovered");
        assert_eq!((listener.position(), listener.end().missing), (Some(("e", 6)), 2));
        assert_eq!(listener.note(&group, Some(5), None).arrival, Arrival::Late);
        assert!(!listener.join(&joined(8, false)), "what was missed is gone");
    }

    #[test]
    fn without_offsets_stamps_are_followed_by_publisher() {
        // Two publishers that go from room to room: their messages 1, 4, 7 are for room 1 or so.
        let (group, mut listener) = (group(3, 2), Listener::new(0, 1));
        let mut note = |publisher, number| {
            let noted = listener.note(&group, None, Some(Stamp { due_ns: 0, publisher, number }));
            (noted.arrival, noted.seq)
        };
        assert_eq!(note(0, 1), (Arrival::Next, Some(0)));
        assert_eq!(note(1, 0), (Arrival::Next, Some(1)));
        assert_eq!(note(1, 0), (Arrival::Again, Some(1)));
        assert_eq!(note(0, 7), (Arrival::Next, Some(4)), "number 4 is missing");
        assert_eq!(note(0, 4), (Arrival::Late, Some(2)));
        assert_eq!(note(2, 0), (Arrival::Again, None), "there is no such publisher");
        assert_eq!(listener.end().arrived, 4);
    }
}
