//! Who owns a connection: its seat while it is parked, and otherwise the one thread that took it.
//!
//! ```text
//!            take (event), wake, tick                     park, not woken
//!   Parked ───────────────────────────► Taken ─────────────────────────────► Parked
//!                                       │   ▲
//!               event, wake: woken = true   │ park, woken: the owner keeps it for another turn
//!                                       └───┘──────► removed, when it ended
//! ```
//!
//! So a wake-up is never lost: it either takes the parked connection out, or is seen by the owner when it
//! parks. An event is such a wake-up: a socket is armed before its connection is parked, by the owner alone, so
//! nobody's wish is overwritten by that of an earlier owner.
//! Pure but for its locks; the model checker runs it.

use std::time::Instant;

use ahash::AHashMap;

use crate::ids::ConnectionId;
use crate::sync::ShardedMutex;

/// The seats of all connections.
#[derive(Debug)]
pub(super) struct Seats<C>(ShardedMutex<AHashMap<ConnectionId, Seat<C>>>);

#[derive(Debug)]
struct Seat<C> {
    /// `None`: some thread owns it.
    parked: Option<Box<C>>,
    /// Something came while a thread owned it.
    woken: bool,
    /// It waits, parked, for a turn that is asked for.
    asked: bool,
    /// The moment for which it is listed in the deadlines.
    listed_at: Option<Instant>,
}

impl<C> Default for Seats<C> {
    fn default() -> Self {
        Self(ShardedMutex::default())
    }
}

impl<C> Seats<C> {
    /// A seat for a connection that the caller owns.
    pub(super) fn add(&self, id: ConnectionId) {
        let seat = Seat { parked: None, woken: false, asked: false, listed_at: None };
        let before = self.0.of(id.0).insert(id, seat);
        debug_assert!(before.is_none(), "a connection has one seat");
    }

    /// Takes a parked connection out. `None` when it is gone or a thread owns it, which then gives it
    /// another turn.
    pub(super) fn take(&self, id: ConnectionId) -> Option<Box<C>> {
        let mut seats = self.0.of(id.0);
        let seat = seats.get_mut(&id)?;
        Self::take_out(seat)
    }

    fn take_out(seat: &mut Seat<C>) -> Option<Box<C>> {
        let taken = seat.parked.take();
        seat.woken |= taken.is_none();
        seat.asked = false;
        taken
    }

    /// Takes a connection out for the turn that was asked for. `None` when it has had one since.
    pub(super) fn take_asked(&self, id: ConnectionId) -> Option<Box<C>> {
        let mut seats = self.0.of(id.0);
        Self::take_out(seats.get_mut(&id).filter(|seat| seat.asked)?)
    }

    /// Asks for a turn of a parked connection, which stays so until it comes. True when that is to be queued for
    /// [`take_asked`](Self::take_asked): it is not yet. One that a thread owns gets another turn.
    pub(super) fn ask(&self, id: ConnectionId) -> bool {
        let mut seats = self.0.of(id.0);
        let Some(seat) = seats.get_mut(&id) else { return false };
        if seat.parked.is_none() {
            seat.woken = true;
            return false;
        }
        !std::mem::replace(&mut seat.asked, true)
    }

    /// Takes a parked connection out because its moment in the deadlines has come. `None` when it is gone or
    /// a thread owns it, which looks at its deadlines when it parks.
    pub(super) fn take_due(&self, id: ConnectionId) -> Option<Box<C>> {
        let mut seats = self.0.of(id.0);
        let seat = seats.get_mut(&id)?;
        seat.listed_at = None;
        seat.parked.take()
    }

    /// Arms the socket of a connection that the caller owns, and [parks](Self::park) it. Behind the parking the next
    /// owner might have asked something else of the socket already, which a late `arm` would undo.
    pub(super) fn arm_and_park(
        &self,
        id: ConnectionId,
        connection: Box<C>,
        arm: impl FnOnce(&C),
        deadline: Option<Instant>,
        list: impl FnOnce(Option<Instant>, Instant),
    ) -> Result<(), Box<C>> {
        arm(&connection);
        self.park(id, connection, deadline, list)
    }

