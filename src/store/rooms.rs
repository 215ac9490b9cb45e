//! Rooms, their members and the contacts that make direct rooms: what is changed by requests, not
//! by messages. Each change is one transaction.

use crate::clock;
use crate::config::DIRECT_NAMESPACE;
use crate::ids::{Channel, Seq};
use crate::store::Store;
use crate::store::connection::Connection;
use crate::store::error::{Outage, StoreError};
use crate::store::models::contact::{self, Contact};
use crate::store::models::member::{self, Member, Role, RoomCursor, Unread};
use crate::store::models::room::{self, DirectRoom, NewRoom, Room, RoomKind};
use crate::store::models::user;

impl Store {
    /// The room of that channel, if it exists.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn room(&self, channel: &Channel) -> Result<Option<Room>, StoreError> {
        let channel = channel.clone();
        self.readers.read(move |connection| room::find(connection, &channel))
    }

    /// Number of the room's newest message; 0 when there is no such room.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn head(&self, channel: &Channel) -> Result<Seq, StoreError> {
        Ok(self.room(channel)?.map_or(0, |room| room.head))
    }

    /// Creates a room with its members.
    ///
    /// # Errors
    /// [`StoreError::RoomExists`], [`StoreError::BadUser`], [`StoreError::Unavailable`].
    pub fn create_room(
        &self,
        channel: &Channel,
        kind: RoomKind,
        members: &[(&str, Role)],
    ) -> Result<(), StoreError> {
        for (id, _) in members {
            user::check(id)?;
        }
        let members: Vec<(String, Role)> =
            members.iter().map(|(id, role)| ((*id).to_owned(), *role)).collect();
        let channel = channel.clone();
        // A room of two contacts has a key that only a contact gives it.
        if kind == RoomKind::Direct {
            return Err(StoreError::DirectRoom);
        }
        self.write(move |connection| {
            let now_ms = clock::unix_ms();
            let ids: Vec<&str> = members.iter().map(|(id, _)| &**id).collect();
            user::add(connection, &ids, now_ms)?;
            let new = NewRoom { name: channel.as_str(), kind, direct_key: None, now_ms };
            let room_id = room::create(connection, &new)?.ok_or(StoreError::RoomExists)?;
            for (id, role) in &members {
                member::add(connection, room_id, id, *role, now_ms)?;
            }
            Ok(())
        })
    }

    /// The role of a user in a room; `None` for strangers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn role(&self, channel: &Channel, user: &str) -> Result<Option<Role>, StoreError> {
        if user::check(user).is_err() {
            return Ok(None);
        }
        let (channel, user) = (channel.clone(), user.to_owned());
        self.readers.read(move |connection| member::role(connection, channel.as_str(), &user))
    }

    /// True when a user belongs to a room.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn is_member(&self, channel: &Channel, user: &str) -> Result<bool, StoreError> {
        Ok(self.role(channel, user)?.is_some_and(Role::is_member))
    }

    /// The first members of a room in the order of their ids, behind the user `after`, which may be empty.
    ///
    /// # Errors
    /// [`StoreError::BadUser`], [`StoreError::Unavailable`].
    pub fn members(&self, channel: &Channel, after: &str, limit: usize) -> Result<Vec<Member>, StoreError> {
        check_place(after)?;
        let (channel, after) = (channel.clone(), after.to_owned());
        self.readers
            .read(move |connection| member::of_room(connection, channel.as_str(), &after, limit as i64))
    }

    /// Adds a contact and, if the two have none yet, their direct room, which then also puts the
    /// user into the contact's list. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::OwnContact`], [`StoreError::BadUser`], [`StoreError::Unavailable`].
    pub fn add_contact(&self, user: &str, contact: &str) -> Result<DirectRoom, StoreError> {
        user::check(user)?;
        user::check(contact)?;
        if user == contact {
            return Err(StoreError::OwnContact);
        }
        let (user, contact) = (user.to_owned(), contact.to_owned());
        self.write(move |connection| add_contact(connection, &user, &contact))
    }

    /// Removes a contact from the user's list; the room and its messages stay. True when it was there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn remove_contact(&self, user: &str, contact: &str) -> Result<bool, StoreError> {
        if user::check(user).and(user::check(contact)).is_err() {
            return Ok(false);
        }
        let (user, contact) = (user.to_owned(), contact.to_owned());
        self.write(move |connection| Ok(contact::remove(connection, &user, &contact)?))
    }

    /// The first of the user's contacts in the order of their ids, behind the user `after`, which may be empty.
    ///
    /// # Errors
    /// [`StoreError::BadUser`], [`StoreError::Unavailable`].
    pub fn contacts(&self, user: &str, after: &str, limit: usize) -> Result<Vec<Contact>, StoreError> {
        if user::check(user).is_err() {
            return Ok(Vec::new());
        }
        check_place(after)?;
        let (user, after) = (user.to_owned(), after.to_owned());
        let rows =
            self.readers.read(move |connection| contact::of_user(connection, &user, &after, limit as i64))?;
        rows.into_iter()
            .map(|(user, name, since_ms)| Ok(Contact { user, channel: stored_channel(&name)?, since_ms }))
            .collect()
    }

    /// Moves a user's read position in a room forward to `seq`, at most to the head, never back, and
    /// tells where it is now. In a public room everybody has a position, in others members.
    ///
    /// # Errors
    /// [`StoreError::UnknownRoom`], [`StoreError::NotMember`], [`StoreError::BadUser`],
    /// [`StoreError::Unavailable`].
    pub fn set_last_read(&self, channel: &Channel, user: &str, seq: Seq) -> Result<Unread, StoreError> {
        user::check(user)?;
        let (channel, user) = (channel.clone(), user.to_owned());
        self.write(move |connection| {
            let (channel, user) = (&channel, &*user);
            let room = room::find(connection, channel)?.ok_or(StoreError::UnknownRoom)?;
            let seq = seq.min(room.head);
            let position = |last_read| {
                debug_assert!(last_read >= seq, "a read position never moves back");
                Unread { channel: channel.clone(), head: room.head, last_read }
            };
            if let Some(last_read) = member::set_last_read(connection, room.id, user, seq)? {
                return Ok(position(last_read));
            }
            if room.kind != RoomKind::Public {
                return Err(StoreError::NotMember);
            }
            let now_ms = clock::unix_ms();
            user::add(connection, &[user], now_ms)?;
            member::add(connection, room.id, user, Role::Reader, now_ms)?;
            let last_read = member::set_last_read(connection, room.id, user, seq)?;
            Ok(position(last_read.unwrap_or(0)))
        })
    }

    /// The first rooms in which the user is a member or has a read position, most recently active
    /// first, behind a place; and the place of each.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn unread(
        &self,
        user: &str,
        after: Option<RoomCursor>,
        limit: usize,
    ) -> Result<Vec<(Unread, RoomCursor)>, StoreError> {
        if user::check(user).is_err() {
            return Ok(Vec::new());
        }
        let after = after.unwrap_or(RoomCursor::START);
        let user = user.to_owned();
        let rows =
            self.readers.read(move |connection| member::rooms_of(connection, &user, after, limit as i64))?;
        rows.into_iter()
            .map(|(name, head, last_read, last_active_ms, room_id)| {
                let channel = stored_channel(&name)?;
                let unread = Unread { channel, head: head as Seq, last_read: last_read as Seq };
                Ok((unread, RoomCursor { last_active_ms, room_id }))
            })
            .collect()
    }
}

