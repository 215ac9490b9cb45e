//! The two headers in which proxies write whom they serve: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Each proxy adds an entry at the end; whatever is before the entries of known proxies may be anything.

use std::net::{IpAddr, Ipv6Addr};

/// One entry, as far as it says who the client of a proxy was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A client by its address, IPv4 in its own form.
    Address(IpAddr),
    /// The proxy does not say: `unknown`, a name of its own such as `_gate3`, or no `for` at all.
    Hidden,
    /// Nothing that the grammar allows.
    Malformed,
}

/// The entries of one line of `X-Forwarded-For`, in the order of the proxies.
pub(super) fn x_forwarded_for(line: &str) -> impl Iterator<Item = Entry> {
    line.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(node)
}

/// The entries of one line of `Forwarded`. A line that breaks the grammar ends with [`Entry::Malformed`],
/// for a quote that is not closed hides what follows it.
pub(super) fn forwarded(line: &str) -> impl Iterator<Item = Entry> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        loop {
            let Some((element, behind)) = element(rest?) else {
                rest = None;
                return Some(Entry::Malformed);
            };
            rest = behind;
            if let Some(entry) = element {
                return Some(entry);
            }
        }
    })
}

/// The first element of a list, `None` when it is empty, and the list behind its comma.
fn element(mut text: &str) -> Option<(Option<Entry>, Option<&str>)> {
    let (mut is_empty, mut client) = (true, None);
    loop {
        text = blank(text);
        if !text.starts_with([',', ';']) && !text.is_empty() {
            let (name, value, behind) = pair(text)?;
            is_empty = false;
            if name.eq_ignore_ascii_case("for") && client.replace(node(&value)).is_some() {
                return None;
            }
            text = blank(behind);
        }
        let mut chars = text.chars();
        let separator = chars.next();
        text = chars.as_str();
        let entry = || (!is_empty).then(|| client.unwrap_or(Entry::Hidden));
        match separator {
            None => return Some((entry(), None)),
            Some(',') => return Some((entry(), Some(text))),
            Some(';') => {}
            Some(_) => return None,
        }
    }
}

/// `name=value` and what is behind. Values with `:` and brackets are taken without quotes too, which
/// several proxies forget.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, behind) = text.split_once('=')?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return None;
    }
    if let Some(quoted) = behind.strip_prefix('"') {
        let (value, behind) = unquote(quoted)?;
        return Some((name, value, behind));
    }
    let is_end = |c: char| matches!(c, ',' | ';' | ' ' | '\t' | '"');
    let (value, behind) = behind.split_at(behind.find(is_end).unwrap_or(behind.len()));
    (!value.is_empty()).then(|| (name, value.to_owned(), behind))
}

/// The text of a quoted string without its first quote, and what is behind the last one.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            other => value.push(other),
        }
    }
}

fn blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// A character of a token (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A client as both headers write it: an address, perhaps with a port, or no address.
fn node(text: &str) -> Entry {
    if let Some(address) = address(text) {
        return Entry::Address(address.to_canonical());
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_hidden = name.eq_ignore_ascii_case("unknown") || is_obfuscated(name);
    if is_hidden && port.is_none_or(is_port) { Entry::Hidden } else { Entry::Malformed }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, behind) = bracketed.split_once(']')?;
        let is_ended = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
        return address.parse::<Ipv6Addr>().ok().filter(|_| is_ended).map(IpAddr::V6);
    }
    let (address, port) = text.split_once(':')?;
    address.parse().ok().filter(|_| is_port(port)).map(IpAddr::V4)
}

/// A port in digits, or an obfuscated one.
fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number || is_obfuscated(text)
}

