//! Contacts, and the direct room that two users get with the first contact.

use std::sync::Arc;

use diesel::prelude::*;
use uuid::Uuid;

use super::Store;
use super::connection::{Connection, Reader, on};
use super::error::{ContactError, StoreError};
use super::rooms::{RoomKind, add_member};
use super::schema::{contacts, rooms};
use crate::clock;
use crate::config::DIRECT_NAMESPACE;
use crate::ids::Channel;

/// The room of two contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectRoom {
    /// Its channel.
    pub channel: Channel,
}

/// An entry of a user's contact list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The other user.
    pub user: Arc<str>,
    /// The room of the two.
    pub channel: Channel,
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: i64,
}

impl Store {
    /// Puts two users on each other's contact list and makes the room of the two, in one
    /// transaction. Whoever adds whom, how often, and at the same time: it is one room.
    ///
    /// # Errors
    /// When both are the same user, or the database does not answer.
    pub fn add_contact(&self, user: &str, contact: &str) -> Result<DirectRoom, ContactError> {
        if user == contact {
            return Err(ContactError::Oneself);
        }
        let now = clock::unix_ms();
        let key = direct_key(user, contact);
        let name = format!("{DIRECT_NAMESPACE}:{}", Uuid::new_v4());
        // One lane for both orders of the two, so that they never wait for each other's rows.
        let place = Channel::new(&name).map_err(|error| StoreError::new(error.to_string()))?;
        let name = self.write(&place, |connection| {
            let (room_id, name) = find_or_create(connection, &key, &name, now)?;
            // Sorted, so that two nodes lock the rows in the same order.
            let (first, second) = sorted(user, contact);
            add_member(connection, room_id, first, now)?;
            add_member(connection, room_id, second, now)?;
            insert_contact(connection, (first, second), room_id, now)?;
            insert_contact(connection, (second, first), room_id, now)?;
            Ok(name)
        })?;
        let channel = Channel::new(&name).map_err(|error| StoreError::new(error.to_string()))?;
        Ok(DirectRoom { channel })
    }

    /// Takes a user off another's list. The room, its messages and the other list stay.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn remove_contact(&self, user: &str, contact: &str) -> Result<(), StoreError> {
        self.write_anywhere(|connection| {
            let own = contacts::table.find((user, contact));
            on!(Connection, connection, connection => diesel::delete(own).execute(connection))?;
            Ok(())
        })
    }

    /// A user's contacts, by user id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn contacts(&self, user: &str) -> Result<Vec<Contact>, StoreError> {
        let query = contacts::table
            .inner_join(rooms::table)
            .filter(contacts::user_id.eq(user))
            .order(contacts::contact_id)
            .select((contacts::contact_id, rooms::name, contacts::created_at));
        let rows: Vec<(String, String, i64)> =
            self.read(|reader| on!(Reader, reader, connection => query.load(&mut **connection)))?;
        let contact = |(user, name, since_ms): (String, String, i64)| {
            Some(Contact { user: user.into(), channel: Channel::new(&name).ok()?, since_ms })
        };
        Ok(rows.into_iter().filter_map(contact).collect())
    }
}

fn find_or_create(
    connection: &mut Connection,
    key: &str,
    name: &str,
    now: i64,
) -> QueryResult<(i64, String)> {
    let row = (
        rooms::name.eq(name),
        rooms::kind.eq(RoomKind::Direct.as_str()),
        rooms::direct_key.eq(key),
        rooms::created_at.eq(now),
    );
    on!(Connection, connection, connection => {
        diesel::insert_into(rooms::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    let query = rooms::table.filter(rooms::direct_key.eq(key)).select((rooms::id, rooms::name));
    on!(Connection, connection, connection => query.first(connection))
}

fn insert_contact(
    connection: &mut Connection,
    (user, contact): (&str, &str),
    room_id: i64,
    now: i64,
) -> QueryResult<()> {
    let row = (
        contacts::user_id.eq(user),
        contacts::contact_id.eq(contact),
        contacts::room_id.eq(room_id),
        contacts::created_at.eq(now),
    );
    on!(Connection, connection, connection => {
        diesel::insert_into(contacts::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    Ok(())
}

/// One text for two users, whoever comes first. The length keeps `a` + `bc` apart from `ab` + `c`.
fn direct_key(one: &str, other: &str) -> String {
    let (first, second) = sorted(one, other);
    format!("{}:{first}{second}", first.len())
}

fn sorted<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    if one <= other { (one, other) } else { (other, one) }
}

#[cfg(test)]
mod tests {
    use super::direct_key;

    #[test]
    fn a_pair_has_one_key_and_no_other_pair_has_it() {
        assert_eq!(direct_key("ann", "bob"), direct_key("bob", "ann"));
        assert_ne!(direct_key("a", "bc"), direct_key("ab", "c"));
        assert_ne!(direct_key("1:a", "b"), direct_key("1", "ab"));
    }
}
