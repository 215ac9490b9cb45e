//! Rows of the messages table, and their way from and to publications.

use std::sync::Arc;

use diesel::prelude::*;

use super::schema::messages;
use crate::ids::{Channel, Seq};
use crate::publication::{ClientInfo, Publication};

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// The room.
    pub channel: Channel,
    /// The room comes into being if it does not exist.
    pub auto_create: bool,
    /// The payload: compact JSON.
    pub data: Arc<str>,
    /// The sender; `None` for the server API.
    pub info: Option<Arc<ClientInfo>>,
    /// String-to-string JSON object.
    pub tags: Option<Arc<str>>,
    /// A second message with this key from this sender in this room is the first one.
    pub key: Option<Arc<str>>,
}

impl NewMessage {
    /// The user id of the sender; `None` for the server API.
    pub(super) fn sender(&self) -> Option<&str> {
        self.info.as_ref().map(|info| &*info.user)
    }

    /// What is wrong with it whatever the database; PostgreSQL's text holds no zero byte.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let texts = [Some(&*self.data), self.sender(), self.tags.as_deref(), self.key.as_deref()];
        let has_zero = texts.into_iter().flatten().any(|text| text.contains('\0'));
        has_zero.then_some("a text holds a zero byte")
    }

    /// The publication it becomes.
    pub(super) fn publication(&self, seq: Seq, created_at_ms: i64) -> Publication {
        Publication {
            channel: self.channel.clone(),
            seq,
            data: self.data.clone(),
            info: self.info.clone(),
            tags: self.tags.clone(),
            created_at_ms,
        }
    }
}

/// A row to be inserted.
#[derive(Debug, Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(super) struct NewRow<'a> {
    pub(super) room_id: i64,
    pub(super) seq: i64,
    pub(super) sender: Option<&'a str>,
    pub(super) client: Option<&'a str>,
    pub(super) conn_info: Option<&'a str>,
    pub(super) chan_info: Option<&'a str>,
    pub(super) data: &'a str,
    pub(super) tags: Option<&'a str>,
    pub(super) client_key: Option<&'a str>,
    pub(super) created_at: i64,
}

impl<'a> NewRow<'a> {
    pub(super) fn new(message: &'a NewMessage, room_id: i64, seq: i64, created_at: i64) -> Self {
        let info = message.info.as_deref();
        Self {
            room_id,
            seq,
            sender: info.map(|info| &*info.user),
            client: info.map(|info| &*info.client),
            conn_info: info.and_then(|info| info.conn_info.as_deref()),
            chan_info: info.and_then(|info| info.chan_info.as_deref()),
            data: &message.data,
            tags: message.tags.as_deref(),
            client_key: message.key.as_deref(),
            created_at,
        }
    }
}

/// A row as it is read.
#[derive(Debug, Queryable, Selectable)]
#[diesel(table_name = messages)]
pub(super) struct Row {
    seq: i64,
    sender: Option<String>,
    client: Option<String>,
    conn_info: Option<String>,
    chan_info: Option<String>,
    data: String,
    tags: Option<String>,
    created_at: i64,
}

impl Row {
    pub(super) fn publication(self, channel: &Channel) -> Publication {
        let text = |text: Option<String>| text.map(Arc::from);
        let info = self.sender.map(|sender| {
            Arc::new(ClientInfo {
                user: sender.into(),
                client: self.client.unwrap_or_default().into(),
                conn_info: text(self.conn_info),
                chan_info: text(self.chan_info),
            })
        });
        Publication {
            channel: channel.clone(),
            seq: Seq::try_from(self.seq).unwrap_or(0),
            data: self.data.into(),
            info,
            tags: text(self.tags),
            created_at_ms: self.created_at,
        }
    }
}
