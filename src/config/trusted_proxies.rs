//! The value of `client.trusted_proxies`: networks of addresses, and the two words for common ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The proxies whose word about a client's address is believed. IPv4 addresses that are written as
/// IPv6 (`::ffff:192.0.2.1`) are the same as IPv4 ones everywhere here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Proxies>);

/// One entry of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proxies {
    /// `loopback`
    Loopback,
    /// `private`
    Private,
    /// An address or a block of them.
    Network(Network),
}

/// All addresses that share the first `prefix` bits of `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u8,
}

const LOOPBACK: [Network; 2] = [
    Network { first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 },
    Network { first: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
];

/// RFC 1918, RFC 3927, RFC 4193 and the link-local addresses of RFC 4291. Not 100.64.0.0/10, which
/// the customers of a mobile network have.
const PRIVATE: [Network; 6] = [
    Network { first: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), prefix: 8 },
    Network { first: IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), prefix: 12 },
    Network { first: IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), prefix: 16 },
    Network { first: IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), prefix: 16 },
    Network { first: IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), prefix: 7 },
    Network { first: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 },
];

impl TrustedProxies {
    /// True when no proxy is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True for the address of a trusted proxy.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|proxies| proxies.contains(address))
    }

    /// Every entry as it is written in the configuration.
    pub(super) fn entries(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }

    /// Reads the entries of a list.
    ///
    /// # Errors
    /// One sentence part for each wrong entry: the entry, and what to write instead.
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Self, Vec<String>> {
        let mut proxies = Vec::new();
        let mut flaws = Vec::new();
        for entry in entries {
            match entry.parse() {
                Ok(read) => proxies.push(read),
                Err(flaw) => flaws.push(format!("{entry:?} {flaw}")),
            }
        }
        if flaws.is_empty() { Ok(Self(proxies)) } else { Err(flaws) }
    }
}

/// True for addresses that are used within one network only, loopback left out.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    PRIVATE.iter().any(|network| network.contains(address))
}

impl Proxies {
    fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Loopback => LOOPBACK.iter().any(|network| network.contains(address)),
            Self::Private => is_private(address),
            Self::Network(network) => network.contains(address),
        }
    }
}

impl FromStr for Proxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "loopback" => Ok(Self::Loopback),
            "private" => Ok(Self::Private),
            _ => text.parse().map(Self::Network),
        }
    }
}

impl fmt::Display for Proxies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => out.write_str("loopback"),
            Self::Private => out.write_str("private"),
            Self::Network(network) => network.fmt(out),
        }
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let equal_bits = match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(other)) => (first.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(first), IpAddr::V6(other)) => (first.to_bits() ^ other.to_bits()).leading_zeros(),
            _ => return false,
        };
        equal_bits >= u32::from(self.prefix)
    }

    /// The first address of the block in which `address` is.
    fn first_of(address: IpAddr, prefix: u8) -> IpAddr {
        let shift = u32::from(width(address) - prefix);
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }
}

/// Bits of an address of this family.
fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Network {
    type Err = String;

    /// The error completes a sentence that begins with the entry.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(|_| "is no IP address".to_owned())?;
        let address = written.to_canonical();
        let width = width(address);
        let prefix = match prefix {
            None => width,
            Some(_) if written != address => return Err(format!("is IPv4: write it like {address}/{width}")),
            Some(prefix) => number(prefix)
                .filter(|bits| *bits <= width)
                .ok_or_else(|| format!("has no prefix length between 1 and {width}"))?,
        };
        if prefix == 0 {
            return Err("would let every client write its own address: name the proxies".to_owned());
        }
        let first = Self::first_of(address, prefix);
        if first != address {
            return Err(format!("has bits behind its prefix: write {first}/{prefix}"));
        }
        Ok(Self { first, prefix })
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == width(self.first) {
            true => self.first.fmt(out),
            false => write!(out, "{}/{}", self.first, self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(entries: &[&str]) -> TrustedProxies {
        TrustedProxies::of(entries.iter().copied()).unwrap()
    }

    fn flaw(entry: &str) -> String {
        TrustedProxies::of([entry].into_iter()).unwrap_err().remove(0)
    }

    fn contains(entry: &str, address: &str) -> bool {
        proxies(&[entry]).contains(address.parse().unwrap())
    }

    #[test]
    fn blocks_hold_their_addresses_and_no_others() {
        for (entry, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("loopback", "127.9.9.9", "128.0.0.1"),
            ("loopback", "::1", "::2"),
            ("private", "10.255.255.255", "11.0.0.0"),
            ("private", "172.31.0.1", "172.32.0.1"),
            ("private", "192.168.0.1", "192.169.0.1"),
            ("private", "169.254.1.1", "127.0.0.1"),
            ("private", "fd12::1", "2001:db8::1"),
            ("private", "fe80::1", "100.64.0.1"),
        ] {
            assert!(contains(entry, inside), "{inside} is in {entry}");
            assert!(!contains(entry, outside), "{outside} is not in {entry}");
        }
        assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.1"));
        assert!(contains("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(contains("loopback", "::ffff:127.0.0.1"));
        assert!(!contains("8000::/1", "::ffff:192.0.2.1"));
        assert!(!contains("::/1", "192.0.2.1"), "a block of IPv6 holds no IPv4");
    }

    #[test]
    fn a_wrong_entry_is_told_what_to_write() {
        for (entry, expected) in [
            ("proxy.example.com", "is no IP address"),
            ("localhost", "is no IP address"),
            ("10.0.0.1:80", "is no IP address"),
            ("", "is no IP address"),
            ("10.1.2.3/8", "has bits behind its prefix: write 10.0.0.0/8"),
            ("2001:db8::1/32", "has bits behind its prefix: write 2001:db8::/32"),
            ("10.0.0.0/33", "has no prefix length between 1 and 32"),
            ("10.0.0.0/+8", "has no prefix length between 1 and 32"),
            ("10.0.0.0/", "has no prefix length between 1 and 32"),
            ("::/129", "has no prefix length between 1 and 128"),
            ("0.0.0.0/0", "would let every client write its own address: name the proxies"),
            ("::/0", "would let every client write its own address: name the proxies"),
            ("::ffff:10.0.0.0/104", "is IPv4: write it like 10.0.0.0/32"),
        ] {
            assert_eq!(flaw(entry), format!("{entry:?} {expected}"));
        }
        assert_eq!(TrustedProxies::of(["a", "10.0.0.1", "b"].into_iter()).unwrap_err().len(), 2);
    }

    #[test]
    fn entries_read_back_as_they_are_shown() {
        let written = ["loopback", "private", "192.0.2.7", "192.0.2.0/24", "2001:db8::/32", "::1"];
        let shown: Vec<String> = proxies(&written).entries().collect();
        assert_eq!(shown, written);
    }
}
