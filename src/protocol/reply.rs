//! Replies to commands, appended to a buffer as one JSON object each.
//!
//! The result object is always there, even empty, because SDKs index it; members with a zero value
//! are left out unless SDKs need them.

use std::borrow::Borrow;

use super::api::page::{Page, written_bytes};
use super::code::ErrorCode;
use super::object::{Object, WriteMembers, write_object};
use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Publication};

/// Publications encoded one after the other, for history and recovery.
///
/// Grows by [`PublicationList::push`], so that a page can be cut by its size in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationList {
    objects: Vec<u8>,
}

impl PublicationList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { objects: Vec::new() }
    }

    /// Adds one more.
    pub fn push(&mut self, publication: &Publication) {
        if !self.objects.is_empty() {
            self.objects.push(b',');
        }
        encode_publication_object(&mut self.objects, publication);
    }

    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        out.extend_from_slice(&self.objects);
        out.push(b']');
    }
}

impl<'p> FromIterator<&'p Publication> for PublicationList {
    fn from_iter<I: IntoIterator<Item = &'p Publication>>(publications: I) -> Self {
        let mut list = Self::new();
        publications.into_iter().for_each(|publication| list.push(publication));
        list
    }
}

/// Appends the object of one publication, as it stands in pushes and lists.
pub(crate) fn encode_publication_object(out: &mut Vec<u8>, publication: &Publication) {
    write_object(out, publication);
}

impl WriteMembers for Publication {
    fn write(&self, object: &mut Object<'_>) {
        object.raw("data", &self.data);
        if let Some(info) = &self.info {
            object.object("info", &**info);
        }
        object.some_number("offset", self.seq);
        object.some_raw("tags", self.tags.as_deref());
    }
}

impl WriteMembers for ClientInfo {
    fn write(&self, object: &mut Object<'_>) {
        object.string("user", &self.user);
        object.string("client", &self.client);
        object.some_raw("conn_info", self.conn_info.as_deref());
        object.some_raw("chan_info", self.chan_info.as_deref());
    }
}

/// The result of a successful subscribe; also the state of a server-side subscription.
///
/// `SubscribeResult::default()` is the answer of a channel that keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscribeResult<'a> {
    /// Seconds until the subscription expires; `None`: never.
    pub ttl_seconds: Option<u32>,
    /// The client shall keep its position and recover by it.
    pub recoverable: bool,
    /// The server watches that the subscription misses nothing.
    pub positioned: bool,
    /// The epoch of `offset`; empty for channels that keep nothing.
    pub epoch: &'a str,
    /// The position the subscription starts from.
    pub offset: Seq,
    /// The request asked to recover.
    pub was_recovering: bool,
    /// Everything missed is in `publications` or follows as pushes.
    pub recovered: bool,
    /// The missed messages, oldest first.
    pub publications: Option<&'a PublicationList>,
    /// Data of the application for the client, compact JSON.
    pub data: Option<&'a str>,
}

impl WriteMembers for SubscribeResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        expiry(object, self.ttl_seconds);
        object.some_true("recoverable", self.recoverable);
        object.some_true("positioned", self.positioned);
        object.some_string("epoch", self.epoch);
        object.some_number("offset", self.offset);
        object.some_true("was_recovering", self.was_recovering);
        object.some_true("recovered", self.recovered);
        if let Some(publications) = self.publications.filter(|list| !list.is_empty()) {
            publications.write(object.value("publications"));
        }
        object.some_raw("data", self.data);
    }
}

/// The result of a successful connect.
#[derive(Debug, Clone, Copy)]
pub struct ConnectResult<'a> {
    /// Id of the connection.
    pub client: &'a str,
    /// Version of the server; never empty.
    pub version: &'a str,
    /// Seconds until the connection expires; `None`: never.
    pub ttl_seconds: Option<u32>,
    /// Data of the application for the client, compact JSON.
    pub data: Option<&'a str>,
    /// Server-side subscriptions.
    pub subs: &'a [(Channel, SubscribeResult<'a>)],
    /// Seconds between two pings of the server; 0: none come.
    pub ping_seconds: u32,
    /// Pings are to be answered.
    pub pong: bool,
}

