//! The newest publications of an active room, kept in memory for quick resumes.
//!
//! Dense: from its first to its last entry no seq is missing. Bounded in entries and bytes. Belongs to the
//! backlog of its room, and so is under the lock of the room's shard.

use std::collections::VecDeque;

use crate::ids::Seq;
use crate::limits::{TAIL_BYTES_MAX, TAIL_PUBLICATIONS_MAX};
use crate::publication::Publication;

/// The newest publications of a room, without gaps.
#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<Publication>,
    bytes: usize,
}

impl Tail {
    /// Appends the next publication; one that does not follow the last entry starts a new tail.
    pub(super) fn push(&mut self, publication: Publication) {
        if self.entries.back().is_some_and(|last| last.seq + 1 != publication.seq) {
            self.clear();
        }
        self.bytes += publication.memory_bytes();
        self.entries.push_back(publication);
        while self.entries.len() > TAIL_PUBLICATIONS_MAX || self.bytes > TAIL_BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.memory_bytes();
        }
        self.assert_consistent();
    }

    /// Seq of the newest entry.
    pub(super) fn newest(&self) -> Option<Seq> {
        self.entries.back().map(|entry| entry.seq)
    }

    fn assert_consistent(&self) {
        debug_assert!(self.entries.len() <= TAIL_PUBLICATIONS_MAX && self.bytes <= TAIL_BYTES_MAX);
        debug_assert_eq!(self.bytes == 0, self.entries.is_empty(), "the bytes of the tail do not add up");
        let ends = self.entries.front().zip(self.entries.back());
        debug_assert!(
            ends.is_none_or(|(first, last)| last.seq - first.seq + 1 == self.entries.len() as Seq),
            "a tail is dense"
        );
    }

    /// The publications `after < seq <= until`, if all of them are here.
    pub(super) fn range(&self, after: Seq, until: Seq) -> Option<impl Iterator<Item = &Publication> + Clone> {
        let first = self.entries.front().map_or(u64::MAX, |entry| entry.seq);
        let last = self.entries.back().map_or(0, |entry| entry.seq);
        if after >= until {
            return Some(self.entries.range(0..0));
        }
        if first > after + 1 || last < until {
            return None;
        }
        let from = (after + 1 - first) as usize;
        let to = (until + 1 - first) as usize;
        Some(self.entries.range(from..to))
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Channel;

    fn publication(seq: Seq, bytes: usize) -> Publication {
        Publication {
            channel: Channel::new("room").unwrap(),
            seq,
            data: "x".repeat(bytes).into(),
            info: None,
            tags: None,
            created_at_ms: 0,
        }
    }

    fn seqs(tail: &Tail, after: Seq, until: Seq) -> Option<Vec<Seq>> {
        tail.range(after, until).map(|range| range.map(|entry| entry.seq).collect())
    }

    #[test]
    fn a_range_is_given_whole_or_not_at_all() {
        let mut tail = Tail::default();
        assert_eq!(seqs(&tail, 4, 4), Some(vec![]));
        assert_eq!(seqs(&tail, 3, 4), None);
        for seq in 5..=8 {
            tail.push(publication(seq, 10));
        }
        assert_eq!(seqs(&tail, 4, 8), Some(vec![5, 6, 7, 8]));
        assert_eq!(seqs(&tail, 6, 7), Some(vec![7]));
        assert_eq!(seqs(&tail, 3, 8), None);
        assert_eq!(seqs(&tail, 6, 9), None);
    }

    #[test]
    fn the_tail_stays_bounded_and_dense() {
        let mut tail = Tail::default();
        for seq in 1..=1000 {
            tail.push(publication(seq, 10));
        }
        assert_eq!(seqs(&tail, 998, 1000), Some(vec![999, 1000]));
        assert_eq!(seqs(&tail, 1000 - TAIL_PUBLICATIONS_MAX as u64 - 1, 1000), None);
        for seq in 1001..=1010 {
            tail.push(publication(seq, TAIL_BYTES_MAX / 4));
        }
        assert_eq!(seqs(&tail, 1000, 1010), None);
        tail.push(publication(2000, 10));
        assert_eq!(seqs(&tail, 1009, 1010), None);
        assert_eq!(seqs(&tail, 1999, 2000), Some(vec![2000]));
    }
}
