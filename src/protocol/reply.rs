//! Replies to commands, appended to a buffer as one JSON object each.
//!
//! The result object is always there, even empty, because SDKs index it; members with a zero value
//! are left out unless SDKs need them.

use std::borrow::Borrow;

use super::code::ErrorCode;
use super::object::{Members, Object, write_object};
use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Publication};

/// Puts a line break between two messages that share a frame: call it before each of them.
pub fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b'\n');
    }
}

/// Publications encoded one after the other, for history and recovery.
///
/// Grows by [`PublicationList::push`], so that a page can be cut by its size in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationList {
    objects: Vec<u8>,
    count: usize,
}

impl PublicationList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { objects: Vec::new(), count: 0 }
    }

    /// Adds one more.
    pub fn push(&mut self, publication: &Publication) {
        if self.count > 0 {
            self.objects.push(b',');
        }
        self.count += 1;
        encode_publication_object(&mut self.objects, publication);
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// True when there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they take, the commas included.
    pub const fn bytes(&self) -> usize {
        self.objects.len()
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
pub fn encode_publication_object(out: &mut Vec<u8>, publication: &Publication) {
    write_object(out, publication);
}

impl Members for Publication {
    fn write(&self, object: &mut Object<'_>) {
        object.raw("data", &self.data);
        if let Some(info) = &self.info {
            object.object("info", &**info);
        }
        object.some_number("offset", self.seq);
        object.some_raw("tags", self.tags.as_deref());
    }
}

impl Members for ClientInfo {
    fn write(&self, object: &mut Object<'_>) {
        object.string("user", &self.user);
        object.string("client", &self.client);
        object.some_raw("conn_info", self.conn_info.as_deref());
        object.some_raw("chan_info", self.chan_info.as_deref());
    }
}

/// What a successful subscribe tells; also the state of a server-side subscription.
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
    /// What was missed, ascending.
    pub publications: Option<&'a PublicationList>,
    /// What the server sends along, compact JSON.
    pub data: Option<&'a str>,
}

impl Members for SubscribeResult<'_> {
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

/// What a successful connect tells.
#[derive(Debug, Clone, Copy)]
pub struct ConnectResult<'a> {
    /// Id of the connection.
    pub client: &'a str,
    /// Version of the server; never empty.
    pub version: &'a str,
    /// Seconds until the connection expires; `None`: never.
    pub ttl_seconds: Option<u32>,
    /// What the server sends along, compact JSON.
    pub data: Option<&'a str>,
    /// Server-side subscriptions.
    pub subs: &'a [(Channel, SubscribeResult<'a>)],
    /// Seconds between two pings of the server; 0: none come.
    pub ping_seconds: u32,
    /// Pings are to be answered.
    pub pong: bool,
}

impl Members for ConnectResult<'_> {
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

/// Members by channel name.
struct Subscriptions<'a>(&'a [(Channel, SubscribeResult<'a>)]);

impl Members for Subscriptions<'_> {
    fn write(&self, object: &mut Object<'_>) {
        for (channel, result) in self.0 {
            write_object(object.key(channel.as_str()), result);
        }
    }
}

/// An answer without members.
struct Nothing;

impl Members for Nothing {
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
pub fn unsubscribe(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "unsubscribe", &Nothing);
}

/// Reply to publish.
pub fn publish(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "publish", &Nothing);
}

/// Reply to a ping of the client.
pub fn ping(out: &mut Vec<u8>, id: u32) {
    reply(out, id, "ping", &Nothing);
}

/// Result of presence, in replies and in the HTTP API: the clients by their ids.
#[derive(Debug)]
pub struct PresenceResult<'a, C>(pub &'a [C]);

impl<C: Borrow<ClientInfo>> Members for PresenceResult<'_, C> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("presence", &Clients(self.0));
    }
}

struct Clients<'a, C>(&'a [C]);

