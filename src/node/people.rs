//! Contacts, read positions and unread messages of users.

use super::access::Caller;
use super::clients::Client;
use super::error::{AccessError, RequestError};
use super::handle::NodeHandle;
use crate::ids::{Channel, Seq};
use crate::protocol::api::page::{Page, PageParams, written_bytes};
use crate::protocol::api::results::{ContactResult, ReadResult, UnreadRoom};
use crate::store::RoomCursor;

impl NodeHandle {
    /// Makes two users contacts and returns the room of the two, which is not activated by it.
    ///
    /// # Errors
    /// [`RequestError::Store`]
    pub(crate) fn add_contact(&self, user: &str, contact: &str) -> Result<ContactResult, RequestError> {
        let room = self.store.add_contact(user, contact)?;
        Ok(ContactResult { user: contact.into(), channel: room.channel })
    }

    /// Takes a user out of another's list. Their room and its messages stay.
    ///
    /// # Errors
    /// [`RequestError::Store`]
    pub(crate) fn remove_contact(&self, user: &str, contact: &str) -> Result<(), RequestError> {
        self.store.remove_contact(user, contact)?;
        Ok(())
    }

    /// A page of a user's contacts.
    ///
    /// # Errors
    /// [`RequestError::Store`]
    pub(crate) fn contacts(
        &self,
        user: &str,
        page: &PageParams,
    ) -> Result<Page<ContactResult>, RequestError> {
        let after = page.after.as_deref().unwrap_or_default();
        let contacts = self.store.contacts(user, after, page.limit + 1)?.into_iter();
        let contacts =
            contacts.map(|contact| ContactResult { user: contact.user.into(), channel: contact.channel });
        let cursor = |contact: &ContactResult| contact.user.to_string();
        Ok(Page::cut(contacts.collect(), page.limit, written_bytes, cursor))
    }

    /// Moves the read position of the calling user forward and says what is left to read.
    ///
    /// # Errors
    /// [`RequestError`]
    pub(crate) fn set_read(
        &self,
        caller: Caller<'_>,
        channel: &Channel,
        seq: Seq,
    ) -> Result<ReadResult, RequestError> {
        let options = self.namespace(channel)?;
        self.check_audience(caller, channel, options.read_history)?;
        let position = self.store.set_last_read(channel, named_user(caller)?, seq)?;
        Ok(ReadResult { last_read: position.last_read, unread: position.count() })
    }

    /// A page of the rooms of a client's user with the position it has read up to. A room that only subscribers may
    /// read is among them while the client is subscribed; without such rooms a page is shorter.
    ///
    /// # Errors
    /// [`RequestError`]
    pub(crate) fn unread(
        &self,
        client: &Client,
        page: &PageParams,
    ) -> Result<Page<UnreadRoom>, RequestError> {
        let after = page.after.as_deref().map(str::parse).transpose();
        let after: Option<RoomCursor> = after.map_err(|_| RequestError::BadPosition)?;
        let rooms = self.store.unread(client.user(), after, page.limit + 1)?.into_iter();
        let rooms = rooms.map(|(room, place)| {
            let room = UnreadRoom { channel: room.channel, head: room.head, last_read: room.last_read };
            (room, place)
        });
        let bytes = |(room, _): &(UnreadRoom, RoomCursor)| written_bytes(room);
        let Page { entries, next } =
            Page::cut(rooms.collect(), page.limit, bytes, |(_, place)| place.to_string());
        let may_know = |channel: &Channel| !self.is_for_subscribers(channel) || client.is_subscribed(channel);
        let rooms = entries.into_iter().map(|(room, _)| room).filter(|room| may_know(&room.channel));
        Ok(Page { entries: rooms.collect(), next })
    }
}

/// The user a request is made for; the anonymous user and the operator read nothing.
fn named_user(caller: Caller<'_>) -> Result<&str, AccessError> {
    match caller {
        Caller::Client { user, .. } if !user.is_empty() => Ok(user),
        Caller::Client { .. } | Caller::Operator => Err(AccessError::Forbidden),
    }
}
