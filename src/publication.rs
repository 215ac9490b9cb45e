//! A publication, its sender, and the time for which it may be read.
//!
//! Plain shared data without any encoding: the store writes it, the engine carries it, the
//! protocol turns it into JSON. Owns nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{Channel, Seq};
use crate::json;

/// More than the names, the signs and the number that stand around the texts of a publication as JSON.
const WIRE_NAMES_BYTES: usize = 128;

/// The content of a message, byte for byte as it was published: JSON that every client can read, or, in a
/// namespace of `payload = "binary"`, any bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Form);

#[derive(Clone, PartialEq, Eq)]
enum Form {
    Json(Arc<str>),
    Binary(Arc<[u8]>),
}

impl Content {
    /// Bytes that are no JSON.
    pub(crate) fn binary(bytes: &[u8]) -> Self {
        Self(Form::Binary(bytes.into()))
    }

    /// The JSON text; `None` for other bytes.
    #[must_use]
    pub fn as_json(&self) -> Option<&str> {
        match &self.0 {
            Form::Json(text) => Some(text),
            Form::Binary(_) => None,
        }
    }

    /// The bytes, which of JSON are its text in UTF-8.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Json(text) => text.as_bytes(),
            Form::Binary(bytes) => bytes,
        }
    }

    /// The bytes that are no JSON; `None` for JSON.
    pub(crate) fn as_binary(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Json(_) => None,
            Form::Binary(bytes) => Some(bytes),
        }
    }
}

/// JSON text that was checked; nothing is published through this.
impl<T: Into<Arc<str>>> From<T> for Content {
    fn from(json: T) -> Self {
        Self(Form::Json(json.into()))
    }
}

/// The JSON text; other bytes with escapes in the place of what is no ASCII.
impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Json(text) => f.write_str(text),
            Form::Binary(bytes) => bytes.escape_ascii().fmt(f),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Json(text) => fmt::Debug::fmt(text, f),
            Form::Binary(bytes) => fmt::Debug::fmt(bytes, f),
        }
    }
}

/// The identity of a client, as other clients may see it (`ClientInfo` of the protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id from the token; empty for an anonymous user.
    pub user: Arc<str>,
    /// Id of the connection, unique over all connections ever.
    pub client: Arc<str>,
    /// JSON the backend attached to the connection (token claim `info`), compact.
    pub conn_info: Option<Arc<str>>,
    /// JSON the backend attached to the subscription, compact.
    pub chan_info: Option<Arc<str>>,
}

/// One message of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The room.
    pub channel: Channel,
    /// Position in the room; 0 for a publication of a room that keeps nothing.
    pub seq: Seq,
    /// The payload.
    pub data: Content,
    /// The sender; `None` when the server API published.
    pub info: Option<Arc<ClientInfo>>,
    /// String-to-string JSON object from the server API, compact.
    pub tags: Option<Arc<str>>,
    /// Time it was accepted, milliseconds since 1970 UTC.
    pub created_at_ms: i64,
}

/// Bytes of a message that limits count: the payload, its tags, and what the backend attached to its sender.
pub(crate) fn content_bytes(data: &Content, tags: Option<&str>, info: Option<&ClientInfo>) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    let attached = info.map_or(0, |info| text(&info.conn_info) + text(&info.chan_info));
    data.as_bytes().len() + tags.map_or(0, str::len) + attached
}

impl Publication {
    /// The bytes it takes as JSON in a list or a push, or a few more; the name of the channel is not counted.
    pub(crate) fn wire_bytes(&self) -> usize {
        let info = self.info.as_deref();
        let ids = info.map_or(0, |info| json::string_bytes(&info.user) + json::string_bytes(&info.client));
        // As JSON, bytes become text of four letters for three of them.
        let base64 = self.data.as_binary().map_or(0, |bytes| bytes.len() / 2);
        WIRE_NAMES_BYTES + ids + base64 + content_bytes(&self.data, self.tags.as_deref(), info)
    }

    /// The memory it takes, near enough for a bound: its own and that of its texts, shared or not.
    pub(crate) fn memory_bytes(&self) -> usize {
        let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let info = self.info.as_ref().map_or(0, |info| {
            info.user.len() + info.client.len() + text(&info.conn_info) + text(&info.chan_info)
        });
        size_of::<Self>() + self.data.as_bytes().len() + text(&self.tags) + info
    }
}

/// Which messages of a room can be read. What is outside is invisible at once, whether or not its
/// rows are already gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The newest so many; 0 = all.
    pub size: u64,
    /// Those not older than this; `None` = all.
    pub ttl: Option<Duration>,
}

impl Retention {
    /// True when nothing ever leaves.
    #[must_use]
    pub fn keeps_all(self) -> bool {
        self.size == 0 && self.ttl.is_none()
    }

    /// True when a message can be read, with the room at `head` and the time `now_ms`.
    #[must_use]
    pub fn keeps(self, publication: &Publication, head: Seq, now_ms: i64) -> bool {
        publication.seq > self.last_outside(head)
            && publication.created_at_ms > self.latest_outside_ms(now_ms)
    }

    /// The newest seq that is outside by count.
    #[must_use]
    pub fn last_outside(self, head: Seq) -> Seq {
        if self.size == 0 { 0 } else { head.saturating_sub(self.size) }
    }

    /// The latest time that is outside by age, milliseconds since 1970 UTC.
    #[must_use]
    pub fn latest_outside_ms(self, now_ms: i64) -> i64 {
        let age = |ttl: Duration| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        self.ttl.map_or(i64::MIN, |ttl| now_ms.saturating_sub(age(ttl)))
    }
}
