//! The place of a lane's writer: one thread has it at a time, others wait for it as long as they like.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, lock, wait_timeout};

use super::writer::Writer;

/// Holds the writer while nobody has it. Who waits gets it in the order of asking: a busy leader, who is back before
/// a waiting thread has woken up, would otherwise keep other writes out for as long as there are messages.
pub(super) struct Seat {
    place: Mutex<Place>,
    freed: Condvar,
}

struct Place {
    writer: Option<Writer>,
    /// Who waits, by the number drawn.
    line: VecDeque<u64>,
    next_number: u64,
}

/// The writer on its way back, also when the work panicked: its connection was out of its place then, and is lost.
struct Taken<'s> {
    seat: &'s Seat,
    writer: Option<Writer>,
}

impl Seat {
    pub(super) fn new(writer: Writer) -> Self {
        let place = Place { writer: Some(writer), line: VecDeque::new(), next_number: 0 };
        Self { place: Mutex::new(place), freed: Condvar::new() }
    }

    /// Does something with the writer; `None` when others have it for longer than `longest`.
    pub(super) fn with<T>(&self, longest: Duration, work: impl FnOnce(&mut Writer) -> T) -> Option<T> {
        let writer = self.take(longest)?;
        let mut taken = Taken { seat: self, writer: Some(writer) };
        taken.writer.as_mut().map(work)
    }

    fn take(&self, longest: Duration) -> Option<Writer> {
        let began = Instant::now();
        let mut place = lock(&self.place);
        let number = place.next_number;
        place.next_number += 1;
        place.line.push_back(number);
        loop {
            let is_first = place.line.front() == Some(&number);
            if is_first && let Some(writer) = place.writer.take() {
                place.line.pop_front();
                return Some(writer);
            }
            let Some(left) = longest.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
                place.line.retain(|waiting| *waiting != number);
                // Whoever is first now may have been woken up in vain before.
                self.freed.notify_all();
                return None;
            };
            place = wait_timeout(&self.freed, place, left);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        lock(&self.seat.place).writer = self.writer.take();
        self.seat.freed.notify_all();
    }
}
