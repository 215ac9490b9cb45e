//! One connection's standing with the server, from its acceptance to its end: its places, its address, and
//! the bytes it holds while it is a stranger. Counts and logs what is refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::address::{AddressRules, ClientAddress};
use super::address_table::{AddressLimits, AddressPermit, AddressTable};
use super::places::{ClientPlace, Places, SocketPlace};
use super::refusal::Refusal;
use super::refusal_log::RefusalLog;
use super::strangers_budget::{StrangerBytes, StrangersBudget};
use crate::config;
use crate::metrics::Metrics;

/// Everything that decides about peers, once a server.
#[derive(Debug)]
pub(in crate::net) struct Peers {
    rules: AddressRules,
    proxy_protocol: bool,
    connections_max: usize,
    places: Arc<Places>,
    addresses: Arc<AddressTable>,
    budget: Arc<StrangersBudget>,
    metrics: Arc<Metrics>,
    log: RefusalLog,
}

impl Peers {
    /// Decides by this section of the configuration, with places for so many clients.
    pub(in crate::net) fn new(
        client: &config::Client,
        connections_max: usize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: AddressRules::new(client.trusted_proxies.clone()),
            proxy_protocol: client.proxy_protocol,
            connections_max,
            places: Places::new(connections_max),
            addresses: AddressTable::new(AddressLimits::new(client)),
            budget: StrangersBudget::new(client.strangers_bytes_max, metrics.stranger_bytes.clone()),
            metrics,
            log: RefusalLog::default(),
        })
    }

    /// Lets a socket in that was just accepted.
    pub(in crate::net) fn accept(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Peer, Refusal> {
        let address = self.rules.of_socket(peer);
        let place = self.noted(address, now, self.places.socket(self.rules.is_nearby(peer)))?;
        let permit = self.noted(address, now, self.addresses.admit(address, now))?;
        let expects_proxy_header = self.proxy_protocol && self.rules.is_trusted(peer);
        Ok(Peer {
            address,
            expects_proxy_header,
            bytes: None,
            permit,
            client_place: None,
            place,
            peers: self.clone(),
        })
    }

    /// Counts and logs a refusal on its way.
    fn noted<T>(
        &self,
        client: ClientAddress,
        now: Instant,
        result: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.metrics.sockets_refused_total.with_label_values(&[refusal.as_str()]).inc();
            self.log.refused(*refusal, client.ip(), self.connections_max, now);
        }
        result
    }

    /// Tells when a limit is no longer reached; the moment at which to look again.
    pub(in crate::net) fn check_logs(&self, now: Instant) -> Option<Instant> {
        self.log.check(now)
    }
}

/// The standing of one connection; everything is given back when it is dropped.
#[derive(Debug)]
pub(in crate::net) struct Peer {
    address: ClientAddress,
    expects_proxy_header: bool,
    /// `None` while it holds nothing, and for ever once it has connected.
    bytes: Option<StrangerBytes>,
    permit: AddressPermit,
    client_place: Option<ClientPlace>,
    place: SocketPlace,
    peers: Arc<Peers>,
}

impl Peer {
    /// The address it is counted by.
    pub(in crate::net) fn address(&self) -> ClientAddress {
        self.address
    }

    /// True when its first bytes must be a header of the PROXY protocol.
    pub(in crate::net) fn expects_proxy_header(&self) -> bool {
        self.expects_proxy_header
    }

    /// True when it has one of the last places: one request, and it should go.
    pub(in crate::net) fn is_in_reserve(&self) -> bool {
        self.place.is_reserved()
    }

    /// True for a proxy that is believed when it says whom it serves, and how.
    pub(in crate::net) fn is_trusted_proxy(&self) -> bool {
        self.peers.rules.is_trusted(self.address.ip())
    }

    /// Takes the client that the header of the PROXY protocol names, if it names one.
    pub(in crate::net) fn proxy_header(
        &mut self,
        source: Option<SocketAddr>,
        now: Instant,
    ) -> Result<(), Refusal> {
        debug_assert!(self.expects_proxy_header, "a header of nobody who is trusted");
        self.expects_proxy_header = false;
        match source {
            Some(source) => self.set_address(self.peers.rules.of_proxy_header(source.ip()), now),
            None => Ok(()),
        }
    }

    /// Counts a header of the PROXY protocol that cannot be read; the connection is to be closed.
    pub(in crate::net) fn bad_proxy_header(&self) {
        self.peers.metrics.bad_input_total.with_label_values(&["proxy_header"]).inc();
    }

