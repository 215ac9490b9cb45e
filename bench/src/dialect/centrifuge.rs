//! Roomcast's own protocol, that of Centrifugo in JSON: commands with ids, replies with the same ids,
//! pushes without; several lines in a message. Reads in a line what matters without understanding all of it.

use std::io::Write;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::interface::{ClientState, Decoded, Dialect, Event, Joined};
use crate::payload::{self, Stamp};

const CONNECT_ID: u64 = 1;
const SUBSCRIBE_ID: u64 = 2;

/// The dialect, with what all clients of a run send first.
#[derive(Debug)]
pub(super) struct Centrifuge {
    path: String,
    /// The command `connect`, the same for all.
    connect: String,
    reader: Reader,
}

impl Centrifuge {
    pub(super) fn new(path: &str, token: Option<&str>) -> Self {
        let connect = match token {
            None => r#"{"id":1,"connect":{"data":{"user":"bench"}}}"#.to_owned(),
            Some(token) => serde_json::json!({"id": CONNECT_ID, "connect": {"token": token}}).to_string(),
        };
        Self { path: path.to_owned(), connect, reader: Reader::new() }
    }

    fn decode_line(&self, client: &ClientState<'_>, line: &[u8], decoded: &mut Decoded) {
        match self.reader.read(line) {
            Line::Ping => decoded.reply("{}"),
            Line::Other => {}
            Line::Delivery { offset, stamp } => decoded.event(Event::Delivery { offset, stamp }),
            Line::Reply { id: CONNECT_ID | SUBSCRIBE_ID, error: Some(error) } => {
                decoded.event(Event::Refused(format!("the server refused a client: {error}")));
            }
            Line::Reply { id: CONNECT_ID, error: None } => match client.room {
                Some(room) => decoded.reply(subscribe(room, client.position)),
                None => decoded.event(Event::Ready(Joined::default())),
            },
            Line::Reply { id: SUBSCRIBE_ID, error: None } => decoded.event(match joined(line) {
                Ok(joined) => Event::Ready(joined),
                Err(error) => Event::Refused(format!("the reply to subscribe is not understood: {error}")),
            }),
            Line::Reply { id, error } => decoded.event(Event::Ack { id, error: error.map(str::to_owned) }),
        }
    }
}

/// True for the answer to a publish that met a limit on rates.
pub(crate) fn is_limit(error: &str) -> bool {
    error.contains("\"code\":111,") || error.contains("\"code\":111}")
}

impl Dialect for Centrifuge {
    fn path(&self, _: &ClientState<'_>) -> String {
        self.path.clone()
    }

    fn acknowledges(&self) -> bool {
        true
    }

    fn opened(&self, _: &ClientState<'_>, decoded: &mut Decoded) {
        decoded.reply(self.connect.as_str());
    }

    fn received(&self, client: &ClientState<'_>, _: &mut Vec<u8>, message: &[u8], decoded: &mut Decoded) {
        for line in message.split(|byte| *byte == b'\n') {
            self.decode_line(client, line, decoded);
        }
    }