impl WriteMembers for ConnectResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("client", self.client);
        object.some_string("version", self.version);
        expiry(object, self.ttl_seconds);
        object.some_raw("data", self.data);
        if !self.subs.is_empty() {
            object.object("subs", &Subscriptions(self.subs));
        }
        object.some_number("ping", u64::from(self.ping_seconds));
        object.some_true("pong", self.pong);
    }
}

/// One member for each channel, by its name.
struct Subscriptions<'a>(&'a [(Channel, SubscribeResult<'a>)]);

impl WriteMembers for Subscriptions<'_> {
    fn write(&self, object: &mut Object<'_>) {
        for (channel, result) in self.0 {
            write_object(object.key(channel.as_str()), result);
        }
    }
}

/// An answer without members.
struct Nothing;

impl WriteMembers for Nothing {
    fn write(&self, _: &mut Object<'_>) {}
}

/// Reply to connect.
pub fn connect(out: &mut Vec<u8>, id: u32, result: &ConnectResult<'_>) {
    reply(out, id, "connect", result);
}

/// Reply to subscribe.
pub fn subscribe(out: &mut Vec<u8>, id: u32, result: &SubscribeResult<'_>) {
    reply(out, id, "subscribe", result);
}

/// Reply to unsubscribe.
pub(crate) fn unsubscribe(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "unsubscribe", &Nothing);
}

/// Reply to publish.
pub fn publish(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "publish", &Nothing);
}

/// Reply to a ping of the client.
pub(crate) fn ping(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "ping", &Nothing);
}

/// Result of presence: the clients by their ids.
#[derive(Debug)]
pub(crate) struct PresenceResult<'a, C>(pub &'a [C]);

impl<C: Borrow<ClientInfo>> WriteMembers for PresenceResult<'_, C> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("presence", &Clients(self.0));
    }
}

struct Clients<'a, C>(&'a [C]);

impl<C: Borrow<ClientInfo>> WriteMembers for Clients<'_, C> {
    fn write(&self, object: &mut Object<'_>) {
        for info in self.0.iter().map(Borrow::borrow) {
            write_object(object.key(&info.client), info);
        }
    }
}

/// Result of presence in the HTTP API, and of rpc `presence.list`: a part of the clients by their ids.
#[derive(Debug)]
pub(crate) struct PresencePage<'a, C>(pub &'a Page<C>);

impl<C: Borrow<ClientInfo>> WriteMembers for PresencePage<'_, C> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("presence", &Clients(&self.0.entries));
        self.0.write_next(object);
    }
}

/// The bytes of a client in a list of them.
pub(crate) fn client_bytes(info: &ClientInfo) -> usize {
    written_bytes(&Clients(&[info]))
}

/// Reply to presence.
pub(crate) fn presence<C: Borrow<ClientInfo>>(out: &mut Vec<u8>, id: u32, clients: &[C]) {
    reply(out, id, "presence", &PresenceResult(clients));
}

/// Result of `presence_stats`, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PresenceStatsResult {
    /// Connections that listen.
    pub num_clients: u32,
    /// Distinct users among them; all anonymous ones are one.
    pub num_users: u32,
}

impl WriteMembers for PresenceStatsResult {
    fn write(&self, object: &mut Object<'_>) {
        object.number("num_clients", u64::from(self.num_clients));
        object.number("num_users", u64::from(self.num_users));
    }
}

/// Reply to `presence_stats`.
pub(crate) fn presence_stats(out: &mut Vec<u8>, id: u32, result: PresenceStatsResult) {
    reply(out, id, "presence_stats", &result);
}

