//! Pushes: what the server tells a client unasked, appended to a buffer as one JSON object each.
//!
//! Nothing here depends on who receives it, so a push is encoded once for all listeners.

use super::code::{Close, UnsubscribeCode};
use super::object::{Members, Object};
use super::reply::{Expiry, SubscribeResult};
use crate::ids::Channel;
use crate::publication::{ClientInfo, Publication};

/// The ping of the server.
pub const PING: &[u8] = b"{}";

/// A publication, to the listeners of its channel.
pub fn publication(out: &mut Vec<u8>, publication: &Publication) {
    channel_push(out, &publication.channel, "pub", publication);
}

/// A client began to listen.
pub fn join(out: &mut Vec<u8>, channel: &Channel, info: &ClientInfo) {
    channel_push(out, channel, "join", &Info(info));
}

/// A client stopped listening.
pub fn leave(out: &mut Vec<u8>, channel: &Channel, info: &ClientInfo) {
    channel_push(out, channel, "leave", &Info(info));
}

/// The server ended the client's subscription.
pub fn unsubscribe(out: &mut Vec<u8>, channel: &Channel, code: UnsubscribeCode) {
    channel_push(out, channel, "unsubscribe", &Reason { code: code.number(), reason: code.words() });
}

/// The server subscribed the client. Tells position, epoch and data; a new subscription recovers
/// nothing and does not expire.
pub fn subscribe(out: &mut Vec<u8>, channel: &Channel, result: &SubscribeResult<'_>) {
    channel_push(out, channel, "subscribe", &Fresh(result));
}

/// A message that belongs to no channel; `data` is compact JSON.
pub fn message(out: &mut Vec<u8>, data: &str) {
    push(out, |object| object.object("message", &Data(data)));
}

/// The server is about to close the connection. On WebSocket the close frame says the same.
pub fn disconnect(out: &mut Vec<u8>, close: &Close) {
    push(out, |object| {
        object.object("disconnect", &Reason { code: close.code(), reason: close.reason() });
    });
}

/// The server changed when the connection expires.
pub fn refresh(out: &mut Vec<u8>, ttl_seconds: Option<u32>) {
    push(out, |object| object.object("refresh", &Expiry(ttl_seconds)));
}

struct Info<'a>(&'a ClientInfo);

impl Members for Info<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("info", self.0);
    }
}

struct Reason<'a> {
    code: u16,
    reason: &'a str,
}

impl Members for Reason<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.code));
        object.string("reason", self.reason);
    }
}

struct Fresh<'a>(&'a SubscribeResult<'a>);

impl Members for Fresh<'_> {
    fn write(&self, object: &mut Object<'_>) {
        SubscribeResult {
            recoverable: self.0.recoverable,
            positioned: self.0.positioned,
            epoch: self.0.epoch,
            offset: self.0.offset,
            data: self.0.data,
            ..SubscribeResult::default()
        }
        .write(object);
    }
}

struct Data<'a>(&'a str);

impl Members for Data<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.raw("data", self.0);
    }
}

fn channel_push(out: &mut Vec<u8>, channel: &Channel, kind: &'static str, body: &impl Members) {
    push(out, |object| {
        object.string("channel", channel.as_str());
        object.object(kind, body);
    });
}

fn push(out: &mut Vec<u8>, body: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"{\"push\":");
    let mut object = Object::begin(out);
    body(&mut object);
    object.end();
    out.push(b'}');
}
