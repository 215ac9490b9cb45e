//! Messages to clients, as the types of the schema and as bytes behind their length.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::schema;
use crate::protocol::code::ErrorCode;
use crate::protocol::message::Message;
use crate::protocol::object::{WriteMembers, write_object};
use crate::protocol::push::Push;
use crate::protocol::reply::{ConnectResult, HistoryResult, Reply, SubscribeResult};
use crate::publication::{ClientInfo, Publication};

/// Appends the length of a message and the message.
pub(in crate::protocol) fn write(out: &mut Vec<u8>, message: &Message<'_>) {
    let reply = match *message {
        // By far the most; nothing else of a reply is looked at.
        Message::Push(push) => schema::Reply { push: Some(push.into()), ..Default::default() },
        Message::Reply(id, reply) => schema::Reply { id, ..reply.into() },
        Message::Ping => schema::Reply::default(),
    };
    let written = reply.encode_length_delimited(out);
    debug_assert!(written.is_ok(), "a vector takes as much as there is");
}

impl From<Push<'_>> for schema::Push {
    fn from(push: Push<'_>) -> Self {
        let channel = push.channel().as_str().to_owned();
        let of = |info: &ClientInfo| Some(schema::Presence { info: Some(info.into()) });
        match push {
            Push::Publication(publication) => {
                Self { channel, r#pub: Some(publication.into()), ..Default::default() }
            }
            Push::Join(_, info) => Self { channel, join: of(info), ..Default::default() },
            Push::Leave(_, info) => Self { channel, leave: of(info), ..Default::default() },
            Push::Unsubscribe(_, code) => {
                let (code, reason) = (code.number().into(), code.as_str().to_owned());
                Self {
                    channel,
                    unsubscribe: Some(schema::Unsubscribe { code, reason }),
                    ..Default::default()
                }
            }
        }
    }
}

impl From<&Publication> for schema::Publication {
    fn from(publication: &Publication) -> Self {
        Self {
            data: Bytes::copy_from_slice(publication.data.as_bytes()),
            info: publication.info.as_deref().map(Into::into),
            offset: publication.seq,
            tags: publication.tags.as_deref().map(tags).unwrap_or_default(),
        }
    }
}

impl From<&ClientInfo> for schema::ClientInfo {
    fn from(info: &ClientInfo) -> Self {
        Self {
            user: (*info.user).to_owned(),
            client: (*info.client).to_owned(),
            conn_info: some_bytes(info.conn_info.as_deref()),
            chan_info: some_bytes(info.chan_info.as_deref()),
        }
    }
}

impl From<Reply<'_>> for schema::Reply {
    fn from(reply: Reply<'_>) -> Self {
        let nothing = Some(schema::Nothing {});
        let mut told = Self::default();
        match reply {
            Reply::Connect(result) => told.connect = Some(result.into()),
            Reply::Subscribe(result) => told.subscribe = Some(result.into()),
            Reply::Unsubscribe => told.unsubscribe = nothing,
            Reply::Publish => told.publish = nothing,
            Reply::Presence(clients) => {
                let by_id = |info: &std::sync::Arc<ClientInfo>| ((*info.client).to_owned(), (&**info).into());
                told.presence =
                    Some(schema::PresenceResult { presence: clients.iter().map(by_id).collect() });
            }
            Reply::PresenceStats(stats) => {
                let (num_clients, num_users) = (stats.num_clients, stats.num_users);
                told.presence_stats = Some(schema::PresenceStatsResult { num_clients, num_users });
            }
            Reply::History(result) => told.history = Some(result.into()),
            Reply::Ping => told.ping = nothing,
            Reply::Rpc(result) => told.rpc = Some(schema::RpcResult { data: json(result) }),
            Reply::Refresh(ttl_seconds) => {
                let (expires, ttl) = expiry(ttl_seconds);
                told.refresh = Some(schema::RefreshResult { expires, ttl });
            }
            Reply::SubRefresh(ttl_seconds) => {
                let (expires, ttl) = expiry(ttl_seconds);
                told.sub_refresh = Some(schema::SubRefreshResult { expires, ttl });
            }
            Reply::Error(code) => told.error = Some(code.into()),
        }
        told
    }
}

impl From<&ConnectResult<'_>> for schema::ConnectResult {
    fn from(result: &ConnectResult<'_>) -> Self {
        let (expires, ttl) = expiry(result.ttl_seconds);
        let subs = result.subs.iter().map(|(channel, one)| (channel.as_str().to_owned(), one.into()));
        Self {
            client: result.client.to_owned(),
            version: result.version.to_owned(),
            expires,
            ttl,
            data: some_bytes(result.data),
            subs: subs.collect(),
            ping: result.ping_seconds,
            pong: result.pong,
        }
    }
}

impl From<&SubscribeResult<'_>> for schema::SubscribeResult {
    fn from(result: &SubscribeResult<'_>) -> Self {
        let (expires, ttl) = expiry(result.ttl_seconds);
        Self {
            expires,
            ttl,
            recoverable: result.recoverable,
            epoch: result.epoch.to_owned(),
            publications: result.publications.iter().map(Into::into).collect(),
            recovered: result.recovered,
            offset: result.offset,
            positioned: result.positioned,
            data: some_bytes(result.data),
            was_recovering: result.was_recovering,
        }
    }
}

impl From<&HistoryResult<'_>> for schema::HistoryResult {
    fn from(result: &HistoryResult<'_>) -> Self {
        Self {
            publications: result.publications.iter().map(Into::into).collect(),
            epoch: result.epoch.to_owned(),
            offset: result.offset,
        }
    }
}

impl From<ErrorCode> for schema::Error {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.number().into(), message: code.as_str().to_owned(), temporary: code.temporary() }
    }
}

/// A result of this server, which is JSON in every format.
fn json(result: &dyn WriteMembers) -> Bytes {
    let mut text = Vec::new();
    write_object(&mut text, result);
    text.into()
}

/// `expires` and `ttl`.
fn expiry(ttl_seconds: Option<u32>) -> (bool, u32) {
    (ttl_seconds.is_some(), ttl_seconds.unwrap_or_default())
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn some_bytes(text: Option<&str>) -> Bytes {
    text.map(bytes).unwrap_or_default()
}

/// The pairs of an object of strings; whoever made a publication has checked that it is one.
fn tags(object: &str) -> BTreeMap<String, String> {
    let pairs = serde_json::from_str(object);
    debug_assert!(pairs.is_ok(), "tags are strings: {object}");
    pairs.unwrap_or_default()
}
