//! Parameters of the API methods and of the rpc methods. Unknown members are ignored.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::value::RawValue;

use super::page;
use crate::ids::{Channel, Seq};
use crate::limits::BROADCAST_CHANNELS_MAX;
use crate::protocol::code::Close;
use crate::protocol::fields;
use crate::publication::Content;

/// API `publish`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublishParams {
    /// The channel.
    pub channel: Channel,
    /// The message.
    pub message: ApiMessage,
}

/// API `broadcast`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BroadcastParams {
    /// The channels; at least one.
    pub channels: Vec<Channel>,
    /// The message for each of them.
    pub message: ApiMessage,
}

/// A message from the operator's backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiMessage {
    /// The payload.
    pub data: Content,
    /// String-to-string object, compact JSON.
    pub tags: Option<Arc<str>>,
    /// A second publish with the same key in the same channel is the first one.
    pub idempotency_key: Option<Arc<str>>,
    /// Pass the message on without keeping it.
    pub skip_history: bool,
}

/// The members that `publish` and `broadcast` share with their different channel members.
#[derive(Deserialize)]
struct PublishWire {
    #[serde(default, deserialize_with = "fields::optional_channel")]
    channel: Option<Channel>,
    #[serde(default, deserialize_with = "fields::channels")]
    channels: Vec<Channel>,
    #[serde(default, deserialize_with = "fields::payload")]
    data: Option<Arc<str>>,
    #[serde(default, deserialize_with = "fields::text")]
    b64data: Option<String>,
    #[serde(default, deserialize_with = "tags")]
    tags: Option<Arc<str>>,
    #[serde(default, deserialize_with = "fields::publish_key")]
    idempotency_key: Option<Arc<str>>,
    #[serde(default, deserialize_with = "fields::or_default")]
    skip_history: bool,
}

impl PublishWire {
    fn message<E: Error>(self) -> Result<ApiMessage, E> {
        let data = match self.b64data {
            Some(text) => of_base64(&text).map_err(E::custom)?,
            None => self.data.ok_or_else(|| E::missing_field("data"))?.into(),
        };
        let Self { tags, idempotency_key, skip_history, .. } = self;
        Ok(ApiMessage { data, tags, idempotency_key, skip_history })
    }
}

impl<'de> Deserialize<'de> for PublishParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut wire = PublishWire::deserialize(deserializer)?;
        let channel = wire.channel.take().ok_or_else(|| D::Error::missing_field("channel"))?;
        Ok(Self { channel, message: wire.message()? })
    }
}

impl<'de> Deserialize<'de> for BroadcastParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut wire = PublishWire::deserialize(deserializer)?;
        let channels = std::mem::take(&mut wire.channels);
        if channels.is_empty() {
            return Err(D::Error::missing_field("channels"));
        }
        if channels.len() > BROADCAST_CHANNELS_MAX {
            let wrong = format!("a broadcast has at most {BROADCAST_CHANNELS_MAX} channels");
            return Err(D::Error::custom(wrong));
        }
        Ok(Self { channels, message: wire.message()? })
    }
}

/// API `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct UnsubscribeParams {
    /// Whose subscriptions; empty: those of anonymous users.
    #[serde(deserialize_with = "fields::any_user")]
    pub user: Arc<str>,
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// Only this connection.
    #[serde(default, deserialize_with = "fields::text")]
    pub client: Option<String>,
}

/// API `disconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DisconnectParams {
    /// Whose connections; empty: those of anonymous users.
    #[serde(deserialize_with = "fields::any_user")]
    pub user: Arc<str>,
    /// Only this connection.
    #[serde(default, deserialize_with = "fields::text")]
    pub client: Option<String>,
    /// Connections that stay.
    #[serde(default, deserialize_with = "fields::or_default")]
    pub whitelist: Vec<String>,
    /// Code and reason of the close frame, if not [`CloseCode::ForceDisconnect`](crate::protocol::code::CloseCode).
    #[serde(default, deserialize_with = "close")]
    pub disconnect: Option<Close>,
}

