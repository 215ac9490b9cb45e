//! Pushes: what the server tells a client unasked, appended to a buffer as one JSON object each.
//!
//! Nothing here depends on who receives it, so a push is encoded once for all listeners.

use super::code::UnsubscribeCode;
use super::object::{Object, WriteMembers};
use crate::ids::Channel;
use crate::publication::{ClientInfo, Publication};

/// The ping of the server.
pub(crate) const PING: &[u8] = b"{}";

/// A publication, to the listeners of its channel.
pub fn publication(out: &mut Vec<u8>, publication: &Publication) {
    channel_push(out, &publication.channel, "pub", publication);
}

/// A client began to listen.
pub(crate) fn join(out: &mut Vec<u8>, channel: &Channel, info: &ClientInfo) {
    channel_push(out, channel, "join", &Info(info));
}

/// A client stopped listening.
pub(crate) fn leave(out: &mut Vec<u8>, channel: &Channel, info: &ClientInfo) {
    channel_push(out, channel, "leave", &Info(info));
}

/// The server ended the client's subscription.
pub(crate) fn unsubscribe(out: &mut Vec<u8>, channel: &Channel, code: UnsubscribeCode) {
    channel_push(
        out,
        channel,
        "unsubscribe",
        &UnsubscribeBody { code: code.number(), reason: code.as_str() },
    );
}

struct Info<'a>(&'a ClientInfo);

impl WriteMembers for Info<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("info", self.0);
    }
}

struct UnsubscribeBody<'a> {
    code: u16,
    reason: &'a str,
}

impl WriteMembers for UnsubscribeBody<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.code));
        object.string("reason", self.reason);
    }
}

fn channel_push(out: &mut Vec<u8>, channel: &Channel, kind: &'static str, body: &impl WriteMembers) {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn text(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object(), "{text}");
        text
    }

    fn channel() -> Channel {
        Channel::new("news").unwrap()
    }

    fn info() -> ClientInfo {
        ClientInfo { user: "42".into(), client: "1bc9".into(), conn_info: None, chan_info: None }
    }

    #[test]
    fn publications_are_pushed() {
        let mut publication = Publication {
            channel: channel(),
            seq: 8,
            data: r#"{"a":1}"#.into(),
            info: Some(Arc::new(info())),
            tags: Some(r#"{"k":"v"}"#.into()),
            created_at_ms: 1,
        };
        let push = |publication: &Publication| text(|out| super::publication(out, publication));
        assert_eq!(
            push(&publication),
            r#"{"push":{"channel":"news","pub":{"data":{"a":1},"info":{"user":"42","client":"1bc9"},"offset":8,"tags":{"k":"v"}}}}"#
        );
        publication.info = None;
        publication.tags = None;
        publication.seq = 0;
        publication.channel = Channel::new("a\"\\").unwrap();
        assert_eq!(push(&publication), r#"{"push":{"channel":"a\"\\","pub":{"data":{"a":1}}}}"#);
    }

    #[test]
    fn joins_and_leaves_are_pushed() {
        let full = ClientInfo {
            conn_info: Some(r#"{"name":"A"}"#.into()),
            chan_info: Some(r#"{"role":"x"}"#.into()),
            ..info()
        };
        assert_eq!(
            text(|out| join(out, &channel(), &full)),
            r#"{"push":{"channel":"news","join":{"info":{"user":"42","client":"1bc9","conn_info":{"name":"A"},"chan_info":{"role":"x"}}}}}"#
        );
        assert_eq!(
            text(|out| leave(out, &channel(), &info())),
            r#"{"push":{"channel":"news","leave":{"info":{"user":"42","client":"1bc9"}}}}"#
        );
    }

    #[test]
    fn every_unsubscribe_is_pushed() {
        for (code, wanted) in UnsubscribeCode::ALL.iter().zip([
            r#"{"code":2000,"reason":"server unsubscribe"}"#,
            r#"{"code":2500,"reason":"insufficient state"}"#,
            r#"{"code":2501,"reason":"subscription expired"}"#,
        ]) {
            let wanted = format!(r#"{{"push":{{"channel":"news","unsubscribe":{wanted}}}}}"#);
            assert_eq!(text(|out| unsubscribe(out, &channel(), *code)), wanted);
        }
        assert_eq!(UnsubscribeCode::ALL.len(), 3);
    }
}