/// The direct room is found through its key, which is the same from both sides; the database lets
/// only one of two who create it at once do so and makes the other wait and find it.
fn add_contact(connection: &mut Connection, user: &str, contact: &str) -> Result<DirectRoom, StoreError> {
    let now_ms = clock::unix_ms();
    user::add(connection, &[user, contact], now_ms)?;
    let key = room::direct_key(user, contact);
    let name = format!("{DIRECT_NAMESPACE}:{}", uuid::Uuid::new_v4());
    let new = NewRoom { name: &name, kind: RoomKind::Direct, direct_key: Some(&key), now_ms };
    let created = room::create(connection, &new)?;
    let (room_id, name) = match created {
        Some(room_id) => {
            for member in [user, contact] {
                member::add(connection, room_id, member, Role::Member, now_ms)?;
            }
            contact::add(connection, contact, user, room_id, now_ms)?;
            (room_id, name)
        }
        None => room::by_direct_key(connection, &key)?,
    };
    contact::add(connection, user, contact, room_id, now_ms)?;
    Ok(DirectRoom { channel: stored_channel(&name)?, created: created.is_some() })
}

/// Checks a place in a list of users: a user, or nothing for the beginning.
fn check_place(after: &str) -> Result<(), StoreError> {
    if after.is_empty() { Ok(()) } else { user::check(after) }
}

/// A channel name out of the database, where other programs may have written it.
fn stored_channel(name: &str) -> Result<Channel, StoreError> {
    Channel::new(name)
        .map_err(|error| StoreError::Unavailable(Outage::in_part(format!("room name {name:?}: {error}"))))
}
