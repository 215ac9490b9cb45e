//! The header of the PROXY protocol, with which a proxy that forwards bytes begins a connection to tell
//! whose it is.
//!
//! Version 2 is binary, version 1 a line of text. Both are read: nginx and older load balancers write
//! version 1 only, and no byte of the one can begin the other or a request. Additions to version 2 (TLVs)
//! are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header in bytes. The addresses take 232 at most; additions such as the name that a TLS client
/// asked for or its certificate take the rest.
const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Longest line of version 1, its end included; the specification's own bound.
const LINE_BYTES_MAX: usize = 107;

const BINARY: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TEXT: &[u8; 6] = b"PROXY ";

/// Bytes of version 2 before the addresses.
const FIXED_BYTES: usize = 16;

/// The state of a header after the bytes that have come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum ProxyHeader {
    /// More bytes are needed.
    NeedMore,
    /// The header is whole.
    Whole {
        /// Its length in bytes; what follows is the client's.
        consumed: usize,
        /// The client; `None` when the proxy speaks for itself (a health check) or names no address.
        source: Option<SocketAddr>,
    },
    /// This is no such header; nothing that follows can be trusted.
    Bad,
}

impl ProxyHeader {
    /// Reads a header out of the first bytes of a connection. Call again with all of them when more came.
    pub(in crate::net) fn parse(bytes: &[u8]) -> Self {
        let read = match bytes {
            [b'P', ..] => text(bytes),
            _ => binary(bytes),
        };
        debug_assert!(read != Self::NeedMore || bytes.len() < PROXY_HEADER_BYTES_MAX, "it never ends");
        read
    }
}

/// True when the bytes are the signature or the beginning of it.
fn may_begin(bytes: &[u8], signature: &[u8]) -> bool {
    let length = bytes.len().min(signature.len());
    bytes[..length] == signature[..length]
}

fn binary(bytes: &[u8]) -> ProxyHeader {
    if !may_begin(bytes, BINARY) {
        return ProxyHeader::Bad;
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return ProxyHeader::NeedMore };
    let [.., version_and_command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > PROXY_HEADER_BYTES_MAX {
        return ProxyHeader::Bad;
    }
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return ProxyHeader::Bad,
    };
    let Some(body) = rest.get(..length) else { return ProxyHeader::NeedMore };
    let source = if is_local { Ok(None) } else { binary_source(family, body) };
    match source {
        Ok(source) => ProxyHeader::Whole { consumed: FIXED_BYTES + length, source },
        Err(Unreadable) => ProxyHeader::Bad,
    }
}

struct Unreadable;

