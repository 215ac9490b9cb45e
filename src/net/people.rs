//! Contacts, members and read positions: what the rpc methods and the HTTP API share.

use super::services::Services;
use crate::ids::{Channel, Seq};
use crate::protocol::api::results::{Contact, ReadResult, UnreadRoom};
use crate::protocol::code::ErrorCode;
use crate::store::StoreError;

impl From<StoreError> for ErrorCode {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Internal,
            StoreError::UnknownRoom => Self::UnknownChannel,
            StoreError::NotMember => Self::PermissionDenied,
            StoreError::RoomExists => Self::RoomExists,
            StoreError::DirectRoom | StoreError::BadUser | StoreError::OwnContact => Self::BadRequest,
        }
    }
}

impl Services {
    /// Makes two users contacts and gives the room of the two, which is not activated by it.
    pub(super) fn add_contact(&self, user: &str, contact: &str) -> Result<Contact, StoreError> {
        let room = self.store.add_contact(user, contact)?;
        Ok(Contact { user: contact.into(), channel: room.channel })
    }

    /// Takes a user out of another's list. Their room and its messages stay.
    pub(super) fn remove_contact(&self, user: &str, contact: &str) -> Result<(), StoreError> {
        self.store.remove_contact(user, contact)?;
        Ok(())
    }

    pub(super) fn contacts(&self, user: &str) -> Result<Vec<Contact>, StoreError> {
        let contacts = self.store.contacts(user)?.into_iter();
        Ok(contacts.map(|contact| Contact { user: contact.user.into(), channel: contact.channel }).collect())
    }

    /// Moves a user's read position forward and tells what is left.
    pub(super) fn set_read(&self, channel: &Channel, user: &str, seq: Seq) -> Result<ReadResult, StoreError> {
        let position = self.store.set_last_read(channel, user, seq)?;
        Ok(ReadResult { last_read: position.last_read, unread: position.count() })
    }

    pub(super) fn unread(&self, user: &str) -> Result<Vec<UnreadRoom>, StoreError> {
        let rooms = self.store.unread(user)?.into_iter();
        Ok(rooms
            .map(|room| UnreadRoom { channel: room.channel, head: room.head, last_read: room.last_read })
            .collect())
    }
}
