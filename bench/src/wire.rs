//! The client side of the protocol, as much as a load generator needs: what it sends, and what it
//! reads in a line without understanding all of it.

use std::io::Write;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Masking key of every frame. A client must mask; with zeros that changes nothing, and the load
/// generator keeps its processor time for more connections.
const MASK: [u8; 4] = [0; 4];

/// One line of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A publication, with its offset (`None` in rooms that keep nothing) and the time it carries.
    Delivery { offset: Option<u64>, sent_ns: Option<u64> },
    /// The reply to a command.
    Reply { id: u64, error: Option<&'a str> },
    /// Asks for an answer.
    Ping,
    /// A push that is no publication.
    Other,
}

/// Finds the members of a line that matter.
#[derive(Debug)]
pub(crate) struct Reader {
    publication: Finder<'static>,
    offset: Finder<'static>,
    sent: Finder<'static>,
    error: Finder<'static>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            publication: Finder::new(r#""pub":{"#),
            offset: Finder::new(r#""offset":"#),
            sent: Finder::new(r#"{"t":"#),
            error: Finder::new(r#""error":{"#),
        }
    }

    pub(crate) fn read<'a>(&self, line: &'a [u8]) -> Line<'a> {
        if line == b"{}" {
            return Line::Ping;
        }
        if let Some(id) = line.strip_prefix(br#"{"id":"#).and_then(leading_number) {
            let error = self.error.find(line).map(|at| str::from_utf8(&line[at..]).unwrap_or("not text"));
            return Line::Reply { id, error };
        }
        let sent_ns = number_behind(&self.sent, line);
        if sent_ns.is_none() || !line.starts_with(br#"{"push":{"#) || self.publication.find(line).is_none() {
            return read_slowly(line);
        }
        Line::Delivery { offset: number_behind(&self.offset, line), sent_ns }
    }
}

/// Reads any line: of a server that writes JSON in another order or with spaces, or what others publish.
fn read_slowly(line: &[u8]) -> Line<'_> {
    #[derive(Deserialize)]
    struct Any<'a> {
        id: Option<u64>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        push: Option<Push<'a>>,
    }
    #[derive(Deserialize)]
    struct Push<'a> {
        #[serde(borrow, rename = "pub")]
        publication: Option<Publication<'a>>,
    }
    #[derive(Deserialize)]
    struct Publication<'a> {
        offset: Option<u64>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Data {
        t: u64,
    }
    match serde_json::from_slice(line) {
        Ok(Any { id: Some(id), error, .. }) => Line::Reply { id, error: error.map(RawValue::get) },
        Ok(Any { push: Some(Push { publication: Some(publication) }), .. }) => {
            let ours = serde_json::from_str::<Data>(publication.data.get());
            Line::Delivery { offset: publication.offset, sent_ns: ours.ok().map(|data| data.t) }
        }
        _ => Line::Other,
    }
}

