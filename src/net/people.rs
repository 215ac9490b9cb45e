//! Contacts, members and read positions: what the rpc methods and the HTTP API share.

use super::services::Services;
use crate::ids::{Channel, Seq};
use crate::protocol::api::results::{Contact, ReadResult, UnreadRoom};
use crate::protocol::code::ErrorCode;
use crate::store::{ContactError, StoreError};

impl From<StoreError> for ErrorCode {
    /// Whatever the database suffers from, the client may try again.
    fn from(_: StoreError) -> Self {
        Self::Internal
    }
}

impl Services {
    /// Makes two users contacts and gives the room of the two, which is not activated by it.
    pub(super) fn add_contact(&self, user: &str, contact: &str) -> Result<Contact, ErrorCode> {
        match self.store.add_contact(user, contact) {
            Ok(room) => Ok(Contact { user: contact.into(), channel: room.channel }),
            Err(ContactError::Oneself) => Err(ErrorCode::BadRequest),
            Err(ContactError::Store(error)) => Err(error.into()),
        }
    }

    /// Takes a user out of another's list. Their room and its messages stay.
    pub(super) fn remove_contact(&self, user: &str, contact: &str) -> Result<(), ErrorCode> {
        self.store.remove_contact(user, contact)?;
        Ok(())
    }

    pub(super) fn contacts(&self, user: &str) -> Result<Vec<Contact>, ErrorCode> {
        let contacts = self.store.contacts(user)?.into_iter();
        Ok(contacts.map(|contact| Contact { user: contact.user, channel: contact.channel }).collect())
    }

    /// Moves a user's read position forward and tells what is left.
    pub(super) fn set_read(&self, channel: &Channel, user: &str, seq: Seq) -> Result<ReadResult, ErrorCode> {
        let position = self.store.set_last_read(channel, user, seq)?.ok_or(ErrorCode::UnknownChannel)?;
        let unread = position.head.saturating_sub(position.last_read);
        Ok(ReadResult { last_read: position.last_read, unread })
    }

    pub(super) fn unread(&self, user: &str) -> Result<Vec<UnreadRoom>, ErrorCode> {
        let rooms = self.store.unread(user)?.into_iter();
        Ok(rooms
            .map(|room| UnreadRoom { channel: room.channel, head: room.head, last_read: room.last_read })
            .collect())
    }
}