    fn publish(&self, out: &mut Vec<u8>, id: u64, room: &str, payload: &[u8]) {
        // Writing to a Vec does not fail.
        let _ = write!(out, r#"{{"id":{id},"publish":{{"channel":"{room}","data":"#);
        out.extend_from_slice(payload);
        out.extend_from_slice(b"}}");
    }
}

/// The command `subscribe`, from a position if there is one: epoch and offset.
fn subscribe(channel: &str, from: Option<(&str, u64)>) -> String {
    let mut options = serde_json::json!({"channel": channel});
    if let Some((epoch, offset)) = from {
        options["recover"] = true.into();
        options["epoch"] = epoch.into();
        options["offset"] = offset.into();
    }
    serde_json::json!({"id": SUBSCRIBE_ID, "subscribe": options}).to_string()
}

/// Reads the reply to `subscribe`.
fn joined(line: &[u8]) -> serde_json::Result<Joined> {
    #[derive(Deserialize)]
    struct Reply {
        subscribe: Subscribed,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Subscribed {
        epoch: String,
        offset: u64,
        recovered: bool,
        publications: Vec<Missed>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Missed {
        offset: u64,
    }
    let Reply { subscribe } = serde_json::from_slice(line)?;
    let Subscribed { epoch, offset, recovered, publications } = subscribe;
    let missed = publications.iter().map(|publication| publication.offset).collect();
    Ok(Joined { epoch, offset, recovered, missed })
}

/// One line of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    /// A publication, with its offset: `None` in rooms that keep nothing.
    Delivery { offset: Option<u64>, stamp: Option<Stamp> },
    /// The reply to a command.
    Reply { id: u64, error: Option<&'a str> },
    /// Asks for an answer.
    Ping,
    /// A push that is no publication.
    Other,
}

/// Finds the members of a line that matter.
#[derive(Debug)]
struct Reader {
    publication: Finder<'static>,
    offset: Finder<'static>,
    error: Finder<'static>,
    payload: payload::Reader,
}

impl Reader {
    fn new() -> Self {
        Self {
            publication: Finder::new(r#""pub":{"#),
            offset: Finder::new(r#""offset":"#),
            error: Finder::new(r#""error":{"#),
            payload: payload::Reader::new(),
        }
    }

    fn read<'a>(&self, line: &'a [u8]) -> Line<'a> {
        if line == b"{}" {
            return Line::Ping;
        }
        if let Some((id, _)) = line.strip_prefix(br#"{"id":"#).and_then(payload::number) {
            let error = self.error.find(line).map(|at| str::from_utf8(&line[at..]).unwrap_or("not text"));
            return Line::Reply { id, error };
        }
        let stamp = self.payload.read(line);
        if stamp.is_none() || !line.starts_with(br#"{"push":{"#) || self.publication.find(line).is_none() {
            return read_slowly(line);
        }
        let offset = self.offset.find(line).map(|at| &line[at + self.offset.needle().len()..]);
        Line::Delivery { offset: offset.and_then(payload::number).map(|(offset, _)| offset), stamp }
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
        p: u64,
        n: u64,
    }
    match serde_json::from_slice(line) {
        Ok(Any { id: Some(id), error, .. }) => Line::Reply { id, error: error.map(RawValue::get) },
        Ok(Any { push: Some(Push { publication: Some(publication) }), .. }) => {
            let ours = serde_json::from_str::<Data>(publication.data.get());
            let stamp = ours.ok().map(|Data { t, p, n }| Stamp { due_ns: t, publisher: p, number: n });
            Line::Delivery { offset: publication.offset, stamp }
        }
        _ => Line::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { due_ns: 77, publisher: 3, number: 9 };

    #[test]
    fn replies_pushes_and_errors_are_told_apart() {
        let delivery = |offset, stamp| Line::Delivery { offset, stamp };
        let reply = |id| Line::Reply { id, error: None };
        let error = |error| Line::Reply { id: 3, error: Some(error) };
        for (line, means) in [
            (
                r#"{"push":{"channel":"a","pub":{"data":{"t":77,"p":3,"n":9,"x":"x"},"offset":12}}}"#,
                delivery(Some(12), Some(STAMP)),
            ),
            (
                r#"{"push":{"channel":"a","pub":{"data":{"t":77,"p":3,"n":9,"x":"x"}}}}"#,
                delivery(None, Some(STAMP)),
            ),
            (r#"{"id":31,"publish":{"offset":4}}"#, reply(31)),
            (r#"{"id":3,"error":{"code":103}}"#, error(r#""error":{"code":103}}"#)),
            ("{}", Line::Ping),
            (r#"{"push":{"channel":"a","join":{}}}"#, Line::Other),
            // In another order, and with spaces.
            (
                r#"{"push": {"pub": {"offset": 12, "data": {"x": "x", "n": 9, "p": 3, "t": 77}}, "channel": "a"}}"#,
                delivery(Some(12), Some(STAMP)),
            ),
            (r#"{"push":{"channel":"a","pub":{"data":"hello","offset":13}}}"#, delivery(Some(13), None)),
            (r#"{"connect":{},"id":1}"#, reply(1)),
            (r#"{"id": 1, "connect": {}}"#, reply(1)),
            (r#"{"error": {"code": 103}, "id": 3}"#, error(r#"{"code": 103}"#)),
            (r#"{"push": {"channel": "a", "join": {}}}"#, Line::Other),
            (r#"{"push":"#, Line::Other),
        ] {
            assert_eq!(Reader::new().read(line.as_bytes()), means, "{line}");
        }
    }

    #[test]
    fn a_listener_connects_subscribes_and_is_ready() {
        let dialect = Centrifuge::new("/connection/websocket", Some("secret"));
        let coming_back = ClientState { room: Some("r"), position: Some(("e", 4)) };
        let mut decoded = Decoded::default();
        dialect.opened(&coming_back, &mut decoded);
        let lines = b"{\"id\":1,\"connect\":{}}\n{}";
        dialect.received(&coming_back, &mut Vec::new(), lines, &mut decoded);
        let reply = br#"{"id":2,"subscribe":{"epoch":"e","offset":6,"recovered":true,"publications":[{"offset":5},{"offset":6}]}}"#;
        dialect.received(&coming_back, &mut Vec::new(), reply, &mut decoded);
        let replies: Vec<_> = decoded.replies.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
        assert_eq!(
            replies,
            [
                r#"{"connect":{"token":"secret"},"id":1}"#,
                r#"{"id":2,"subscribe":{"channel":"r","epoch":"e","offset":4,"recover":true}}"#,
                "{}",
            ]
        );
        let joined = Joined { epoch: "e".into(), offset: 6, recovered: true, missed: vec![5, 6] };
        assert_eq!(decoded.events, [Event::Ready(joined)]);
    }

    #[test]
    fn a_publisher_is_ready_at_once_and_told_of_refusals() {
        let dialect = Centrifuge::new("/", None);
        let refused = |text: &str| Event::Refused(format!("the server refused a client: {text}"));
        let accepted = Event::Ack { id: 3, error: None };
        let denied = Event::Ack { id: 3, error: Some(r#""error":{"code":103}}"#.to_owned()) };
        for (line, event) in [
            (r#"{"id":1,"connect":{}}"#, Event::Ready(Joined::default())),
            (r#"{"id":1,"error":{"code":101}}"#, refused(r#""error":{"code":101}}"#)),
            (r#"{"id":3,"publish":{"offset":1}}"#, accepted),
            (r#"{"id":3,"error":{"code":103}}"#, denied),
        ] {
            let mut decoded = Decoded::default();
            dialect.received(&ClientState::default(), &mut Vec::new(), line.as_bytes(), &mut decoded);
            assert_eq!((decoded.events, decoded.replies.len()), (vec![event], 0), "{line}");
        }
    }

    #[test]
    fn a_publish_is_a_command_with_the_payload_as_it_is() {
        let mut out = Vec::new();
        Centrifuge::new("/", None).publish(&mut out, 9, "room", br#"{"t":1}"#);
        assert_eq!(out, br#"{"id":9,"publish":{"channel":"room","data":{"t":1}}}"#);
    }
}
