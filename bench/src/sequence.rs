//! Numbers that should come one after the other: which are missing, which come late or again.

/// Numbers that may be missing at once.
const GAP_MAX: u64 = 1_000_000;

/// A run of numbers as they arrive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    /// The next number; `None`: the first one is as good as any.
    next: Option<u64>,
    /// Numbers before `next` that did not arrive.
    missing: Vec<u64>,
}

/// How a number came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Behind the last one, with or without a gap.
    Next,
    /// Behind a later one.
    Late,
    /// Not for the first time.
    Again,
    /// So far ahead that it cannot be true.
    Absurd,
}

impl Sequence {
    /// One that begins with this number.
    pub(crate) fn from(first: u64) -> Self {
        Self { next: Some(first), missing: Vec::new() }
    }

    /// The last number that came or was to come; `None` before the first one.
    pub(crate) fn last(&self) -> Option<u64> {
        self.next?.checked_sub(1)
    }

    /// How many have not arrived, of those before the last one.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.len() as u64
    }

    /// Notes a number and says whether it came as it should.
    pub(crate) fn note(&mut self, number: u64) -> Arrival {
        let next = self.next.unwrap_or(number);
        if number >= next {
            if number - next > GAP_MAX {
                return Arrival::Absurd;
            }
            self.missing.extend(next..number);
            self.next = number.checked_add(1);
            return Arrival::Next;
        }
        match self.missing.iter().position(|missing| *missing == number) {
            Some(index) => {
                self.missing.swap_remove(index);
                Arrival::Late
            }
            None => Arrival::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival::{Absurd, Again, Late, Next};
    use super::*;

    #[test]
    fn without_a_beginning_the_first_is_as_good_as_any() {
        let mut sequence = Sequence::default();
        let came = [57, 58, 60, 59, 58].map(|number| sequence.note(number));
        assert_eq!(came, [Next, Next, Next, Late, Again]);
        assert_eq!((sequence.missing(), sequence.last()), (0, Some(60)));
    }

    #[test]
    fn with_a_beginning_a_gap_before_the_first_is_one() {
        let mut sequence = Sequence::from(4);
        let came = [6, 4, 6, 6 + GAP_MAX + 2].map(|number| sequence.note(number));
        assert_eq!(came, [Next, Late, Again, Absurd]);
        assert_eq!((sequence.missing(), sequence.last()), (1, Some(6)));
        assert_eq!(Sequence::from(0).last(), None);
    }
}
