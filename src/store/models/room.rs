//! `rooms`: the channels that exist, and how many messages each had.

use diesel::prelude::*;

use crate::ids::{Channel, Seq};
use crate::store::connection::{Connection, on_either};
use crate::store::schema::rooms;

/// The kind of a room, which decides who may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// Two contacts; nobody else, ever.
    Direct,
    /// A closed group: its members are listed.
    Group,
    /// Open to whom the namespace lets in.
    Public,
}

impl RoomKind {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Public => "public",
        }
    }

    fn parse(text: &str) -> QueryResult<Self> {
        match text {
            "direct" => Ok(Self::Direct),
            "group" => Ok(Self::Group),
            "public" => Ok(Self::Public),
            other => Err(unreadable("kind of room", other)),
        }
    }
}

/// A room as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its number in the database.
    pub id: i64,
    /// Its kind.
    pub kind: RoomKind,
    /// Number of its newest message; 0 before the first.
    pub head: Seq,
    /// Time it was created, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// Time of its newest message; `created_ms` before the first.
    pub last_active_ms: i64,
}

/// The direct room of two users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectRoom {
    /// Its channel.
    pub channel: Channel,
    /// This call created it.
    pub created: bool,
}

/// A room to be created.
pub(in crate::store) struct NewRoom<'a> {
    pub(in crate::store) name: &'a str,
    pub(in crate::store) kind: RoomKind,
    pub(in crate::store) direct_key: Option<&'a str>,
    pub(in crate::store) now_ms: i64,
}

/// A text in the database that this version does not know.
pub(in crate::store) fn unreadable(what: &str, text: &str) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(format!("unknown {what} {text:?}").into())
}

/// The room of that name.
pub(in crate::store) fn find(connection: &mut Connection, channel: &Channel) -> QueryResult<Option<Room>> {
    let query = rooms::table.filter(rooms::name.eq(channel.as_str())).select((
        rooms::id,
        rooms::kind,
        rooms::head_seq,
        rooms::created_at,
        rooms::last_active_at,
    ));
    let row = on_either!(connection, c => query.first::<(i64, String, i64, i64, i64)>(c).optional())?;
    row.map(|(id, kind, head, created_ms, last_active_ms)| {
        let kind = RoomKind::parse(&kind)?;
        Ok(Room { id, kind, head: head as Seq, created_ms, last_active_ms })
    })
    .transpose()
}

/// Creates a room; returns its id, or `None` when its name or its direct key is taken.
pub(in crate::store) fn create(connection: &mut Connection, room: &NewRoom<'_>) -> QueryResult<Option<i64>> {
    let insert = diesel::insert_into(rooms::table)
        .values((
            rooms::name.eq(room.name),
            rooms::kind.eq(room.kind.as_str()),
            rooms::direct_key.eq(room.direct_key),
            rooms::created_at.eq(room.now_ms),
            rooms::last_active_at.eq(room.now_ms),
        ))
        .on_conflict_do_nothing()
        .returning(rooms::id);
    on_either!(connection, c => insert.get_result(c).optional())
}

/// The id and the name of the direct room with that key.
pub(in crate::store) fn by_direct_key(connection: &mut Connection, key: &str) -> QueryResult<(i64, String)> {
    let query = rooms::table.filter(rooms::direct_key.eq(key)).select((rooms::id, rooms::name));
    on_either!(connection, c => query.first(c))
}

/// Up to `limit` rooms with larger ids: id, name, head.
pub(in crate::store) fn after(
    connection: &mut Connection,
    id: i64,
    limit: i64,
) -> QueryResult<Vec<(i64, String, i64)>> {
    let query = rooms::table.filter(rooms::id.gt(id)).order(rooms::id).limit(limit).select((
        rooms::id,
        rooms::name,
        rooms::head_seq,
    ));
    on_either!(connection, c => query.load(c))
}

/// The one key of the direct room of two users, whoever asks: the sorted ids, the first one's
/// length in front so that no two pairs share a key.
pub(in crate::store) fn direct_key(user: &str, other: &str) -> String {
    let (first, second) = if user <= other { (user, other) } else { (other, user) };
    format!("{}:{first}{second}", first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_keys_do_not_depend_on_who_asks() {
        assert_eq!(direct_key("ann", "bob"), direct_key("bob", "ann"));
        assert_ne!(direct_key("an", "nbob"), direct_key("ann", "bob"));
        assert_ne!(direct_key("1:a", "b"), direct_key("1", ":ab"));
    }
}