/// The source among the addresses: first of two, the ports behind both.
fn binary_source(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, Unreadable> {
    match family {
        // Unspecified, and a Unix socket with its two paths of 108 bytes: there is no address to count by.
        0x00 => Ok(None),
        0x31 if body.len() >= 216 => Ok(None),
        0x11 => {
            let (address, port) = source_and_port::<4, 12>(body).ok_or(Unreadable)?;
            Ok(Some(source(IpAddr::V4(Ipv4Addr::from(address)), port)))
        }
        0x21 => {
            let (address, port) = source_and_port::<16, 36>(body).ok_or(Unreadable)?;
            Ok(Some(source(IpAddr::V6(Ipv6Addr::from(address)), port)))
        }
        // Datagrams do not come by a TCP socket, and the other values mean nothing.
        _ => Err(Unreadable),
    }
}

/// The source and its port, out of two addresses of `N` bytes and two ports, `ALL` bytes in all.
fn source_and_port<const N: usize, const ALL: usize>(body: &[u8]) -> Option<([u8; N], u16)> {
    let (source, rest) = body.first_chunk::<ALL>()?.split_first_chunk::<N>()?;
    let (_destination, ports) = rest.split_first_chunk::<N>()?;
    let (port, _) = ports.split_first_chunk()?;
    Some((*source, u16::from_be_bytes(*port)))
}

fn source(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn text(bytes: &[u8]) -> ProxyHeader {
    if !may_begin(bytes, TEXT) {
        return ProxyHeader::Bad;
    }
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        return if line.len() < LINE_BYTES_MAX { ProxyHeader::NeedMore } else { ProxyHeader::Bad };
    };
    let source = line[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    match source.and_then(text_source) {
        Some(source) => ProxyHeader::Whole { consumed: end + 1, source },
        None => ProxyHeader::Bad,
    }
}

/// The source in a line without its end; the outer `None` when the line is wrong.
fn text_source(line: &str) -> Option<Option<SocketAddr>> {
    let mut fields = line.split(' ').skip(1);
    let family = fields.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || {
        let field = fields.next()?;
        match family {
            "TCP4" => field.parse().map(IpAddr::V4).ok(),
            "TCP6" => field.parse().map(IpAddr::V6).ok(),
            _ => None,
        }
    };
    let (from, _to) = (address()?, address()?);
    let (port, _) = (port(fields.next()?)?, port(fields.next()?)?);
    fields.next().is_none().then(|| Some(source(from, port)))
}

/// A port in decimal digits, without sign and leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [BINARY.as_slice(), &[command, family], &length, body].concat()
    }

    const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 0x01, 0xbb];

    fn ipv6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [source.octets().as_slice(), &[0; 16], &[0x12, 0x34, 0x01, 0xbb]].concat()
    }

    fn whole(bytes: &[u8], source: &str) -> ProxyHeader {
        ProxyHeader::Whole { consumed: bytes.len(), source: Some(source.parse().unwrap()) }
    }

    #[test]
    fn version_2_names_the_source() {
        let header = v2(0x21, 0x11, IPV4);
        assert_eq!(ProxyHeader::parse(&header), whole(&header, "192.0.2.1:4660"));
        let header = v2(0x21, 0x21, &ipv6("2001:db8::1"));
        assert_eq!(ProxyHeader::parse(&header), whole(&header, "[2001:db8::1]:4660"));
        let mapped = v2(0x21, 0x21, &ipv6("::ffff:192.0.2.1"));
        assert_eq!(ProxyHeader::parse(&mapped), whole(&mapped, "192.0.2.1:4660"));
    }

    #[test]
    fn additions_are_skipped_and_what_follows_is_left() {
        let header = v2(0x21, 0x11, &[IPV4, b"\x02\x00\x04host", &[0xee; 300]].concat());
        let stream = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(ProxyHeader::parse(&stream), whole(&header, "192.0.2.1:4660"));
    }

    #[test]
    fn a_proxy_may_name_nobody() {
        for header in [
            v2(0x20, 0x00, &[]),
            v2(0x20, 0x11, IPV4),
            v2(0x20, 0xff, b"x"),
            v2(0x21, 0x00, &[]),
            v2(0x21, 0x00, b"anything"),
            v2(0x21, 0x31, &[b'/'; 216]),
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n".to_vec(),
        ] {
            let expected = ProxyHeader::Whole { consumed: header.len(), source: None };
            assert_eq!(ProxyHeader::parse(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn version_1_names_the_source() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\n";
        assert_eq!(ProxyHeader::parse(line), whole(line, "192.0.2.1:4660"));
        assert_eq!(ProxyHeader::parse(&[line.as_slice(), b"GET /"].concat()), whole(line, "192.0.2.1:4660"));
        let line = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
        assert_eq!(ProxyHeader::parse(line), whole(line, "[2001:db8::1]:0"));
        let line = b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n";
        assert_eq!(ProxyHeader::parse(line), whole(line, "192.0.2.1:1"));
    }

    #[test]
    fn every_part_of_a_header_needs_more() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\n".to_vec();
        for header in [v2(0x21, 0x11, IPV4), v2(0x21, 0x11, &[IPV4, &[0; 100]].concat()), line] {
            for length in 0..header.len() {
                assert_eq!(ProxyHeader::parse(&header[..length]), ProxyHeader::NeedMore, "{length}");
            }
        }
    }

    #[test]
    fn anything_else_is_bad_at_its_first_wrong_byte() {
        for bytes in [b"G".as_slice(), b"\r\n\r\nG", b"PROXZ", b"P\n", b"\x16\x03\x01"] {
            assert_eq!(ProxyHeader::parse(bytes), ProxyHeader::Bad, "{bytes:?}");
        }
        for header in [
            v2(0x11, 0x11, IPV4),
            v2(0x22, 0x11, IPV4),
            v2(0x21, 0x12, IPV4),
            v2(0x21, 0x41, IPV4),
            v2(0x21, 0x11, &IPV4[..11]),
            v2(0x21, 0x21, IPV4),
            v2(0x21, 0x31, &[0; 215]),
        ] {
            assert_eq!(ProxyHeader::parse(&header), ProxyHeader::Bad, "{header:?}");
        }
    }

    #[test]
    fn a_header_has_an_end() {
        let longest = v2(0x21, 0x11, &[IPV4, &[0; PROXY_HEADER_BYTES_MAX - 28]].concat());
        assert_eq!(longest.len(), PROXY_HEADER_BYTES_MAX);
        assert_eq!(ProxyHeader::parse(&longest), whole(&longest, "192.0.2.1:4660"));
        let longer = v2(0x21, 0x11, &[IPV4, &[0; PROXY_HEADER_BYTES_MAX - 27]].concat());
        assert_eq!(ProxyHeader::parse(&longer[..FIXED_BYTES]), ProxyHeader::Bad);
        let line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 91], b"\r\n"].concat();
        assert_eq!(line.len(), LINE_BYTES_MAX);
        assert!(matches!(ProxyHeader::parse(&line), ProxyHeader::Whole { .. }));
        assert_eq!(
            ProxyHeader::parse(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 93]].concat()),
            ProxyHeader::Bad
        );
    }

    #[test]
    fn a_wrong_line_is_bad() {
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 \r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 x 1 2\r\n",
        ] {
            assert_eq!(ProxyHeader::parse(line.as_bytes()), ProxyHeader::Bad, "{line}");
        }
    }

    /// Whatever comes: no panic, an end within the bound, and the same answer when the bytes come singly.
    #[test]
    fn no_bytes_break_the_parser() {
        let seeds = [
            v2(0x21, 0x11, &[IPV4, &[7; 40]].concat()),
            v2(0x21, 0x21, &ipv6("2001:db8::1")),
            v2(0x20, 0x00, &[]),
            b"PROXY TCP4 192.0.2.1 198.51.100.1 4660 443\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(),
        ];
        mutation::each(&seeds, 20_000, |bytes| {
            let at_once = ProxyHeader::parse(bytes);
            let one_by_one = (0..=bytes.len()).map(|length| ProxyHeader::parse(&bytes[..length]));
            let first = one_by_one.into_iter().find(|read| *read != ProxyHeader::NeedMore);
            assert_eq!(first.unwrap_or(ProxyHeader::NeedMore), at_once);
            if let ProxyHeader::Whole { consumed, .. } = at_once {
                assert!(consumed <= bytes.len().min(PROXY_HEADER_BYTES_MAX));
            }
        });
    }
}
