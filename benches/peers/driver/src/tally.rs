//! What came of the publications: who has what, how late, and when the last listener
//! had it.

use crate::payload::Stamp;
use hdrhistogram::Histogram;

/// Latencies from 1 us to 2 minutes are told apart to three digits.
const LATENCY_US_MAX: u64 = 120_000_000;

pub(crate) struct Tally {
    rooms: usize,
    publishers: usize,
    /// For each listener, the next number awaited from each publisher of its room.
    awaited: Vec<Box<[u32]>>,
    /// For each publisher, how many listeners have yet to get each of its messages.
    missing: Vec<Vec<u32>>,
    /// Listeners of each room.
    listeners: Vec<u32>,
    pub(crate) outstanding: u64,
    pub(crate) measured: Measured,
}

/// What is put to zero when the warm-up is over.
pub(crate) struct Measured {
    pub(crate) published: u64,
    pub(crate) deliveries: u64,
    /// Never came, or was seen to be left out.
    pub(crate) lost: u64,
    /// Came again, or after one that was published later.
    pub(crate) repeated: u64,
    /// Intended sending to each delivery, in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Intended sending to the delivery to the last listener.
    pub(crate) last_listener: Histogram<u64>,
}

impl Measured {
    fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3);
        Ok(Self {
            published: 0,
            deliveries: 0,
            lost: 0,
            repeated: 0,
            latency: histogram()?,
            last_listener: histogram()?,
        })
    }
}

impl Tally {
    /// Listener `i` is in room `i % rooms`, and so is publisher `i`.
    pub(crate) fn new(
        connections: usize,
        rooms: usize,
        publishers: usize,
    ) -> Result<Self, hdrhistogram::CreationError> {
        let spread = |all: usize, room: usize| (all + rooms - 1 - room) / rooms;
        let awaited = |connection: usize| vec![0; spread(publishers, connection % rooms)].into();
        Ok(Self {
            rooms,
            publishers,
            awaited: (0..connections).map(awaited).collect(),
            missing: vec![Vec::new(); publishers],
            listeners: (0..rooms).map(|room| spread(connections, room) as u32).collect(),
            outstanding: 0,
            measured: Measured::new()?,
        })
    }

    /// Forgets what was measured so far. All that was published should have come.
    pub(crate) fn restart(&mut self) -> Result<(), hdrhistogram::CreationError> {
        self.settle();
        self.measured = Measured::new()?;
        Ok(())
    }

    /// The number of the publisher's next message, which is under way from now on.
    pub(crate) fn publish(&mut self, publisher: usize) -> u32 {
        let listeners = self.listeners[publisher % self.rooms];
        let missing = &mut self.missing[publisher];
        missing.push(listeners);
        self.outstanding += u64::from(listeners);
        self.measured.published += 1;
        (missing.len() - 1) as u32
    }

    pub(crate) fn delivered(&mut self, listener: usize, stamp: Stamp, now: u64) {
        let Stamp { publisher, number, nanoseconds } = stamp;
        let of_this_room = publisher < self.publishers && publisher % self.rooms == listener % self.rooms;
        let Some(awaited) = self.awaited[listener].get_mut(publisher / self.rooms).filter(|_| of_this_room)
        else {
            self.measured.repeated += 1;
            return;
        };
        if number < *awaited {
            self.measured.repeated += 1;
            return;
        }
        let left_out = number - *awaited;
        self.measured.lost += u64::from(left_out);
        self.outstanding = self.outstanding.saturating_sub(u64::from(left_out) + 1);
        *awaited = number + 1;
        let microseconds = now.saturating_sub(nanoseconds) / 1000;
        self.measured.deliveries += 1;
        self.measured.latency.saturating_record(microseconds);
        if let Some(missing) = self.missing[publisher].get_mut(number as usize) {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.measured.last_listener.saturating_record(microseconds);
            }
        }
    }

    /// What has not come by now is lost.
    pub(crate) fn settle(&mut self) {
        for (listener, awaited) in self.awaited.iter_mut().enumerate() {
            for (index, number) in awaited.iter_mut().enumerate() {
                let published = self.missing[index * self.rooms + listener % self.rooms].len() as u32;
                self.measured.lost += u64::from(published.saturating_sub(*number));
                *number = published;
            }
        }
        self.outstanding = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repetitions_are_counted() {
        let mut tally = Tally::new(4, 2, 2).expect("the bounds are right");
        for _ in 0..3 {
            tally.publish(1);
        }
        let stamp = |number| Stamp { nanoseconds: 0, publisher: 1, number };
        for (listener, number) in [(1, 0), (1, 1), (1, 1), (1, 2), (3, 0), (3, 2)] {
            tally.delivered(listener, stamp(number), 5_000);
        }
        let measured = &tally.measured;
        assert_eq!((measured.deliveries, measured.lost, measured.repeated), (5, 1, 1));
        assert_eq!((measured.last_listener.len(), tally.outstanding), (2, 0));
        tally.delivered(0, stamp(0), 5_000);
        assert_eq!(tally.measured.repeated, 2, "a message of another room is none of ours");
    }
}
