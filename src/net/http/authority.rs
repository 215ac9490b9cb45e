//! A host and its port, as `Host`, an absolute target and an origin write them.

use std::net::{IpAddr, Ipv6Addr};

/// A host, never empty, and perhaps a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// In lower case; an IPv6 address in its shortest form and in brackets.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Authority {
    /// Reads `host` or `host:port`; `None` for everything else, a name or password before the host included.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']')?;
                (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                if host.is_empty() || !host.bytes().all(is_name_byte) {
                    return None;
                }
                (host.to_ascii_lowercase(), port)
            }
        };
        // A colon without a port is legal, and means nothing.
        let port = match port {
            "" | ":" => None,
            port => Some(number(port.strip_prefix(':')?)?),
        };
        Some(Self { host, port })
    }

    /// True for `localhost` and the addresses of this machine's loopback.
    pub(super) fn is_loopback(&self) -> bool {
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
        self.host == "localhost" || address.parse().is_ok_and(is_loopback)
    }
}

/// A port, which is digits only.
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A byte of a name (RFC 3986 §3.2.2), but for the comma: it is in no name of DNS, and two hosts are not one.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<u16>)> {
        Authority::parse(text).map(|Authority { host, port }| (host, port))
    }

    #[test]
    fn hosts_with_and_without_a_port() {
        for (text, host, port) in [
            ("Chat.example.com", "chat.example.com", None),
            ("chat.example.com:8443", "chat.example.com", Some(8443)),
            ("chat_1:", "chat_1", None),
            ("127.0.0.1:0080", "127.0.0.1", Some(80)),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
            ("[::1]", "[::1]", None),
        ] {
            assert_eq!(parsed(text), Some((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_no_host() {
        for text in [
            "",
            ":80",
            "a b",
            "a,b",
            "ann@chat",
            "ann:pw@chat",
            "chat:80:80",
            "chat:+80",
            "chat:8o",
            "chat:65536",
            "chat/x",
            "chat?x",
            "chat\\x",
            "[::1",
            "::1",
            "[]",
            "[chat]",
            "[::1]80",
            "[fe80::1%25eth0]",
            "ch\u{e4}t",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_by_name_and_address() {
        let is_loopback = |text| Authority::parse(text).unwrap().is_loopback();
        for text in
            ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "[::ffff:127.0.0.1]"]
        {
            assert!(is_loopback(text), "{text}");
        }
        for text in [
            "evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "[::]",
            "10.0.0.1",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
