//! The address that a connection is counted by: that of its socket, or the one that trusted proxies name.
//!
//! Of a chain of proxies the last entry that is not a trusted proxy is the client; what is written before
//! it comes from the client itself and is worth nothing. `X-Forwarded-For` wins over `Forwarded`: nearly
//! every proxy writes the former, and hands on the latter as the client sent it. A proxy that writes
//! `Forwarded` alone must remove the other, or clients could choose their address.

use std::net::{IpAddr, Ipv6Addr};

use super::forwarded::{Entry, forwarded, x_forwarded_for};
use crate::config::{TrustedProxies, is_private};

/// Decides by which address a connection is counted.
#[derive(Debug)]
pub(in crate::net) struct AddressRules {
    proxies: TrustedProxies,
}

/// An address with its standing. IPv4 is always in its own form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct ClientAddress {
    address: IpAddr,
    standing: Standing,
}

/// What an address stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// One client, or those behind one NAT.
    Client,
    /// A proxy, or somebody who may be one: any number of clients.
    Proxy,
    /// A trusted proxy that named nobody who can be read.
    Unreadable,
}

impl AddressRules {
    pub(in crate::net) fn new(proxies: TrustedProxies) -> Self {
        Self { proxies }
    }

    /// True when what this peer says about addresses is believed.
    pub(in crate::net) fn is_trusted(&self, peer: IpAddr) -> bool {
        self.proxies.contains(peer)
    }

    /// True for a peer on this machine or in its private network, unless it is a proxy: then anybody may be
    /// behind it.
    pub(in crate::net) fn is_nearby(&self, peer: IpAddr) -> bool {
        let address = peer.to_canonical();
        (address.is_loopback() || is_private(address)) && !self.is_trusted(address)
    }

    /// The client by the peer of its socket. Loopback is never counted. Nor is a private network while no
    /// proxy is named: then a peer there may be one, and its clients would be taken for a single one.
    pub(in crate::net) fn of_socket(&self, peer: IpAddr) -> ClientAddress {
        let address = peer.to_canonical();
        let may_be_proxy = address.is_loopback() || (self.proxies.is_empty() && is_private(address));
        match self.is_trusted(address) || may_be_proxy {
            true => ClientAddress { address, standing: Standing::Proxy },
            false => ClientAddress { address, standing: Standing::Client },
        }
    }

    /// The client by the header of the PROXY protocol that a trusted proxy sent.
    pub(in crate::net) fn of_proxy_header(&self, source: IpAddr) -> ClientAddress {
        self.named(source.to_canonical())
    }

    /// The client by the headers of a request, each given line by line. `peer` is the address of the socket
    /// or of the PROXY header; the headers of a peer that is not trusted are not looked at.
    pub(in crate::net) fn of_request<'a>(
        &self,
        peer: ClientAddress,
        x_forwarded_for_lines: impl Iterator<Item = &'a str>,
        forwarded_lines: impl Iterator<Item = &'a str>,
    ) -> ClientAddress {
        if !self.is_trusted(peer.address) {
            return peer;
        }
        self.last_client(x_forwarded_for_lines.flat_map(x_forwarded_for))
            .or_else(|| self.last_client(forwarded_lines.flat_map(forwarded)))
            .map_or(peer, |entry| match entry {
                Entry::Address(address) => self.named(address),
                Entry::Hidden => ClientAddress { standing: Standing::Proxy, ..peer },
                Entry::Malformed => ClientAddress { standing: Standing::Unreadable, ..peer },
            })
    }

    /// The last entry that is no trusted proxy; the first one when all are; `None` when there are none.
    fn last_client(&self, entries: impl Iterator<Item = Entry>) -> Option<Entry> {
        entries.reduce(|client, next| match next {
            Entry::Address(address) if self.is_trusted(address) => client,
            _ => next,
        })
    }

    fn named(&self, address: IpAddr) -> ClientAddress {
        let standing = if self.is_trusted(address) { Standing::Proxy } else { Standing::Client };
        ClientAddress { address, standing }
    }
}

impl ClientAddress {
    /// The address itself.
    pub(in crate::net) fn ip(self) -> IpAddr {
        self.address
    }

