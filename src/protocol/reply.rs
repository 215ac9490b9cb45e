//! Replies to commands, and their members in JSON.
//!
//! The result object is always there, even empty, because SDKs index it; members with a zero value
//! are left out unless SDKs need them.

use std::borrow::Borrow;
use std::sync::Arc;

use super::api::page::{Page, written_bytes};
use super::code::ErrorCode;
use super::object::{Object, WriteMembers, write_object};
use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Publication};

/// A reply to a command that carries an id.
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// To connect.
    Connect(&'a ConnectResult<'a>),
    /// To subscribe.
    Subscribe(&'a SubscribeResult<'a>),
    /// To unsubscribe.
    Unsubscribe,
    /// To publish.
    Publish,
    /// To presence: the clients of a room.
    Presence(&'a [Arc<ClientInfo>]),
    /// To `presence_stats`.
    PresenceStats(PresenceStatsResult),
    /// To history.
    History(&'a HistoryResult<'a>),
    /// To a ping of the client.
    Ping,
    /// To rpc, with a result of this server, see [`super::api`].
    Rpc(&'a dyn WriteMembers),
    /// To refresh, with the seconds until the connection expires.
    Refresh(Option<u32>),
    /// To `sub_refresh`, with the seconds until the subscription expires.
    SubRefresh(Option<u32>),
    /// To any command that failed.
    Error(ErrorCode),
}

impl Reply<'_> {
    /// Adds the member that tells the result.
    pub(super) fn write_json(&self, object: &mut Object<'_>) {
        match *self {
            Self::Connect(result) => object.object("connect", result),
            Self::Subscribe(result) => object.object("subscribe", result),
            Self::Unsubscribe => object.object("unsubscribe", &Nothing),
            Self::Publish => object.object("publish", &Nothing),
            Self::Presence(clients) => object.object("presence", &PresenceResult(clients)),
            Self::PresenceStats(result) => object.object("presence_stats", &result),
            Self::History(result) => object.object("history", result),
            Self::Ping => object.object("ping", &Nothing),
            Self::Rpc(result) => object.object("rpc", &Wrapped(result)),
            Self::Refresh(ttl_seconds) => object.object("refresh", &Expiry(ttl_seconds)),
            Self::SubRefresh(ttl_seconds) => object.object("sub_refresh", &Expiry(ttl_seconds)),
            Self::Error(code) => object.object("error", &code),
        }
    }
}

impl WriteMembers for Publication {
    fn write(&self, object: &mut Object<'_>) {
        match self.data.as_json() {
            Some(json) => object.payload("data", json),
            None => object.base64("b64data", self.data.as_bytes()),
        }
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
    pub publications: &'a [Publication],
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
        if !self.publications.is_empty() {
            object.list("publications", self.publications);
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

/// Result of presence: the clients by their ids.
struct PresenceResult<'a>(&'a [Arc<ClientInfo>]);

impl WriteMembers for PresenceResult<'_> {
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

/// Result of `presence_stats`, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceStatsResult {
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

/// Result of history, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy)]
pub struct HistoryResult<'a> {
    /// In the order asked for.
    pub publications: &'a [Publication],
    /// The epoch of the positions.
    pub epoch: &'a str,
    /// The newest position of the room.
    pub offset: Seq,
}

impl WriteMembers for HistoryResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.list("publications", self.publications);
        object.string("epoch", self.epoch);
        object.number("offset", self.offset);
    }
}

/// The result of rpc is anything: it stands in a member of its own.
struct Wrapped<'a>(&'a dyn WriteMembers);

