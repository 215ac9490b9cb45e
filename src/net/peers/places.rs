//! Places for sockets, and the reserve that clients cannot take.
//!
//! `connections_max` WebSockets and [`PLACES_RESERVED`] sockets more are served: an operator whose
//! server is full of clients still sees `/health` and `/metrics`, and the backend still publishes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::refusal::Refusal;

/// Sockets beyond `connections_max` that are served HTTP.
pub(in crate::net) const PLACES_RESERVED: usize = 64;

/// Those of the reserve that are for peers nearby alone, such as the monitoring (see
/// `AddressRules::is_nearby`). Strangers from elsewhere could hold all the others.
const PLACES_RESERVED_NEARBY: usize = PLACES_RESERVED / 2;

/// The places of one server.
#[derive(Debug)]
pub(in crate::net) struct Places {
    connections_max: usize,
    sockets: AtomicUsize,
    clients: AtomicUsize,
}

impl Places {
    /// Places for so many clients, and the reserve.
    pub(in crate::net) fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, sockets: AtomicUsize::new(0), clients: AtomicUsize::new(0) })
    }

    /// A place for one more socket, whatever it will speak. `is_nearby`: it comes from the server's own
    /// surroundings.
    pub(in crate::net) fn socket(self: &Arc<Self>, is_nearby: bool) -> Result<SocketPlace, Refusal> {
        let reserve = if is_nearby { PLACES_RESERVED } else { PLACES_RESERVED - PLACES_RESERVED_NEARBY };
        let most = self.connections_max.saturating_add(reserve);
        let before = one_more(&self.sockets, most).ok_or(Refusal::Full)?;
        Ok(SocketPlace { places: self.clone(), is_reserved: before >= self.connections_max })
    }

    /// A place for a socket that becomes a WebSocket.
    pub(in crate::net) fn client(self: &Arc<Self>) -> Result<ClientPlace, Refusal> {
        one_more(&self.clients, self.connections_max).ok_or(Refusal::FullOfClients)?;
        debug_assert!(self.clients.load(Ordering::Relaxed) <= self.connections_max, "a place too many");
        Ok(ClientPlace { places: self.clone() })
    }
}

/// Counts one more unless there are `most`; the number before.
fn one_more(count: &AtomicUsize, most: usize) -> Option<usize> {
    let below = |count: usize| (count < most).then(|| count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()
}

fn one_less(count: &AtomicUsize) {
    let before = count.fetch_sub(1, Ordering::Relaxed);
    debug_assert!(before > 0, "a place is given back once");
}

/// The place of a socket; free again when it is dropped.
#[derive(Debug)]
pub(in crate::net) struct SocketPlace {
    places: Arc<Places>,
    is_reserved: bool,
}

impl SocketPlace {
    /// True for a place of the reserve: its socket should serve one request and go.
    pub(in crate::net) fn is_reserved(&self) -> bool {
        self.is_reserved
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        one_less(&self.places.sockets);
    }
}

/// The place of a WebSocket, besides that of its socket; free again when it is dropped.
#[derive(Debug)]
pub(in crate::net) struct ClientPlace {
    places: Arc<Places>,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        one_less(&self.places.clients);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn sockets(places: &Arc<Places>, is_nearby: bool) -> Vec<SocketPlace> {
        std::iter::from_fn(|| places.socket(is_nearby).ok()).collect()
    }

    #[test]
    fn clients_leave_the_reserve_to_http() {
        let places = Places::new(100);
        let mut clients: Vec<_> =
            (0..100).map(|_| (places.socket(false).unwrap(), places.client().unwrap())).collect();
        assert!(clients.iter().all(|(socket, _)| !socket.is_reserved()));
        let request = places.socket(false).unwrap();
        assert!(request.is_reserved());
        assert_eq!(places.client().unwrap_err(), Refusal::FullOfClients);
        clients.pop();
        assert!(places.client().is_ok(), "a client that leaves makes place for another");
        assert!(places.client().is_ok());
    }

    #[test]
    fn half_of_the_reserve_is_for_peers_nearby() {
        let places = Places::new(10);
        let from_far = sockets(&places, false);
        assert_eq!(from_far.len(), 10 + PLACES_RESERVED - PLACES_RESERVED_NEARBY);
        assert_eq!(places.socket(false).unwrap_err(), Refusal::Full);
        let nearby = sockets(&places, true);
        assert_eq!(nearby.len(), PLACES_RESERVED_NEARBY);
        assert_eq!(places.socket(true).unwrap_err(), Refusal::Full);
        drop((from_far, nearby));
        assert!(!places.socket(false).unwrap().is_reserved());
    }

    #[test]
    fn threads_that_race_for_the_last_place_get_one() {
        let places = Places::new(3);
        let won: usize = thread::scope(|scope| {
            let racing: Vec<_> = (0..8).map(|_| scope.spawn(|| places.client().ok())).collect();
            let places: Vec<_> = racing.into_iter().map(|thread| thread.join().unwrap()).collect();
            places.iter().flatten().count()
        });
        assert_eq!(won, 3);
        assert_eq!(places.clients.load(Ordering::Relaxed), 0);
    }
}