/// Result of history, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HistoryResult<'a> {
    /// In the order asked for.
    pub publications: &'a PublicationList,
    /// The epoch of the positions.
    pub epoch: &'a str,
    /// The newest position of the room.
    pub offset: Seq,
}

impl WriteMembers for HistoryResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        self.publications.write(object.value("publications"));
        object.string("epoch", self.epoch);
        object.number("offset", self.offset);
    }
}

/// Reply to history.
pub(crate) fn history(out: &mut Vec<u8>, id: u32, result: &HistoryResult<'_>) {
    reply(out, id, "history", result);
}

/// Reply to rpc whose data is a result of this server, see [`super::api`].
pub(crate) fn rpc_result(out: &mut Vec<u8>, id: u32, result: &impl WriteMembers) {
    reply(out, id, "rpc", &Wrapped(result));
}

struct Wrapped<'a, M>(&'a M);

impl<M: WriteMembers> WriteMembers for Wrapped<'_, M> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("data", self.0);
    }
}

/// Time to an expiry, in seconds; the answer to both kinds of refresh.
pub(super) struct Expiry(pub(super) Option<u32>);

impl WriteMembers for Expiry {
    fn write(&self, object: &mut Object<'_>) {
        expiry(object, self.0);
    }
}

/// Reply to refresh, with the seconds until the connection expires.
pub(crate) fn refresh(out: &mut Vec<u8>, id: u32, ttl_seconds: Option<u32>) {
    reply(out, id, "refresh", &Expiry(ttl_seconds));
}

/// Reply to `sub_refresh`, with the seconds until the subscription expires.
pub(crate) fn sub_refresh(out: &mut Vec<u8>, id: u32, ttl_seconds: Option<u32>) {
    reply(out, id, "sub_refresh", &Expiry(ttl_seconds));
}

/// Reply of any command that failed.
pub fn error(out: &mut Vec<u8>, id: u32, code: ErrorCode) {
    reply(out, id, "error", &code);
}

impl WriteMembers for ErrorCode {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.number()));
        object.string("message", self.as_str());
        object.some_true("temporary", self.temporary());
    }
}

fn expiry(object: &mut Object<'_>, ttl_seconds: Option<u32>) {
    if let Some(ttl) = ttl_seconds {
        object.some_true("expires", true);
        object.number("ttl", u64::from(ttl));
    }
}

