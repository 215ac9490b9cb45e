//! The frames that wait for a socket, or the publications that wait for a consumer, in order and counted.
//!
//! Owns the sum of the memory that they take and how far the front buffer is sent. Knows no budget, socket or lock.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::publication::Publication;

/// Longest queue that [`Queue::is_sound`] counts again: a debug build would crawl with more.
const RECOUNT_BUFFERS_MAX: usize = 64;

/// Buffers or publications an empty queue keeps memory for.
const ENTRIES_KEPT: usize = 64;

/// Most memory that a queued buffer takes besides its bytes: its entry in the list, which is at most half empty, the
/// counter by which it is shared, and what the allocator adds to that counter and to the bytes. Of a small reply it is
/// the larger part.
pub(super) const BUFFER_BYTES: usize = 2 * size_of::<Bytes>() + 32 + 24;

/// Most memory that a buffer takes in a queue.
pub(super) const fn memory_bytes(buffer: &Bytes) -> usize {
    buffer.len() + BUFFER_BYTES
}

/// Buffers or publications in the order in which they leave, never both; no buffer is empty.
///
/// The sum comes first: it is all that a push into an empty queue reads.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Queue {
    /// Memory of all buffers, of which sent bytes are no part, or of all publications.
    bytes: usize,
    buffers: VecDeque<Bytes>,
    /// Bytes of the front buffer that are sent; less than its length.
    front_sent: usize,
    publications: VecDeque<Publication>,
}

impl Queue {
    /// Memory of what has not left.
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

    /// Appends a buffer; gives by how many bytes the queue grew.
    pub(super) fn push_back(&mut self, buffer: Bytes) -> usize {
        debug_assert!(!buffer.is_empty(), "an empty buffer would never be written");
        let more = memory_bytes(&buffer);
        self.bytes += more;
        self.buffers.push_back(buffer);
        more
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

    /// Puts a buffer before all others, which is possible only before any of them began to leave; gives by how many
    /// bytes the queue grew.
    pub(super) fn push_front(&mut self, buffer: Bytes) -> usize {
        debug_assert!(!buffer.is_empty(), "an empty buffer would never be written");
        debug_assert_eq!(self.front_sent, 0, "the buffer would tear the one in front");
        let more = memory_bytes(&buffer);
        self.bytes += more;
        self.buffers.push_front(buffer);
        more
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
            self.publications.shrink_to(ENTRIES_KEPT);
        }
        Some((publication, bytes))
    }

    /// Removes `count` sent bytes from the front; gives by how many bytes the queue shrank.
    pub(super) fn consume(&mut self, mut count: usize) -> usize {
        let mut less = count;
        while let Some(front) = self.buffers.front() {
            let left = front.len() - self.front_sent;
            if count < left {
                self.front_sent += count;
                count = 0;
                break;
            }
            count -= left;
            less += BUFFER_BYTES;
            self.front_sent = 0;
            self.buffers.pop_front();
        }
        debug_assert!(count == 0 && less <= self.bytes, "more was sent than queued");
        self.bytes -= less;
        if self.buffers.is_empty() {
            debug_assert_eq!(self.bytes, 0, "an empty queue takes no memory");
            // A client that was slow once does not keep the memory for it.
            self.buffers.shrink_to(ENTRIES_KEPT);
        }
        less
    }

    /// Drops everything and its memory; gives how much that was.
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
        let frames = self.buffers.iter().map(memory_bytes).sum::<usize>() - self.front_sent;
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
        assert_eq!((queue.bytes(), queue.front_sent(), queue.buffers().len()), (4 + 2 * BUFFER_BYTES, 1, 2));
        assert!(queue.is_sound());
        assert_eq!(queue.consume(4), 4 + 2 * BUFFER_BYTES);
        assert!(queue.is_empty() && queue.is_sound());
    }

    #[test]
    fn clearing_gives_what_was_not_sent() {
        let mut queue = Queue::default();
        queue.push_back(Bytes::from_static(b"abc"));
        assert_eq!(queue.consume(1), 1);
        assert_eq!(queue.clear(), 2 + BUFFER_BYTES);
        assert!(queue.is_empty() && queue.is_sound());
    }

    #[test]
    fn a_queue_that_was_long_once_keeps_little() {
        let mut queue = Queue::default();
        (0..10_000).for_each(|_| assert_eq!(queue.push_back(Bytes::from_static(b"abc")), 3 + BUFFER_BYTES));
        queue.consume(30_000);
        assert!(queue.is_empty() && queue.buffers.capacity() <= 2 * ENTRIES_KEPT);
    }
}