    /// Parks a connection that the caller owns; gives it back when it was woken meanwhile. `list` lists it
    /// anew when it is not listed for `deadline` or an earlier moment.
    pub(super) fn park(
        &self,
        id: ConnectionId,
        connection: Box<C>,
        deadline: Option<Instant>,
        list: impl FnOnce(Option<Instant>, Instant),
    ) -> Result<(), Box<C>> {
        let mut seats = self.0.of(id.0);
        let Some(seat) = seats.get_mut(&id) else {
            debug_assert!(false, "a connection without a seat");
            return Err(connection);
        };
        debug_assert!(seat.parked.is_none(), "a connection has one owner");
        if std::mem::take(&mut seat.woken) {
            return Err(connection);
        }
        if let Some(deadline) = deadline
            && seat.listed_at.is_none_or(|listed| listed > deadline)
        {
            list(seat.listed_at, deadline);
            seat.listed_at = Some(deadline);
        }
        seat.parked = Some(connection);
        Ok(())
    }

    /// Gives up the seat of a connection that has ended; the moment for which it is listed.
    pub(super) fn remove(&self, id: ConnectionId) -> Option<Instant> {
        let seat = self.0.of(id.0).remove(&id);
        debug_assert!(seat.as_ref().is_some_and(|seat| seat.parked.is_none()), "its owner removes it");
        seat?.listed_at
    }

    /// Every connection that has a seat now.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.0.each(|seats| seats.keys().copied().collect::<Vec<_>>()).flatten().collect()
    }
}

#[cfg(all(test, feature = "model"))]
mod model;

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::time::Duration;

    use super::*;

    const ID: ConnectionId = ConnectionId(7);

    fn never(_: Option<Instant>, _: Instant) {
        panic!("nothing is listed");
    }

    #[test]
    fn a_connection_that_is_woken_in_its_turn_gets_another() {
        let seats = Seats::default();
        seats.add(ID);
        assert_eq!(seats.take(ID), None, "its thread owns it");
        assert_eq!(seats.park(ID, Box::new('c'), None, never), Err(Box::new('c')));
        assert_eq!(seats.park(ID, Box::new('c'), None, never), Ok(()));
        assert_eq!(seats.take(ID), Some(Box::new('c')));
        assert_eq!(seats.remove(ID), None);
        assert_eq!(seats.take(ID), None);
    }

    #[test]
    fn an_asked_turn_is_queued_once() {
        let seats = Seats::default();
        seats.add(ID);
        assert!(!seats.ask(ID), "its thread sees it");
        assert_eq!(seats.park(ID, Box::new(()), None, never), Err(Box::new(())));
        seats.park(ID, Box::new(()), None, never).unwrap();
        assert!(seats.ask(ID) && !seats.ask(ID));
        seats.take_due(ID).unwrap();
        assert_eq!(seats.take_asked(ID), None, "the deadlines have it");
        assert!(seats.park(ID, Box::new(()), None, never).is_err(), "and give it the turn");
        seats.park(ID, Box::new(()), None, never).unwrap();
        assert_eq!(seats.take_asked(ID), None, "it has had it");
        assert!(seats.ask(ID));
        assert!(seats.take_asked(ID).is_some());
    }

    #[test]
    fn only_an_earlier_deadline_is_listed_again() {
        let seats = Seats::default();
        seats.add(ID);
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let park = |deadline: Instant| {
            let mut listed = None;
            seats.park(ID, Box::new(()), Some(deadline), |old, new| listed = Some((old, new))).unwrap();
            listed
        };
        assert_eq!(park(at(9)), Some((None, at(9))));
        seats.take(ID).unwrap();
        assert_eq!(park(at(20)), None, "it is told early, and listed again then");
        seats.take(ID).unwrap();
        assert_eq!(park(at(5)), Some((Some(at(9)), at(5))));
        seats.take_due(ID).unwrap();
        assert_eq!(park(at(20)), Some((None, at(20))));
        assert_eq!(seats.ids(), [ID]);
        seats.take(ID).unwrap();
        assert_eq!(seats.remove(ID), Some(at(20)));
    }

    #[test]
    fn a_deadline_that_comes_in_a_turn_is_looked_at_when_it_parks() {
        let seats = Seats::default();
        seats.add(ID);
        assert_eq!(seats.take_due(ID), None);
        assert_eq!(seats.park(ID, Box::new(()), None, never), Ok(()), "no turn for nothing");
    }
}
