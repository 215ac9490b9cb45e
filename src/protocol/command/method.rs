//! Commands, their methods and parameters.
//!
//! Values of these types are well formed; reading them checks names, positions and payloads.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use crate::ids::{Channel, Seq};
use crate::protocol::code::ErrorCode;
use crate::protocol::fields::{self, Fields};
use crate::publication::Content;

/// Flag bit of a subscribe: answer error 112 instead of a failed recovery.
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// One command of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Id that the reply repeats; 0 for commands without a reply ([`Method::Send`], [`Method::Pong`]).
    pub id: u32,
    /// Method and parameters.
    pub method: Method,
}

/// The method of a command, with its parameters.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Begin the session.
    Connect(ConnectRequest),
    /// A ping of the client; SDKs send none.
    Ping,
    /// Listen to a channel.
    Subscribe(SubscribeRequest),
    /// Stop listening.
    Unsubscribe(ChannelRequest),
    /// Say something.
    Publish(PublishRequest),
    /// Lists the listeners.
    Presence(ChannelRequest),
    /// Counts the listeners.
    PresenceStats(ChannelRequest),
    /// Read back.
    History(HistoryRequest),
    /// Call a method of the server.
    Rpc(RpcRequest),
    /// A message to the server that has no reply.
    Send(SendRequest),
    /// A new connection token.
    Refresh(RefreshRequest),
    /// A new subscription token.
    SubRefresh(SubRefreshRequest),
    /// `{}`: the answer to a ping of the server.
    Pong,
}

impl Method {
    /// The name on the wire, as metrics and logs want it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Ping => "ping",
            Self::Subscribe(_) => "subscribe",
            Self::Unsubscribe(_) => "unsubscribe",
            Self::Publish(_) => "publish",
            Self::Presence(_) => "presence",
            Self::PresenceStats(_) => "presence_stats",
            Self::History(_) => "history",
            Self::Rpc(_) => "rpc",
            Self::Send(_) => "send",
            Self::Refresh(_) => "refresh",
            Self::SubRefresh(_) => "sub_refresh",
            Self::Pong => "pong",
        }
    }

    /// Which method counts when a command names several: the lowest.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Connect(_) => 0,
            Self::Ping => 1,
            Self::Subscribe(_) => 2,
            Self::Unsubscribe(_) => 3,
            Self::Publish(_) => 4,
            Self::Presence(_) => 5,
            Self::PresenceStats(_) => 6,
            Self::History(_) => 7,
            Self::Rpc(_) => 8,
            Self::Send(_) => 9,
            Self::Refresh(_) => 10,
            Self::SubRefresh(_) => 11,
            Self::Pong => 12,
        }
    }
}

/// Parameters of connect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ConnectRequest {
    /// The connection token.
    #[serde(deserialize_with = "fields::text")]
    pub token: Option<String>,
    /// Data of the application, JSON.
    #[serde(deserialize_with = "fields::payload")]
    pub data: Option<Arc<str>>,
    /// Name of the client library, such as `js`.
    #[serde(deserialize_with = "fields::or_default")]
    pub name: String,
    /// Version of the application.
    #[serde(deserialize_with = "fields::or_default")]
    pub version: String,
    /// Server-side subscriptions of the previous connection, with the position each one reached.
    #[serde(deserialize_with = "recover_requests")]
    pub subs: Vec<(Channel, RecoverRequest)>,
}

impl ConnectRequest {
    /// The user id that the client gives itself in `data: {"user": …}`; empty when it gives none.
    /// Only a server without a secret believes it.
    ///
    /// # Errors
    /// [`ErrorCode::BadRequest`] when the id is not legal.
    pub fn named_user(&self) -> Result<Arc<str>, ErrorCode> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Introduction {
            #[serde(deserialize_with = "fields::any_user")]
            user: Arc<str>,
        }

        let Some(data) = self.data.as_deref().filter(|data| data.trim_start().starts_with('{')) else {
            return Ok(Arc::from(""));
        };
        let introduction: Introduction = serde_json::from_str(data).map_err(|_| ErrorCode::BadRequest)?;
        Ok(introduction.user)
    }
}

/// Position from which a server-side subscription continues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RecoverRequest {
    /// Missed publications are wanted.
    #[serde(deserialize_with = "fields::or_default")]
    pub recover: bool,
    /// The last position seen.
    #[serde(deserialize_with = "fields::offset")]
    pub offset: Seq,
    /// The epoch of that position; empty: any.
    #[serde(deserialize_with = "fields::or_default")]
    pub epoch: String,
}