    /// True when a trusted proxy named nobody who can be read; to be counted as bad input. All such
    /// connections of the proxy are counted together, so that garbage is no way round the limits.
    pub(in crate::net) fn is_unreadable(self) -> bool {
        self.standing == Standing::Unreadable
    }

    /// True when the limits of one address hold for it.
    pub(in crate::net) fn is_counted(self) -> bool {
        self.standing != Standing::Proxy
    }

    /// The address under which sockets are counted. Of IPv6 the first 64 bits: one subscriber has at least so
    /// many addresses.
    pub(in crate::net) fn key(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::mutation;

    const LINES: &[&str] = &[];

    fn rules(proxies: &str) -> AddressRules {
        let text = format!("client.trusted_proxies = {proxies}");
        AddressRules::new(Config::from_toml("r.toml", &text).unwrap().config.client.trusted_proxies)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(address: &str) -> ClientAddress {
        ClientAddress { address: ip(address), standing: Standing::Client }
    }

    fn proxy(address: &str) -> ClientAddress {
        ClientAddress { address: ip(address), standing: Standing::Proxy }
    }

    fn unreadable(address: &str) -> ClientAddress {
        ClientAddress { address: ip(address), standing: Standing::Unreadable }
    }

    /// The client of a request of `peer` with these lines.
    fn of(rules: &AddressRules, peer: &str, x_forwarded_for: &[&str], forwarded: &[&str]) -> ClientAddress {
        let peer = rules.of_socket(ip(peer));
        rules.of_request(peer, x_forwarded_for.iter().copied(), forwarded.iter().copied())
    }

    #[test]
    fn a_socket_is_counted_unless_it_may_be_a_proxy() {
        let none = rules("[]");
        assert_eq!(none.of_socket(ip("203.0.113.9")), client("203.0.113.9"));
        assert_eq!(none.of_socket(ip("::ffff:203.0.113.9")), client("203.0.113.9"));
        for near in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "192.168.0.7", "fd00::1"] {
            assert!(!none.of_socket(ip(near)).is_counted(), "{near}");
        }
        let named = rules("['10.0.0.5']");
        assert_eq!(named.of_socket(ip("10.0.0.5")), proxy("10.0.0.5"));
        assert_eq!(named.of_socket(ip("::ffff:10.0.0.5")), proxy("10.0.0.5"));
        assert_eq!(named.of_socket(ip("10.0.0.6")), client("10.0.0.6"), "the network is described now");
        assert!(!named.of_socket(ip("127.0.0.1")).is_counted());
    }

    #[test]
    fn nearby_is_who_is_not_a_proxy() {
        let rules = rules("['10.0.0.5']");
        for (peer, expected) in
            [("127.0.0.1", true), ("::ffff:10.0.0.6", true), ("10.0.0.5", false), ("203.0.113.9", false)]
        {
            assert_eq!(rules.is_nearby(ip(peer)), expected, "{peer}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let rules = rules("['10.0.0.5']");
        for peer in ["203.0.113.9", "10.0.0.6"] {
            assert_eq!(of(&rules, peer, &["192.0.2.1"], &["for=192.0.2.1"]), client(peer));
        }
        assert_eq!(of(&rules, "127.0.0.1", &["192.0.2.1"], LINES), proxy("127.0.0.1"));
        assert_eq!(of(&rules, "10.0.0.5", &["192.0.2.1"], LINES), client("192.0.2.1"));
        assert_eq!(of(&rules, "10.0.0.5", LINES, LINES), proxy("10.0.0.5"), "it asks for itself");
        assert_eq!(of(&rules, "10.0.0.5", &[" "], &[""]), proxy("10.0.0.5"));
    }

    #[test]
    fn the_last_entry_that_is_no_proxy_is_the_client() {
        let rules = rules("['10.0.0.0/8', 'loopback']");
        for (lines, expected) in [
            (["192.0.2.66, 203.0.113.9", "10.0.0.7"], client("203.0.113.9")),
            (["192.0.2.66", "203.0.113.9"], client("203.0.113.9")),
            (["127.0.0.1", "203.0.113.9, 10.0.0.7, 10.0.0.8"], client("203.0.113.9")),
            (["", "10.0.0.9, 10.0.0.7"], proxy("10.0.0.9")),
            (["garbage", "203.0.113.9"], client("203.0.113.9")),
            (["203.0.113.9", "garbage, 10.0.0.7"], unreadable("10.0.0.5")),
            (["203.0.113.9", "unknown"], proxy("10.0.0.5")),
            (["", "[2001:db8::1]:4711"], client("2001:db8::1")),
            (["", "::ffff:203.0.113.9"], client("203.0.113.9")),
        ] {
            assert_eq!(of(&rules, "10.0.0.5", &lines, LINES), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_claim_of_loopback_is_counted() {
        let rules = rules("['10.0.0.5']");
        assert_eq!(of(&rules, "10.0.0.5", &["127.0.0.1"], LINES), client("127.0.0.1"));
        assert_eq!(rules.of_proxy_header(ip("::ffff:127.0.0.1")), client("127.0.0.1"));
    }

    #[test]
    fn forwarded_is_read_where_the_other_is_missing() {
        let rules = rules("['10.0.0.0/8']");
        let lines = &["for=192.0.2.66, for=203.0.113.9;proto=https", "for=10.0.0.7"];
        assert_eq!(of(&rules, "10.0.0.5", LINES, lines), client("203.0.113.9"));
        assert_eq!(of(&rules, "10.0.0.5", &["198.51.100.1"], lines), client("198.51.100.1"));
        assert_eq!(of(&rules, "10.0.0.5", &["garbage"], lines), unreadable("10.0.0.5"));
        let broken = &[r#"for=", for=203.0.113.9"#];
        assert_eq!(of(&rules, "10.0.0.5", LINES, broken), unreadable("10.0.0.5"));
        assert_eq!(of(&rules, "10.0.0.5", LINES, &["for=_hidden"]), proxy("10.0.0.5"));
        assert_eq!(of(&rules, "10.0.0.5", LINES, &[broken[0], "for=203.0.113.9"]), client("203.0.113.9"));
    }

    #[test]
    fn a_proxy_in_front_of_a_proxy_is_seen_through() {
        let rules = rules("['10.0.0.5', '192.0.2.0/24']");
        let in_front = rules.of_proxy_header(ip("192.0.2.7"));
        assert_eq!(in_front, proxy("192.0.2.7"));
        let lines = ["203.0.113.9"];
        assert_eq!(rules.of_request(in_front, lines.into_iter(), std::iter::empty()), client("203.0.113.9"));
        let client = rules.of_proxy_header(ip("203.0.113.10"));
        assert_eq!(rules.of_request(client, lines.into_iter(), std::iter::empty()), client);
    }

    #[test]
    fn ipv6_is_counted_by_its_network() {
        assert_eq!(client("2001:db8:1:2:3:4:5:6").key(), ip("2001:db8:1:2::"));
        assert_eq!(client("2001:db8:1:2:ffff::").key(), client("2001:db8:1:2::1").key());
        assert_ne!(client("2001:db8:1:3::").key(), client("2001:db8:1:2::").key());
        assert_eq!(client("203.0.113.9").key(), ip("203.0.113.9"));
    }

    /// Whatever a client writes before what the proxy adds, it is counted by what the proxy adds, or
    /// together with all the others that cannot be read.
    #[test]
    fn nothing_a_client_writes_changes_who_it_is() {
        let rules = rules("['10.0.0.5']");
        let examples = ["192.0.2.1, 10.0.0.5", "for=\"[2001:db8::1]\", for=unknown", "_x, ::1"];
        let examples = examples.map(|line| line.as_bytes().to_vec());
        mutation::each(&examples, 20_000, |bytes| {
            let own = String::from_utf8_lossy(bytes);
            let added = format!("{own}, 203.0.113.9");
            assert_eq!(of(&rules, "10.0.0.5", &[&added], &[&own]), client("203.0.113.9"));
            let added = format!("{own}, for=203.0.113.9");
            let found = of(&rules, "10.0.0.5", LINES, &[&added]);
            assert!([client("203.0.113.9"), unreadable("10.0.0.5")].contains(&found), "{added}: {found:?}");
        });
    }
}