fn reply(out: &mut Vec<u8>, id: u32, method: &'static str, result: &impl WriteMembers) {
    let mut object = Object::begin(out);
    object.number("id", u64::from(id));
    object.object(method, result);
    object.end();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The text `encode` appends, checked to be one JSON object in one line.
    fn text(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object(), "{text}");
        assert!(!text.contains('\n'), "{text}");
        text
    }

    fn info(user: &str, client: &str) -> ClientInfo {
        ClientInfo { user: user.into(), client: client.into(), conn_info: None, chan_info: None }
    }

    fn publication(seq: Seq) -> Publication {
        Publication {
            channel: Channel::new("news").unwrap(),
            seq,
            data: r#"{"a":1}"#.into(),
            info: None,
            tags: None,
            created_at_ms: 1,
        }
    }

    const PLAIN: ConnectResult<'static> = ConnectResult {
        client: "1bc9",
        version: "1.0.0",
        ttl_seconds: None,
        data: None,
        subs: &[],
        ping_seconds: 0,
        pong: false,
    };

    #[test]
    fn the_bytes_of_a_publication_count_all_that_belongs_to_it() {
        let text = |text: &str| Some(Arc::from(text));
        let ann =
            ClientInfo { user: "a\"\u{1}nn".into(), client: "c".into(), conn_info: None, chan_info: None };
        let told = ClientInfo { conn_info: text(r#"{"a":1}"#), chan_info: text("[1,2]"), ..ann.clone() };
        for info in [None, Some(ann), Some(told)] {
            for tags in [None, text(r#"{"t":"x"}"#)] {
                let one = Publication {
                    channel: Channel::new("room").unwrap(),
                    seq: 1 << 53,
                    data: Arc::from("\"payload\""),
                    info: info.clone().map(Arc::new),
                    tags,
                    created_at_ms: 0,
                };
                let mut object = Vec::new();
                encode_publication_object(&mut object, &one);
                let (bytes, counted) = (object.len(), one.wire_bytes());
                assert!(bytes < counted && counted <= bytes + 128, "{bytes} bytes, {counted} counted");
            }
        }
    }

    #[test]
    fn connect() {
        assert_eq!(
            text(|out| super::connect(out, 1, &PLAIN)),
            r#"{"id":1,"connect":{"client":"1bc9","version":"1.0.0"}}"#
        );
        let own = SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: "aXbYcZdW",
            offset: 3,
            ..SubscribeResult::default()
        };
        let subs = [
            (Channel::new("#42").unwrap(), own),
            (Channel::new("a\"b\\c").unwrap(), SubscribeResult::default()),
        ];
        let full = ConnectResult {
            ttl_seconds: Some(60),
            data: Some(r#"{"x":[]}"#),
            subs: &subs,
            ping_seconds: 25,
            pong: true,
            ..PLAIN
        };
        assert_eq!(
            text(|out| super::connect(out, u32::MAX, &full)),
            concat!(
                r#"{"id":4294967295,"connect":{"client":"1bc9","version":"1.0.0","expires":true,"ttl":60,"#,
                r#""data":{"x":[]},"subs":{"#,
                r##""#42":{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":3},"##,
                r#""a\"b\\c":{}},"ping":25,"pong":true}}"#
            )
        );
    }

    #[test]
    fn subscribe() {
        let reply = |result: SubscribeResult<'_>| text(|out| super::subscribe(out, 2, &result));
        let none = SubscribeResult::default();
        let kept = SubscribeResult { recoverable: true, positioned: true, epoch: "aXbYcZdW", ..none };
        let nothing = PublicationList::new();
        let missed: PublicationList = [&publication(9), &publication(10)].into_iter().collect();
        let recovering = SubscribeResult { was_recovering: true, recovered: true, offset: 8, ..kept };
        for (result, wanted) in [
            (none, "{}"),
            (kept, r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW"}"#),
            (
                SubscribeResult { offset: 7, ..kept },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":7}"#,
            ),
            (
                SubscribeResult { publications: Some(&missed), ..recovering },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":8,"was_recovering":true,"recovered":true,"publications":[{"data":{"a":1},"offset":9},{"data":{"a":1},"offset":10}]}"#,
            ),
            (
                SubscribeResult { publications: Some(&nothing), ..recovering },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":8,"was_recovering":true,"recovered":true}"#,
            ),
            (
                SubscribeResult { was_recovering: true, offset: 3, ..kept },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":3,"was_recovering":true}"#,
            ),
            (
                SubscribeResult { ttl_seconds: Some(0), data: Some("null"), ..none },
                r#"{"expires":true,"ttl":0,"data":null}"#,
            ),
        ] {
            assert_eq!(reply(result), format!(r#"{{"id":2,"subscribe":{wanted}}}"#));
        }
    }

    #[test]
    fn empty_results_are_there() {
        for (encode, wanted) in [
            (super::unsubscribe as fn(&mut Vec<u8>, u32), r#"{"id":5,"unsubscribe":{}}"#),
            (super::publish, r#"{"id":5,"publish":{}}"#),
            (super::ping, r#"{"id":5,"ping":{}}"#),
            (|out, id| super::refresh(out, id, None), r#"{"id":5,"refresh":{}}"#),
            (|out, id| super::refresh(out, id, Some(60)), r#"{"id":5,"refresh":{"expires":true,"ttl":60}}"#),
            (|out, id| super::sub_refresh(out, id, None), r#"{"id":5,"sub_refresh":{}}"#),
            (
                |out, id| super::sub_refresh(out, id, Some(9)),
                r#"{"id":5,"sub_refresh":{"expires":true,"ttl":9}}"#,
            ),
            (
                |out, id| super::rpc_result(out, id, &PresenceStatsResult::default()),
                r#"{"id":5,"rpc":{"data":{"num_clients":0,"num_users":0}}}"#,
            ),
        ] {
            assert_eq!(text(|out| encode(out, 5)), wanted);
        }
    }

    #[test]
    fn presence() {
        let nobody: [ClientInfo; 0] = [];
        assert_eq!(text(|out| super::presence(out, 6, &nobody)), r#"{"id":6,"presence":{"presence":{}}}"#);
        let shown = ClientInfo {
            conn_info: Some(r#"{"name":"A"}"#.into()),
            chan_info: Some("1".into()),
            ..info("42", "c1")
        };
        assert_eq!(
            text(|out| super::presence(out, 6, &[Arc::new(shown), Arc::new(info("", "c2"))])),
            concat!(
                r#"{"id":6,"presence":{"presence":{"#,
                r#""c1":{"user":"42","client":"c1","conn_info":{"name":"A"},"chan_info":1},"#,
                r#""c2":{"user":"","client":"c2"}}}}"#
            )
        );
        let stats = PresenceStatsResult { num_clients: 2, num_users: 1 };
        assert_eq!(
            text(|out| super::presence_stats(out, 6, stats)),
            r#"{"id":6,"presence_stats":{"num_clients":2,"num_users":1}}"#
        );
    }

    #[test]
    fn history() {
        let reply = |publications: &PublicationList, epoch, offset| {
            text(|out| super::history(out, 4, &HistoryResult { publications, epoch, offset }))
        };
        assert_eq!(
            reply(&PublicationList::new(), "", 0),
            r#"{"id":4,"history":{"publications":[],"epoch":"","offset":0}}"#
        );
        let page = PublicationList::from_iter([&publication(8)]);
        assert_eq!(
            reply(&page, "aXbYcZdW", 9_007_199_254_740_992),
            r#"{"id":4,"history":{"publications":[{"data":{"a":1},"offset":8}],"epoch":"aXbYcZdW","offset":9007199254740992}}"#
        );
    }

    #[test]
    fn publications() {
        let object = |publication: &Publication| text(|out| encode_publication_object(out, publication));
        assert_eq!(object(&publication(0)), r#"{"data":{"a":1}}"#);
        let full = Publication {
            info: Some(Arc::new(info("ann \"x\"", "c1"))),
            tags: Some(r#"{"k":"v"}"#.into()),
            ..publication(7)
        };
        assert_eq!(
            object(&full),
            r#"{"data":{"a":1},"info":{"user":"ann \"x\"","client":"c1"},"offset":7,"tags":{"k":"v"}}"#
        );
    }

    #[test]
    fn every_error() {
        for (code, wanted) in ErrorCode::ALL.iter().zip([
            r#"{"code":100,"message":"internal server error","temporary":true}"#,
            r#"{"code":102,"message":"unknown channel"}"#,
            r#"{"code":103,"message":"permission denied"}"#,
            r#"{"code":104,"message":"method not found"}"#,
            r#"{"code":105,"message":"already subscribed"}"#,
            r#"{"code":106,"message":"limit exceeded"}"#,
            r#"{"code":107,"message":"bad request"}"#,
            r#"{"code":108,"message":"not available"}"#,
            r#"{"code":109,"message":"token expired"}"#,
            r#"{"code":111,"message":"too many requests","temporary":true}"#,
            r#"{"code":112,"message":"unrecoverable position"}"#,
            r#"{"code":113,"message":"conflict"}"#,
        ]) {
            assert_eq!(text(|out| error(out, 9, *code)), format!(r#"{{"id":9,"error":{wanted}}}"#));
        }
        assert_eq!(ErrorCode::ALL.len(), 12);
    }
}