impl<C: Borrow<ClientInfo>> Members for Clients<'_, C> {
    fn write(&self, object: &mut Object<'_>) {
        for info in self.0.iter().map(Borrow::borrow) {
            write_object(object.key(&info.client), info);
        }
    }
}

/// Reply to presence.
pub fn presence<C: Borrow<ClientInfo>>(out: &mut Vec<u8>, id: u32, clients: &[C]) {
    reply(out, id, "presence", &PresenceResult(clients));
}

/// Result of `presence_stats`, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PresenceStatsResult {
    /// Connections that listen.
    pub num_clients: u32,
    /// Distinct users among them; all anonymous ones are one.
    pub num_users: u32,
}

impl Members for PresenceStatsResult {
    fn write(&self, object: &mut Object<'_>) {
        object.number("num_clients", u64::from(self.num_clients));
        object.number("num_users", u64::from(self.num_users));
    }
}

/// Reply to `presence_stats`.
pub fn presence_stats(out: &mut Vec<u8>, id: u32, result: PresenceStatsResult) {
    reply(out, id, "presence_stats", &result);
}

/// Result of history, in replies and in the HTTP API.
#[derive(Debug, Clone, Copy)]
pub struct HistoryResult<'a> {
    /// In the order asked for.
    pub publications: &'a PublicationList,
    /// The epoch of the positions.
    pub epoch: &'a str,
    /// The newest position of the room.
    pub offset: Seq,
}

impl Members for HistoryResult<'_> {
    fn write(&self, object: &mut Object<'_>) {
        self.publications.write(object.value("publications"));
        object.string("epoch", self.epoch);
        object.number("offset", self.offset);
    }
}

/// Reply to history.
pub fn history(out: &mut Vec<u8>, id: u32, result: &HistoryResult<'_>) {
    reply(out, id, "history", result);
}

/// Reply to rpc; `data` is compact JSON.
pub fn rpc(out: &mut Vec<u8>, id: u32, data: Option<&str>) {
    reply(out, id, "rpc", &Data(data));
}

/// Reply to rpc whose data is a result of this server, see [`super::api`].
pub fn rpc_result(out: &mut Vec<u8>, id: u32, result: &impl Members) {
    reply(out, id, "rpc", &Wrapped(result));
}

struct Data<'a>(Option<&'a str>);

impl Members for Data<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.some_raw("data", self.0);
    }
}

struct Wrapped<'a, M>(&'a M);

impl<M: Members> Members for Wrapped<'_, M> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("data", self.0);
    }
}

/// When something expires, in seconds; the answer to both kinds of refresh.
pub(super) struct Expiry(pub(super) Option<u32>);

impl Members for Expiry {
    fn write(&self, object: &mut Object<'_>) {
        expiry(object, self.0);
    }
}

/// Reply to refresh, with the seconds until the connection expires.
pub fn refresh(out: &mut Vec<u8>, id: u32, ttl_seconds: Option<u32>) {
    reply(out, id, "refresh", &Expiry(ttl_seconds));
}

/// Reply to `sub_refresh`, with the seconds until the subscription expires.
pub fn sub_refresh(out: &mut Vec<u8>, id: u32, ttl_seconds: Option<u32>) {
    reply(out, id, "sub_refresh", &Expiry(ttl_seconds));
}

/// Reply of any command that failed.
pub fn error(out: &mut Vec<u8>, id: u32, code: ErrorCode) {
    reply(out, id, "error", &code);
}

impl Members for ErrorCode {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.number()));
        object.string("message", self.words());
        object.some_true("temporary", self.temporary());
    }
}

fn expiry(object: &mut Object<'_>, ttl_seconds: Option<u32>) {
    if let Some(ttl) = ttl_seconds {
        object.some_true("expires", true);
        object.number("ttl", u64::from(ttl));
    }
}

fn reply(out: &mut Vec<u8>, id: u32, method: &'static str, result: &impl Members) {
    let mut object = Object::begin(out);
    object.number("id", u64::from(id));
    object.object(method, result);
    object.end();
}
