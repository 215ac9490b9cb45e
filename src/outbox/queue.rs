//! The frames that wait for a socket, or the publications that wait for a consumer, in order and counted.
//!
//! Owns the sum of their bytes and how far the front buffer is sent. Knows no budget, socket or lock.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::publication::Publication;

/// Longest queue that [`Queue::is_sound`] counts again: a debug build would crawl with more.
const RECOUNT_BUFFERS_MAX: usize = 64;

/// Publications an empty queue keeps memory for.
const PUBLICATIONS_KEPT: usize = 64;

/// Buffers or publications in the order in which they leave, never both; no buffer is empty.
///
/// The sum comes first: it is all that a push into an empty queue reads.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    /// Unsent bytes of all buffers, or memory of all publications.
    bytes: usize,
    buffers: VecDeque<Bytes>,
    /// Bytes of the front buffer that are sent; less than its length.
    front_sent: usize,
    publications: VecDeque<Publication>,
}

impl Queue {
    /// Bytes that have not left.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All buffers, the first of them as far as it is unsent from [`front_sent`](Self::front_sent) on.
    pub(super) const fn buffers(&self) -> &VecDeque<Bytes> {
        &self.buffers
    }

    /// Bytes of the front buffer that are sent already.
    pub(super) const fn front_sent(&self) -> usize {
        self.front_sent
    }

    pub(super) fn push_back(&mut self, buffer: Bytes) {
        debug_assert!(!buffer.is_empty(), "an empty buffer would never be written");
        self.bytes += buffer.len();
        self.buffers.push_back(buffer);
    }

    /// Puts a buffer in the place of the newest one, if that is `replaceable` and all of it still to leave; gives by how
    /// many bytes the queue grew, or `None` when nothing was replaced.
    pub(super) fn replace_back(
        &mut self,
        buffer: &Bytes,
        replaceable: impl Fn(&[u8]) -> bool,
    ) -> Option<i64> {
        debug_assert!(!buffer.is_empty(), "an empty buffer would never be written");
        // The front may have left in part, or be what was left of a frame when it was queued.
        let newest = self.buffers.iter_mut().skip(1).next_back().filter(|newest| replaceable(newest))?;
        let before = std::mem::replace(newest, buffer.clone()).len();
        self.bytes = self.bytes - before + buffer.len();
        Some(buffer.len() as i64 - before as i64)
    }

    /// Puts a buffer before all others, which is possible only before any of them began to leave.
    pub(super) fn push_front(&mut self, buffer: Bytes) {
        debug_assert!(!buffer.is_empty(), "an empty buffer would never be written");
        debug_assert_eq!(self.front_sent, 0, "the buffer would tear the one in front");
        self.bytes += buffer.len();
        self.buffers.push_front(buffer);
    }

    /// Appends publications, which take this much memory together.
    pub(super) fn push_publications(&mut self, publications: &[Publication], bytes: usize) {
        self.bytes += bytes;
        self.publications.extend(publications.iter().cloned());
    }

    /// Takes the oldest publication out, and how much memory it took.
    pub(super) fn pop_publication(&mut self) -> Option<(Publication, usize)> {
        let publication = self.publications.pop_front()?;
        let bytes = publication.memory_bytes();
        self.bytes -= bytes;
        if self.publications.is_empty() {
            // A consumer that was slow once does not keep the memory for it.
            self.publications.shrink_to(PUBLICATIONS_KEPT);
        }
        Some((publication, bytes))
    }

    /// Removes `count` sent bytes from the front.
    pub(super) fn consume(&mut self, mut count: usize) {
        debug_assert!(count <= self.bytes, "more was sent than queued");
        self.bytes -= count;
        while let Some(front) = self.buffers.front() {
            let left = front.len() - self.front_sent;
            if count < left {
                self.front_sent += count;
                break;
            }
            count -= left;
            self.front_sent = 0;
            self.buffers.pop_front();
        }
        debug_assert!(
            !self.buffers.is_empty() || self.bytes == 0,
            "an empty queue counts {} bytes",
            self.bytes
        );
    }

    /// Drops everything and its memory; gives how many bytes that were.
    pub(super) fn clear(&mut self) -> usize {
        std::mem::take(self).bytes
    }

    /// The invariants of the fields; counts only short queues again.
    pub(super) fn is_sound(&self) -> bool {
        let front_is_unsent = match self.buffers.front() {
            Some(front) => self.front_sent < front.len(),
            None => self.front_sent == 0 && self.publications.is_empty() == (self.bytes == 0),
        };
        let is_short = self.buffers.len() + self.publications.len() <= RECOUNT_BUFFERS_MAX;
        front_is_unsent && (!is_short || self.recount() == self.bytes)
    }

    fn recount(&self) -> usize {
        let frames = self.buffers.iter().map(Bytes::len).sum::<usize>() - self.front_sent;
        frames + self.publications.iter().map(Publication::memory_bytes).sum::<usize>()
    }

    /// Offset at which the fields end that a push into an empty queue reads.
    #[cfg(all(test, not(feature = "model")))]
    pub(super) const HOT_BYTES: usize = std::mem::offset_of!(Self, buffers);
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    #[test]
    fn sent_bytes_leave_from_the_front() {
        let mut queue = Queue::default();
        queue.push_back(Bytes::from_static(b"bcd"));
        queue.push_front(Bytes::from_static(b"a"));
        queue.push_back(Bytes::from_static(b"ef"));
        queue.consume(2);
        assert_eq!((queue.bytes(), queue.front_sent(), queue.buffers().len()), (4, 1, 2));
        assert!(queue.is_sound());
        queue.consume(4);
        assert!(queue.is_empty() && queue.is_sound());
    }

    #[test]
    fn clearing_gives_the_number_of_unsent_bytes() {
        let mut queue = Queue::default();
        queue.push_back(Bytes::from_static(b"abc"));
        queue.consume(1);
        assert_eq!(queue.clear(), 2);
        assert!(queue.is_empty() && queue.is_sound());
    }
}