fn number_behind(name: &Finder<'_>, line: &[u8]) -> Option<u64> {
    let at = name.find(line)? + name.needle().len();
    leading_number(&line[at..])
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(None, |number: Option<u64>, digit| {
        Some(number.unwrap_or(0).wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

/// Appends the request that makes the socket a WebSocket.
pub(crate) fn handshake(out: &mut Vec<u8>, host: &str, path: &str) {
    // Writing to a Vec does not fail.
    let _ = write!(
        out,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
}

/// Appends one text frame, masked.
pub(crate) fn frame(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x81);
    match text.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend_from_slice(text);
}

/// The text of the command `connect`.
pub(crate) fn connect(token: Option<&str>) -> String {
    match token {
        None => r#"{"id":1,"connect":{"data":{"user":"bench"}}}"#.to_owned(),
        Some(token) => serde_json::json!({"id": 1, "connect": {"token": token}}).to_string(),
    }
}

/// The text of the command `subscribe`, from a position if there is one: epoch and offset.
pub(crate) fn subscribe(channel: &str, from: Option<(&str, u64)>) -> String {
    let mut options = serde_json::json!({"channel": channel});
    if let Some((epoch, offset)) = from {
        options["recover"] = true.into();
        options["epoch"] = epoch.into();
        options["offset"] = offset.into();
    }
    serde_json::json!({"id": 2, "subscribe": options}).to_string()
}

/// The reply to `subscribe`, as much of it as matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Joined {
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) recovered: bool,
    pub(crate) publications: Vec<Recovered>,
}

/// A publication that was missed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Recovered {
    pub(crate) offset: u64,
}

/// Reads the reply to `subscribe`.
pub(crate) fn joined(line: &[u8]) -> serde_json::Result<Joined> {
    #[derive(Deserialize)]
    struct Reply {
        subscribe: Joined,
    }
    serde_json::from_slice(line).map(|reply: Reply| reply.subscribe)
}

/// Appends the command that publishes a payload of `size` bytes which carries the time it was due.
pub(crate) fn publish(out: &mut Vec<u8>, id: u64, channel: &str, due_ns: u64, size: usize) {
    let _ = write!(out, r#"{{"id":{id},"publish":{{"channel":"{channel}","data":"#);
    let start = out.len();
    let _ = write!(out, r#"{{"t":{due_ns},"pad":""#);
    let pad = size.saturating_sub(out.len() - start + 2);
    out.resize(out.len() + pad, b'x');
    out.extend_from_slice(br#""}}}"#);
}

/// Appends the answer to a ping of WebSocket.
pub(crate) fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    // Payloads of control frames have 125 bytes at most (RFC 6455, 5.5).
    let payload = &payload[..payload.len().min(125)];
    out.extend_from_slice(&[0x8a, 0x80 | payload.len() as u8]);
    out.extend_from_slice(&MASK);
    out.extend_from_slice(payload);
}

/// Splits the first frame off: its first byte, its payload, and what follows. `None` until all of it is
/// there.
pub(crate) fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, head) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let end = head + usize::try_from(length).ok()?;
    Some((first, bytes.get(head..end)?, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let reader = Reader::new();
        let push = br#"{"push":{"channel":"a","pub":{"data":{"t":77,"pad":"x"},"offset":12}}}"#;
        assert_eq!(reader.read(push), Line::Delivery { offset: Some(12), sent_ns: Some(77) });
        let reply = Line::Reply { id: 31, error: None };
        assert_eq!(reader.read(br#"{"id":31,"publish":{"offset":4}}"#), reply);
        let refused = reader.read(br#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#);
        assert!(matches!(refused, Line::Reply { id: 3, error: Some(text) } if text.contains("103")));
        assert_eq!(reader.read(b"{}"), Line::Ping);
        assert_eq!(reader.read(br#"{"push":{"channel":"a","join":{}}}"#), Line::Other);
    }

    #[test]
    fn the_order_of_members_and_spaces_do_not_matter() {
        let reader = Reader::new();
        let push = br#"{"push": {"pub": {"offset": 12, "data": {"pad": "x", "t": 77}}, "channel": "a"}}"#;
        assert_eq!(reader.read(push), Line::Delivery { offset: Some(12), sent_ns: Some(77) });
        let foreign = br#"{"push":{"channel":"a","pub":{"data":"hello","offset":13}}}"#;
        assert_eq!(reader.read(foreign), Line::Delivery { offset: Some(13), sent_ns: None });
        assert_eq!(reader.read(br#"{"connect":{},"id":1}"#), Line::Reply { id: 1, error: None });
        assert_eq!(reader.read(br#"{"id": 1, "connect": {}}"#), Line::Reply { id: 1, error: None });
        let refused = Line::Reply { id: 3, error: Some(r#"{"code": 103}"#) };
        assert_eq!(reader.read(br#"{"error": {"code": 103}, "id": 3}"#), refused);
        assert_eq!(reader.read(br#"{"push": {"channel": "a", "join": {}}}"#), Line::Other);
        assert_eq!(reader.read(br#"{"push":"#), Line::Other);
    }

    #[test]
    fn a_payload_has_the_size_asked_for() {
        for size in [48, 128, 2000] {
            let mut out = Vec::new();
            publish(&mut out, 9, "room", 1234567890, size);
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert_eq!(value["publish"]["data"].to_string().len(), size);
            assert_eq!(value["publish"]["data"]["t"], 1234567890);
        }
    }

    #[test]
    fn frames_are_split_off_when_they_are_whole() {
        for length in [5, 125, 126, 70_000] {
            let mut bytes = vec![0x81];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=0xffff => bytes.extend([126, (length >> 8) as u8, length as u8]),
                _ => {
                    bytes.push(127);
                    bytes.extend((length as u64).to_be_bytes());
                }
            }
            bytes.resize(bytes.len() + length, b'a');
            assert_eq!(split_frame(&bytes[..bytes.len() - 1]), None);
            bytes.push(b'n');
            let (first, payload, rest) = split_frame(&bytes).unwrap();
            assert_eq!((first, payload.len(), rest), (0x81, length, &b"n"[..]));
        }
    }
}
