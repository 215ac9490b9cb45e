//! What a program publishes, and in whose name: values that only checks make.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::clients;
use super::publish::Draft;
use crate::ids::Channel;
use crate::json;
use crate::limits::{INFO_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::protocol::api;
use crate::publication::ClientInfo;

/// JSON that every client can read, delivered as it was written. Cloning is a reference count.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload(Arc<str>);

/// A text or value that cannot be a [`Payload`], a [`User`] or the tag of a [`Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(Cow<'static, str>);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl Payload {
    /// Checks a text, which is JSON other than `null`.
    ///
    /// # Errors
    /// [`Unfit`]: it is no JSON, or JSON that some client could not read.
    pub fn new(json: &str) -> Result<Self, Unfit> {
        api::payload(json).map(Self).map_err(|bad| Unfit(bad.to_string().into()))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// [`Unfit`]: it cannot be written, or it is `null`.
    pub fn of(value: &impl Serialize) -> Result<Self, Unfit> {
        let json = serde_json::to_string(value).map_err(|error| Unfit(error.to_string().into()))?;
        Self::new(&json)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Payload {
    type Err = Unfit;

    fn from_str(json: &str) -> Result<Self, Unfit> {
        Self::new(json)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Somebody in whose name a program publishes or listens: a user id, and a client of its own among those of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(Arc<ClientInfo>);

impl User {
    /// A user by the id that tokens have, at most 128 bytes without control characters.
    ///
    /// # Errors
    /// [`Unfit`]: no user can have this id.
    pub fn new(id: &str) -> Result<Self, Unfit> {
        if id.is_empty() || id.len() > USER_ID_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(Unfit("a user id is empty, too long, or contains a control character".into()));
        }
        Ok(Self(Arc::new(clients::new_client(id.into(), None))))
    }

    /// With information for others to see, as the claim `info` of a token.
    ///
    /// # Errors
    /// [`Unfit`]: it is too large.
    pub fn with_info(self, info: Payload) -> Result<Self, Unfit> {
        let info = json::compact(&info.0).map_err(|unfit| Unfit(unfit.to_string().into()))?;
        if info.len() > INFO_BYTES_MAX {
            return Err(Unfit("the information about a user is too large".into()));
        }
        Ok(Self(Arc::new(ClientInfo { conn_info: Some(info), ..(*self.0).clone() })))
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.user
    }

    pub(super) fn info(&self) -> &Arc<ClientInfo> {
        &self.0
    }
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    channel: Channel,
    data: Payload,
    sender: Option<User>,
    tags: BTreeMap<String, String>,
    key: Option<Arc<str>>,
}

impl Message {
    /// A message of nobody in particular, as one of the HTTP API is.
    #[must_use]
    pub fn new(channel: &Channel, data: Payload) -> Self {
        Self { channel: channel.clone(), data, sender: None, tags: BTreeMap::new(), key: None }
    }

    /// In the name of somebody.
    #[must_use]
    pub fn from(self, sender: &User) -> Self {
        Self { sender: Some(sender.clone()), ..self }
    }

    /// With a tag, beside those it has. Tags count to the size of the message.
    #[must_use]
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(name.into(), value.into());
        self
    }

    /// Published once: the same message of the same sender with the same key in the same room is not stored
    /// again, and another message with the key is refused.
    #[must_use]
    pub fn once(self, key: &str) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// The room.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn into_draft(self) -> Draft {
        let Self { channel, data, sender, tags, key } = self;
        let tags = match tags.is_empty() {
            true => None,
            // A map of texts has no way to fail.
            false => serde_json::to_string(&tags).ok().map(Arc::from),
        };
        let info = sender.map(|sender| sender.0);
        Draft { channel, data: data.0.into(), info, tags, key, skip_history: false }
    }
}