/// A name that a proxy gives instead of an address or port (RFC 7239 §6.3).
fn is_obfuscated(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    fn at(address: &str) -> Entry {
        Entry::Address(address.parse().unwrap())
    }

    fn read(line: &str) -> Vec<Entry> {
        forwarded(line).collect()
    }

    #[test]
    fn clients_are_written_in_many_ways() {
        for (text, expected) in [
            ("192.0.2.1", at("192.0.2.1")),
            ("192.0.2.1:443", at("192.0.2.1")),
            ("192.0.2.1:_port", at("192.0.2.1")),
            ("2001:db8::1", at("2001:db8::1")),
            ("[2001:db8::1]", at("2001:db8::1")),
            ("[2001:db8::1]:65535", at("2001:db8::1")),
            ("::ffff:192.0.2.1", at("192.0.2.1")),
            ("[::ffff:192.0.2.1]:80", at("192.0.2.1")),
            ("unknown", Entry::Hidden),
            ("Unknown:80", Entry::Hidden),
            ("_gate-3.x", Entry::Hidden),
            ("_gate:_port", Entry::Hidden),
        ] {
            assert_eq!(node(text), expected, "{text}");
        }
        for text in [
            "",
            "_",
            "_a b",
            "localhost",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:",
            "192.0.2.1:x",
            "[192.0.2.1]",
            "192.0.2.1:123456",
            "[2001:db8::1",
            "[2001:db8::1]x",
            "[2001:db8::1]:",
            "fe80::1%eth0",
            "unknown:",
            "192.0.2.1 ",
            "\"192.0.2.1\"",
        ] {
            assert_eq!(node(text), Entry::Malformed, "{text}");
        }
    }

    #[test]
    fn x_forwarded_for_is_a_list() {
        let entries: Vec<Entry> = x_forwarded_for("203.0.113.9,, x\t, [::1]:1,unknown ,").collect();
        assert_eq!(entries, [at("203.0.113.9"), Entry::Malformed, at("::1"), Entry::Hidden]);
        assert_eq!(x_forwarded_for(" ").count(), 0);
    }

    #[test]
    fn forwarded_as_the_rfc_shows_it() {
        assert_eq!(read(r#"for="_gazonk""#), [Entry::Hidden]);
        assert_eq!(read(r#"For="[2001:db8:cafe::17]:4711""#), [at("2001:db8:cafe::17")]);
        assert_eq!(read("for=192.0.2.60;proto=http;by=203.0.113.43"), [at("192.0.2.60")]);
        assert_eq!(read("for=192.0.2.43, for=198.51.100.17"), [at("192.0.2.43"), at("198.51.100.17")]);
        let mixed = r#"for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown"#;
        assert_eq!(read(mixed), [at("192.0.2.43"), at("2001:db8:cafe::17"), Entry::Hidden]);
        assert_eq!(read("for=_hidden, for=_SEVKISEK"), [Entry::Hidden, Entry::Hidden]);
    }

    #[test]
    fn forwarded_as_proxies_write_it() {
        assert_eq!(read("for=192.0.2.1:80"), [at("192.0.2.1")], "quotes are forgotten");
        assert_eq!(read("for=[2001:db8::1]:80;host=h"), [at("2001:db8::1")]);
        assert_eq!(read(r#"proto=https;host="a,b;c=\"d";FOR="192.0.2.1" ; x=y"#), [at("192.0.2.1")]);
        assert_eq!(read("by=203.0.113.43;proto=https"), [Entry::Hidden]);
        assert_eq!(read(r#"for="192.0.\2.1""#), [at("192.0.2.1")]);
        assert_eq!(read(" , ,for=192.0.2.1;,;"), [at("192.0.2.1")], "empty elements and pairs are nothing");
        assert_eq!(read(""), []);
    }

    #[test]
    fn a_line_that_breaks_the_grammar_ends_as_malformed() {
        for line in [
            r#"for="192.0.2.1"#,
            r#"for="\"#,
            "for=",
            "for",
            "=x",
            "for=a b",
            "f r=1",
            r#"for="x"y"#,
            "for=x\"y\"",
            "for =192.0.2.1",
            "for= 192.0.2.1",
            "for=192.0.2.1;for=192.0.2.2",
        ] {
            assert_eq!(read(line), [Entry::Malformed], "{line}");
        }
        let hidden_end = r#"for=192.0.2.1, for=", for=198.51.100.17"#;
        assert_eq!(read(hidden_end), [at("192.0.2.1"), Entry::Malformed]);
        assert_eq!(read("for=nonsense, for=192.0.2.1"), [Entry::Malformed, at("192.0.2.1")]);
    }

    #[test]
    fn no_bytes_break_the_parsers() {
        let examples = [
            r#"for="[2001:db8:cafe::17]:4711";proto=https;by=203.0.113.60, for=192.0.2.43"#,
            r#"for="_gazonk", FOR=unknown;host="a\"b", for="192.0.2.1:_x""#,
            "203.0.113.9, [2001:db8::1]:443, unknown, _x:_y, ::ffff:192.0.2.1",
        ];
        let examples = examples.map(|line| line.as_bytes().to_vec());
        mutation::each(&examples, 50_000, |bytes| {
            let line = String::from_utf8_lossy(bytes);
            for entries in [x_forwarded_for(&line).collect(), read(&line)] {
                assert!(entries.len() <= line.len() + 1);
                let canonical = |entry: &Entry| match entry {
                    Entry::Address(address) => *address == address.to_canonical(),
                    Entry::Hidden | Entry::Malformed => true,
                };
                assert!(entries.iter().all(canonical));
            }
        });
    }
}