/// Parameters of subscribe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SubscribeRequest {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// The subscription token.
    #[serde(default, deserialize_with = "fields::text")]
    pub token: Option<String>,
    /// Data of the application, JSON.
    #[serde(default, deserialize_with = "fields::payload")]
    pub data: Option<Arc<str>>,
    /// Missed publications are wanted.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub recover: bool,
    /// The last position seen.
    #[serde(default, deserialize_with = "fields::offset")]
    pub offset: Seq,
    /// The epoch of that position; empty: any.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub epoch: String,
    /// The client wants to be told its position.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub positioned: bool,
    /// The client wants to recover after a reconnect.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub recoverable: bool,
    /// The client wants join and leave pushes.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub join_leave: bool,
    /// Bit mask of offers.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub(in crate::protocol) flag: i64,
    /// Kind of subscription; 0 is the one with a stream of publications.
    #[serde(default, rename = "type", deserialize_with = "fields::or_default")]
    pub(in crate::protocol) kind: i64,
    /// A filter on the tags of publications was asked for.
    #[serde(default, rename = "tf", deserialize_with = "fields::is_present")]
    pub(in crate::protocol) tags_filter: bool,
}

impl SubscribeRequest {
    /// True when a failed recovery shall be answered with error 112.
    pub const fn rejects_unrecovered(&self) -> bool {
        self.flag & FLAG_REJECT_UNRECOVERED != 0
    }

    /// The error for a feature that is asked for and not supported.
    pub const fn unsupported(&self) -> Option<ErrorCode> {
        match self.kind {
            0 if self.tags_filter => Some(ErrorCode::BadRequest),
            0 => None,
            1..=3 => Some(ErrorCode::PermissionDenied),
            _ => Some(ErrorCode::NotAvailable),
        }
    }
}

/// Parameters of commands about a channel and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChannelRequest {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
}

/// Parameters of publish.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishRequest {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// The payload; never the JSON `null`.
    #[serde(deserialize_with = "fields::required_payload")]
    pub data: Content,
    /// Kind of channel; 0 is the one with a stream of publications.
    #[serde(default, rename = "type", deserialize_with = "fields::or_default")]
    pub(in crate::protocol) kind: i64,
}

impl PublishRequest {
    /// The error for a feature that is asked for and not supported.
    pub const fn unsupported(&self) -> Option<ErrorCode> {
        if self.kind == 0 { None } else { Some(ErrorCode::PermissionDenied) }
    }
}

/// A position in a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StreamPosition {
    /// The number of a publication.
    #[serde(deserialize_with = "fields::offset")]
    pub offset: Seq,
    /// The epoch it belongs to; empty: any.
    #[serde(deserialize_with = "fields::or_default")]
    pub epoch: String,
}

/// Parameters of history, in commands and in the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HistoryRequest {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// Most publications wanted; 0: only the position; negative: as many as the server gives.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub limit: i32,
    /// Begin after this position, or before it when `reverse`.
    #[serde(default, deserialize_with = "fields::object")]
    pub since: Option<StreamPosition>,
    /// The newest first.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub reverse: bool,
}

/// Parameters of rpc.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RpcRequest {
    /// The method; may be empty.
    #[serde(deserialize_with = "fields::or_default")]
    pub method: String,
    /// Its parameters; those of this server's methods are JSON.
    #[serde(deserialize_with = "fields::rpc_data")]
    pub data: Option<Content>,
}

/// Parameters of send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SendRequest {
    /// The message, JSON.
    #[serde(deserialize_with = "fields::payload")]
    pub data: Option<Arc<str>>,
}

/// Parameters of refresh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RefreshRequest {
    /// The new connection token.
    #[serde(deserialize_with = "fields::text")]
    pub token: Option<String>,
}

/// Parameters of `sub_refresh`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest {
    /// The channel; older Python clients leave it to the token to name it.
    #[serde(deserialize_with = "fields::optional_channel")]
    pub channel: Option<Channel>,
    /// The new subscription token.
    #[serde(deserialize_with = "fields::text")]
    pub token: Option<String>,
    /// Kind of refresh; 0 is that of a token.
    #[serde(rename = "type", deserialize_with = "fields::or_default")]
    pub(in crate::protocol) kind: i64,
}

impl SubRefreshRequest {
    /// The error for a feature that is asked for and not supported.
    pub const fn unsupported(&self) -> Option<ErrorCode> {
        if self.kind == 0 { None } else { Some(ErrorCode::NotAvailable) }
    }
}

fn recover_requests<'de, D>(deserializer: D) -> Result<Vec<(Channel, RecoverRequest)>, D::Error>
where
    D: Deserializer<'de>,
{
    struct ListVisitor;

    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<(Channel, RecoverRequest)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of channels")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some((name, request)) =
                map.next_entry::<fields::Name, Option<Fields<RecoverRequest>>>()?
            {
                list.push((name.0, request.map(|fields| fields.0).unwrap_or_default()));
            }
            Ok(list)
        }
    }

    deserializer.deserialize_any(ListVisitor)
}