    /// The client of one request, by the lines of its `X-Forwarded-For` and `Forwarded`. Several clients
    /// may share the connections of a proxy, so this changes nothing.
    pub(in crate::net) fn client_of_request<'a>(
        &self,
        x_forwarded_for: impl Iterator<Item = &'a str>,
        forwarded: impl Iterator<Item = &'a str>,
    ) -> ClientAddress {
        let client = self.peers.rules.of_request(self.address, x_forwarded_for, forwarded);
        if client.is_unreadable() {
            self.peers.metrics.bad_input_total.with_label_values(&["forwarded"]).inc();
        }
        client
    }

    /// Lets it become a WebSocket of this client, to whom it then belongs.
    pub(in crate::net) fn upgrade(&mut self, client: ClientAddress, now: Instant) -> Result<(), Refusal> {
        debug_assert!(self.client_place.is_none(), "a socket is upgraded once");
        if client == self.address {
            self.peers.noted(client, now, self.permit.stranger_again())?;
        } else {
            self.set_address(client, now)?;
        }
        self.client_place = Some(self.peers.noted(client, now, self.peers.places.client())?);
        Ok(())
    }

    /// Holds so many bytes as a stranger from now on. An error says that there are not so many.
    pub(in crate::net) fn hold(&mut self, bytes: usize, now: Instant) -> Result<(), Refusal> {
        let is_held = match &mut self.bytes {
            Some(held) => held.resize(bytes),
            None => {
                self.bytes = self.peers.budget.reserve(bytes);
                self.bytes.is_some()
            }
        };
        self.peers.noted(self.address, now, is_held.then_some(()).ok_or(Refusal::StrangerBytes))
    }

    /// A request of it was answered, or it has connected: it is no stranger any more, and what it holds is
    /// not counted.
    pub(in crate::net) fn known(&mut self) {
        self.bytes = None;
        self.permit.known();
    }

    /// Holds nothing any more, because the connection only ends.
    pub(in crate::net) fn release(&mut self) {
        self.bytes = None;
    }

    fn set_address(&mut self, address: ClientAddress, now: Instant) -> Result<(), Refusal> {
        self.permit = self.peers.noted(address, now, self.peers.addresses.admit(address, now))?;
        self.address = address;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peers(settings: &str, connections_max: usize) -> Arc<Peers> {
        let config = config::Config::from_toml("r.toml", &format!("[client]\ninsecure = true\n{settings}"))
            .unwrap()
            .config;
        Peers::new(&config.client, connections_max, Arc::new(Metrics::new()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn refused(peers: &Peers, refusal: Refusal) -> u64 {
        peers.metrics.sockets_refused_total.with_label_values(&[refusal.as_str()]).get()
    }

    fn bad_input(peers: &Peers, kind: &str) -> u64 {
        peers.metrics.bad_input_total.with_label_values(&[kind]).get()
    }

    /// Upgrades as the client that this line of `X-Forwarded-For` names.
    fn upgrade(peer: &mut Peer, line: &str, now: Instant) -> Result<(), Refusal> {
        let client = peer.client_of_request([line].into_iter(), std::iter::empty());
        peer.upgrade(client, now)
    }

    #[test]
    fn a_full_server_still_takes_requests() {
        let (peers, now) = (peers("address_sockets_max = 0", 2), Instant::now());
        let mut clients: Vec<Peer> = (0..2).map(|_| peers.accept(ip("203.0.113.9"), now).unwrap()).collect();
        for client in &mut clients {
            client.upgrade(client.address(), now).unwrap();
        }
        let mut late = peers.accept(ip("203.0.113.9"), now).unwrap();
        assert!(late.is_in_reserve());
        assert_eq!(late.upgrade(late.address(), now), Err(Refusal::FullOfClients));
        assert_eq!(refused(&peers, Refusal::FullOfClients), 1);
        assert!(peers.check_logs(now).is_some(), "a line at the limit");
        clients.pop();
        assert_eq!(late.upgrade(late.address(), now), Ok(()));
        assert!(peers.check_logs(now + Duration::from_secs(60)).is_none(), "and one when it is over");
    }

    #[test]
    fn strangers_from_elsewhere_leave_places_to_the_operator() {
        let (peers, now) = (peers("address_sockets_max = 0", 10), Instant::now());
        let held: Vec<Peer> = std::iter::from_fn(|| peers.accept(ip("203.0.113.9"), now).ok()).collect();
        assert_eq!(refused(&peers, Refusal::Full), 1);
        assert!(peers.accept(ip("127.0.0.1"), now).unwrap().is_in_reserve());
        assert!(!held.is_empty());
    }

    #[test]
    fn clients_behind_a_proxy_are_told_apart() {
        let settings = "trusted_proxies = ['10.0.0.5']\naddress_sockets_max = 2";
        let (peers, now) = (peers(settings, 100), Instant::now());
        let mut sockets: Vec<Peer> = (0..10).map(|_| peers.accept(ip("10.0.0.5"), now).unwrap()).collect();
        let clients = ["203.0.113.9", "203.0.113.9", "203.0.113.9", "203.0.113.10", "x", "y", "z"];
        let outcomes: Vec<bool> = sockets
            .iter_mut()
            .zip(clients)
            .map(|(socket, client)| upgrade(socket, client, now).is_ok())
            .collect();
        assert_eq!(outcomes, [true, true, false, true, true, true, false]);
        assert_eq!(refused(&peers, Refusal::AddressSockets), 2);
        assert_eq!(bad_input(&peers, "forwarded"), 3);
        drop(sockets);
        let mut again = peers.accept(ip("10.0.0.5"), now).unwrap();
        assert_eq!(upgrade(&mut again, "203.0.113.9", now), Ok(()));
        assert_eq!(again.address().ip(), ip("203.0.113.9"));
    }

    #[test]
    fn the_proxy_protocol_names_the_client() {
        let settings = "trusted_proxies = ['10.0.0.5']\nproxy_protocol = true\naddress_sockets_max = 1";
        let (peers, now) = (peers(settings, 100), Instant::now());
        assert!(!peers.accept(ip("203.0.113.1"), now).unwrap().expects_proxy_header());
        let accept = || peers.accept(ip("::ffff:10.0.0.5"), now).unwrap();
        let (mut one, mut two, mut own) = (accept(), accept(), accept());
        assert!(one.expects_proxy_header());
        let source = Some("203.0.113.9:4711".parse().unwrap());
        assert_eq!(one.proxy_header(source, now), Ok(()));
        assert_eq!((one.address().ip(), one.expects_proxy_header()), (ip("203.0.113.9"), false));
        assert_eq!(two.proxy_header(source, now), Err(Refusal::AddressSockets));
        assert_eq!(own.proxy_header(None, now), Ok(()));
        assert_eq!(own.address().ip(), ip("10.0.0.5"));
        assert_eq!(one.upgrade(one.address(), now), Ok(()), "its own socket is counted already");
        own.bad_proxy_header();
        assert_eq!(bad_input(&peers, "proxy_header"), 1);
    }

    #[test]
    fn a_stranger_is_one_until_it_is_known() {
        let settings = "address_strangers_max = 1";
        let (peers, now) = (peers(settings, 100), Instant::now());
        let accept = || peers.accept(ip("203.0.113.9"), now);
        let mut one = accept().unwrap();
        assert_eq!(accept().unwrap_err(), Refusal::AddressStrangers);
        one.known();
        let mut two = accept().unwrap();
        assert_eq!(one.upgrade(one.address(), now), Err(Refusal::AddressStrangers), "it is one again");
        two.known();
        assert_eq!(one.upgrade(one.address(), now), Ok(()));
        assert_eq!(accept().unwrap_err(), Refusal::AddressStrangers);
        one.known();
        drop((one, two));
        assert!(accept().is_ok());
    }

    #[test]
    fn bytes_are_counted_until_it_connects() {
        let (peers, now) = (peers("strangers_bytes_max = '1MiB'", 100), Instant::now());
        let held = || peers.metrics.stranger_bytes.get();
        let mut one = peers.accept(ip("203.0.113.9"), now).unwrap();
        let mut two = peers.accept(ip("203.0.113.9"), now).unwrap();
        assert_eq!((one.hold(700 << 10, now), two.hold(2 << 10, now)), (Ok(()), Ok(())));
        assert_eq!(two.hold(100 << 10, now), Err(Refusal::StrangerBytes));
        assert_eq!((held(), refused(&peers, Refusal::StrangerBytes)), (702 << 10, 1));
        one.known();
        assert_eq!((held(), two.hold(100 << 10, now)), (2 << 10, Ok(())));
        drop(two);
        assert_eq!(held(), 0);
    }
}
