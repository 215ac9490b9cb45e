//! The payload of a message: JSON that says when the message was due, whose it is and which one of theirs,
//! so that every arrival can be accounted for, whatever the protocol around it tells.

use std::io::Write;

use memchr::memmem::Finder;

/// How every payload begins.
const START: &str = r#"{"t":"#;

/// How the padding begins, and how the payload ends behind it.
const PAD: &[u8] = br#","x":""#;
const END: &[u8] = br#""}"#;

/// Which message a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Nanoseconds since the run began; when it was to be sent, and not when it was.
    pub(crate) due_ns: u64,
    /// Number of the publisher in its group.
    pub(crate) publisher: u64,
    /// The publisher's messages count from 0.
    pub(crate) number: u64,
}

/// Writes a payload of `size` bytes over what was in `out`; a little longer if the stamp takes more.
pub(crate) fn write(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    let Stamp { due_ns, publisher, number } = stamp;
    out.clear();
    // Writing to a Vec does not fail.
    let _ = write!(out, r#"{START}{due_ns},"p":{publisher},"n":{number}"#);
    out.extend_from_slice(PAD);
    out.resize(out.len().max(size.saturating_sub(END.len())), b'x');
    out.extend_from_slice(END);
}

/// Finds payloads in what surrounds them.
#[derive(Debug)]
pub(crate) struct Reader(Finder<'static>);

impl Reader {
    pub(crate) fn new() -> Self {
        Self(Finder::new(START))
    }

    /// The stamp of the first payload in `bytes`, if there is one that nobody has written anew.
    pub(crate) fn read(&self, bytes: &[u8]) -> Option<Stamp> {
        let rest = &bytes[self.0.find(bytes)? + START.len()..];
        let (due_ns, rest) = number(rest)?;
        let (publisher, rest) = number(rest.strip_prefix(br#","p":"#)?)?;
        let (number, _) = number(rest.strip_prefix(br#","n":"#)?)?;
        Some(Stamp { due_ns, publisher, number })
    }
}

/// The number that `text` begins with, and what follows it.
pub(crate) fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add)).flatten().map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { due_ns: 12_345_678_901, publisher: 7, number: 42 };

    #[test]
    fn a_payload_has_the_size_asked_for() {
        for size in [48, 128, 2000, 70_000] {
            let mut out = b"before".to_vec();
            write(&mut out, STAMP, size);
            assert_eq!(out.len(), size);
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        }
    }

    #[test]
    fn a_stamp_is_read_back_from_whatever_surrounds_it() {
        let mut payload = Vec::new();
        write(&mut payload, STAMP, 128);
        let reader = Reader::new();
        for (before, behind) in [("", ""), (r#"42["m","#, "]"), (r#"{"push":{"pub":{"data":"#, "}}}")] {
            let text = [before.as_bytes(), &payload, behind.as_bytes()].concat();
            assert_eq!(reader.read(&text), Some(STAMP));
        }
    }

    #[test]
    fn a_payload_without_a_stamp_has_none() {
        for text in ["", r#"{"t":"#, r#"{"t":5,"p":1}"#, r#"{"t":5, "p":1,"n":2}"#, r#"{"t":x,"p":1,"n":2}"#]
        {
            assert_eq!(Reader::new().read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(number(b"99999999999999999999"), None, "more than fits");
    }
}
