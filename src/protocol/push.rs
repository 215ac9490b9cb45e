//! Pushes: what the server tells a client unasked, and their members in JSON.
//!
//! Nothing here depends on who receives it, so a push is encoded once for all listeners of one format.

use super::code::UnsubscribeCode;
use super::object::{Object, WriteMembers};
use crate::ids::Channel;
use crate::publication::{ClientInfo, Publication};

/// News of a channel, for its listeners.
#[derive(Debug, Clone, Copy)]
pub enum Push<'a> {
    /// A message of its channel.
    Publication(&'a Publication),
    /// A client began to listen.
    Join(&'a Channel, &'a ClientInfo),
    /// A client stopped listening.
    Leave(&'a Channel, &'a ClientInfo),
    /// The server ended the client's subscription.
    Unsubscribe(&'a Channel, UnsubscribeCode),
}

impl Push<'_> {
    /// The channel it is about.
    pub(super) fn channel(&self) -> &Channel {
        match self {
            Self::Publication(publication) => &publication.channel,
            Self::Join(channel, _) | Self::Leave(channel, _) | Self::Unsubscribe(channel, _) => channel,
        }
    }
}

impl WriteMembers for Push<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.string("channel", self.channel().as_str());
        match *self {
            Self::Publication(publication) => object.object("pub", publication),
            Self::Join(_, info) => object.object("join", &Info(info)),
            Self::Leave(_, info) => object.object("leave", &Info(info)),
            Self::Unsubscribe(_, code) => object.object("unsubscribe", &code),
        }
    }
}

struct Info<'a>(&'a ClientInfo);

impl WriteMembers for Info<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.object("info", self.0);
    }
}

impl WriteMembers for UnsubscribeCode {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.number()));
        object.string("reason", self.as_str());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::message::Message;

    fn text(push: Push<'_>) -> String {
        let mut out = Vec::new();
        Message::Push(push).write_json(&mut out);
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
        let push = |publication: &Publication| text(Push::Publication(publication));
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
            text(Push::Join(&channel(), &full)),
            r#"{"push":{"channel":"news","join":{"info":{"user":"42","client":"1bc9","conn_info":{"name":"A"},"chan_info":{"role":"x"}}}}}"#
        );
        assert_eq!(
            text(Push::Leave(&channel(), &info())),
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
            assert_eq!(text(Push::Unsubscribe(&channel(), *code)), wanted);
        }
        assert_eq!(UnsubscribeCode::ALL.len(), 3);
    }
}
