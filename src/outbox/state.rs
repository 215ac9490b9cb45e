//! The states of an outbox, and every transition between them.
//!
//! Pure: nothing here writes a byte, locks or wakes anybody.

/// The end of an outbox: it takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The outbox was closed with this code.
    Closed(u16),
    /// The socket took no byte for the stall timeout.
    Stalled,
    /// The socket failed, or the peer or the reader ended it.
    Broken,
}

/// The life of an outbox.
///
/// ```text
///              uncork            close(code)                drained
///   Corked ──────────────► Open ─────────────► Closing ───────────────► Ended(Closed)
///     │  │                  │                   │   ▲                        ▲
///     │  └──────────────────┼── close(code) ────┼───┘                        │
///     │                     │                   └──── end(any reason) ───────┘
///     └─────────────────────┴── end(Stalled | Broken) ──────────────► Ended(Stalled | Broken)
/// ```
///
/// Frames are taken while `Corked` and `Open`. What is queued still leaves while `Closing`; nothing is
/// queued while `Ended`. The first reason to end is the one that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Frames are queued, none is written before the first reply.
    Corked,
    /// Frames are taken and written.
    Open,
    /// The last frame is queued or about to be; it carries this code.
    Closing(u16),
    /// Nothing is taken and nothing is queued.
    Ended(Ended),
}

impl State {
    /// True while frames are taken.
    pub(super) const fn accepts(self) -> bool {
        matches!(self, Self::Corked | Self::Open)
    }

    /// True while queued bytes may leave.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Open | Self::Closing(_))
    }

    /// The reason why nothing is taken; `None` while frames are.
    pub(super) const fn ended(self) -> Option<Ended> {
        match self {
            Self::Corked | Self::Open => None,
            Self::Closing(code) => Some(Ended::Closed(code)),
            Self::Ended(why) => Some(why),
        }
    }

    /// `Corked` to `Open`.
    pub(super) fn uncork(&mut self) {
        debug_assert!(self.accepts(), "uncorked while {self:?}");
        *self = Self::Open;
    }

    /// `Corked` or `Open` to `Closing`.
    pub(super) fn close(&mut self, code: u16) {
        debug_assert!(self.accepts(), "closed while {self:?}");
        *self = Self::Closing(code);
    }

    /// To be called when the queue is empty: `Closing` to `Ended`. True when that happened now.
    pub(super) fn drained(&mut self) -> bool {
        let Self::Closing(code) = *self else { return false };
        *self = Self::Ended(Ended::Closed(code));
        true
    }

    /// Any state to `Ended`; an earlier reason stays.
    pub(super) fn end(&mut self, why: Ended) {
        *self = Self::Ended(self.ended().unwrap_or(why));
        debug_assert!(!self.accepts() && !self.writes());
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use super::*;

    #[test]
    fn a_close_ends_when_the_queue_has_drained() {
        let mut state = State::Corked;
        assert!(state.accepts() && !state.writes() && !state.drained());
        state.uncork();
        assert!(state.accepts() && state.writes() && !state.drained());
        state.close(3001);
        assert!(!state.accepts() && state.writes());
        assert_eq!(state.ended(), Some(Ended::Closed(3001)));
        assert!(state.drained() && !state.drained());
        assert_eq!(state, State::Ended(Ended::Closed(3001)));
    }

    #[test]
    fn the_first_reason_to_end_stays() {
        for (mut state, wanted) in [
            (State::Corked, Ended::Stalled),
            (State::Open, Ended::Stalled),
            (State::Closing(3000), Ended::Closed(3000)),
            (State::Ended(Ended::Broken), Ended::Broken),
        ] {
            state.end(Ended::Stalled);
            assert_eq!(state, State::Ended(wanted));
        }
    }
}