/// API `channels`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ChannelsParams {
    /// Only channels whose names match; `*` stands for any run of characters.
    #[serde(default, deserialize_with = "fields::text")]
    pub pattern: Option<String>,
    /// The `next` of the page before.
    #[serde(default, deserialize_with = "fields::text")]
    pub after: Option<String>,
    /// Most entries wanted.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    pub limit: usize,
}

/// API `presence` and `room_info`; rpc `presence.list`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ChannelPageParams {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// The `next` of the page before.
    #[serde(default, deserialize_with = "fields::text")]
    pub after: Option<String>,
    /// Most entries wanted.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    pub limit: usize,
}

/// API `contacts`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ContactsParams {
    /// Whose contact list.
    #[serde(deserialize_with = "fields::user")]
    pub user: Arc<str>,
    /// The `next` of the page before.
    #[serde(default, deserialize_with = "fields::text")]
    pub after: Option<String>,
    /// Most entries wanted.
    #[serde(default = "page::default_limit", deserialize_with = "page::limit")]
    pub limit: usize,
}

/// API methods without parameters, such as `info`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct NoParams {}

/// API `contact_add` and `contact_remove`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ContactParams {
    /// Whose contact list.
    #[serde(deserialize_with = "fields::user")]
    pub user: Arc<str>,
    /// The other user.
    #[serde(deserialize_with = "fields::user")]
    pub contact: Arc<str>,
}

/// rpc `contacts.add` and `contacts.remove`, where it names the other user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct UserParams {
    /// The user.
    #[serde(deserialize_with = "fields::user")]
    pub user: Arc<str>,
}

/// The kind of a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NewRoomKind {
    /// For its members.
    Group,
    /// For everybody the namespace admits.
    #[default]
    Public,
}

/// API `room_create`. Rooms of two contacts come into being with the contact.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RoomCreateParams {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// Kind of the room; `None`: a group if members are given, else public.
    #[serde(default)]
    kind: Option<NewRoomKind>,
    /// Its first members.
    #[serde(default, deserialize_with = "fields::users")]
    pub members: Vec<Arc<str>>,
}

impl RoomCreateParams {
    /// Kind of the room: as given, else a group if there are members.
    pub(crate) fn kind(&self) -> NewRoomKind {
        let implied = if self.members.is_empty() { NewRoomKind::Public } else { NewRoomKind::Group };
        self.kind.unwrap_or(implied)
    }
}

/// rpc `publish`: a publish that may be sent again without being published twice.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RpcPublishParams {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// The payload, JSON.
    #[serde(deserialize_with = "fields::required_payload")]
    pub data: Content,
    /// The key of this message, chosen by the client.
    #[serde(default, deserialize_with = "fields::publish_key")]
    pub key: Option<Arc<str>>,
}

/// rpc `rooms.read`: how far the user has read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RoomsReadParams {
    /// The channel.
    #[serde(deserialize_with = "fields::channel")]
    pub channel: Channel,
    /// The last position read.
    #[serde(deserialize_with = "fields::offset")]
    pub seq: Seq,
}

/// The `disconnect` member of [`DisconnectParams`].
#[derive(Deserialize)]
struct CloseWire {
    code: u16,
    reason: String,
}

fn close<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Close>, D::Error> {
    let wire: Option<CloseWire> = fields::object(deserializer)?;
    wire.map(|wire| Close::custom(wire.code, wire.reason).map_err(Error::custom)).transpose()
}

/// Reads tags as they are, having checked that they map strings to strings.
fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    let Some(raw) = Option::<&'de RawValue>::deserialize(deserializer)? else { return Ok(None) };
    let parsed: BTreeMap<String, String> = serde_json::from_str(raw.get()).map_err(Error::custom)?;
    if parsed.is_empty() {
        return Ok(None);
    }
    fields::compact(raw).map(Some).map_err(Error::custom)
}

fn of_base64(text: &str) -> Result<Content, &'static str> {
    let bytes = STANDARD.decode(text).map_err(|_| "b64data is no base64")?;
    Ok(fields::payload_of_bytes(&bytes))
}