impl WriteMembers for Wrapped<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::Message;
    use crate::protocol::object::write_object;

    /// The text of a reply, checked to be one JSON object in one line.
    fn text(id: u32, reply: Reply<'_>) -> String {
        let mut out = Vec::new();
        Message::Reply(id, reply).write_json(&mut out);
        checked(out)
    }

    fn checked(out: Vec<u8>) -> String {
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
                    data: "\"payload\"".into(),
                    info: info.clone().map(Arc::new),
                    tags,
                    created_at_ms: 0,
                };
                let mut object = Vec::new();
                write_object(&mut object, &one);
                let (bytes, counted) = (object.len(), one.wire_bytes());
                assert!(bytes < counted && counted <= bytes + 128, "{bytes} bytes, {counted} counted");
            }
        }
    }

    #[test]
    fn connect() {
        assert_eq!(
            text(1, Reply::Connect(&PLAIN)),
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
            text(u32::MAX, Reply::Connect(&full)),
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
        let reply = |result: SubscribeResult<'_>| text(2, Reply::Subscribe(&result));
        let none = SubscribeResult::default();
        let kept = SubscribeResult { recoverable: true, positioned: true, epoch: "aXbYcZdW", ..none };
        let missed = [publication(9), publication(10)];
        let recovering = SubscribeResult { was_recovering: true, recovered: true, offset: 8, ..kept };
        for (result, wanted) in [
            (none, "{}"),
            (kept, r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW"}"#),
            (
                SubscribeResult { offset: 7, ..kept },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":7}"#,
            ),
            (
                SubscribeResult { publications: &missed, ..recovering },
                r#"{"recoverable":true,"positioned":true,"epoch":"aXbYcZdW","offset":8,"was_recovering":true,"recovered":true,"publications":[{"data":{"a":1},"offset":9},{"data":{"a":1},"offset":10}]}"#,
            ),
            (
                SubscribeResult { publications: &[], ..recovering },
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
        for (reply, wanted) in [
            (Reply::Unsubscribe, r#"{"id":5,"unsubscribe":{}}"#),
            (Reply::Publish, r#"{"id":5,"publish":{}}"#),
            (Reply::Ping, r#"{"id":5,"ping":{}}"#),
            (Reply::Refresh(None), r#"{"id":5,"refresh":{}}"#),
            (Reply::Refresh(Some(60)), r#"{"id":5,"refresh":{"expires":true,"ttl":60}}"#),
            (Reply::SubRefresh(None), r#"{"id":5,"sub_refresh":{}}"#),
            (Reply::SubRefresh(Some(9)), r#"{"id":5,"sub_refresh":{"expires":true,"ttl":9}}"#),
            (
                Reply::Rpc(&PresenceStatsResult::default()),
                r#"{"id":5,"rpc":{"data":{"num_clients":0,"num_users":0}}}"#,
            ),
        ] {
            assert_eq!(text(5, reply), wanted);
        }
    }

    #[test]
    fn presence() {
        assert_eq!(text(6, Reply::Presence(&[])), r#"{"id":6,"presence":{"presence":{}}}"#);
        let shown = ClientInfo {
            conn_info: Some(r#"{"name":"A"}"#.into()),
            chan_info: Some("1".into()),
            ..info("42", "c1")
        };
        assert_eq!(
            text(6, Reply::Presence(&[Arc::new(shown), Arc::new(info("", "c2"))])),
            concat!(
                r#"{"id":6,"presence":{"presence":{"#,
                r#""c1":{"user":"42","client":"c1","conn_info":{"name":"A"},"chan_info":1},"#,
                r#""c2":{"user":"","client":"c2"}}}}"#
            )
        );
        let stats = PresenceStatsResult { num_clients: 2, num_users: 1 };
        assert_eq!(
            text(6, Reply::PresenceStats(stats)),
            r#"{"id":6,"presence_stats":{"num_clients":2,"num_users":1}}"#
        );
    }

    #[test]
    fn history() {
        let reply = |publications: &[Publication], epoch, offset| {
            text(4, Reply::History(&HistoryResult { publications, epoch, offset }))
        };
        assert_eq!(reply(&[], "", 0), r#"{"id":4,"history":{"publications":[],"epoch":"","offset":0}}"#);
        let page = [publication(8)];
        assert_eq!(
            reply(&page, "aXbYcZdW", 9_007_199_254_740_992),
            r#"{"id":4,"history":{"publications":[{"data":{"a":1},"offset":8}],"epoch":"aXbYcZdW","offset":9007199254740992}}"#
        );
    }

    #[test]
    fn publications() {
        let object = |publication: &Publication| {
            let mut out = Vec::new();
            write_object(&mut out, publication);
            checked(out)
        };
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
            r#"{"code":400,"message":"binary payloads: connect with protobuf"}"#,
        ]) {
            assert_eq!(text(9, Reply::Error(*code)), format!(r#"{{"id":9,"error":{wanted}}}"#));
        }
        assert_eq!(ErrorCode::ALL.len(), 13);
    }
}
