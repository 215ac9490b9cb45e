//! `members`: who belongs to a room, and how far each has read.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use diesel::prelude::*;

use crate::ids::{Channel, Seq};
use crate::store::connection::{Connection, on_either};
use crate::store::schema::{members, rooms};

use super::room::unreadable;

/// The role of a user in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A member who may manage the room.
    Owner,
    /// A member.
    Member,
    /// No member: somebody whose read position in a public room is kept.
    Reader,
}

impl Role {
    /// As it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Member => "member",
            Self::Reader => "reader",
        }
    }

    /// True for those who belong to the room.
    #[must_use]
    pub fn is_member(self) -> bool {
        self != Self::Reader
    }

    fn parse(text: &str) -> QueryResult<Self> {
        match text {
            "owner" => Ok(Self::Owner),
            "member" => Ok(Self::Member),
            "reader" => Ok(Self::Reader),
            other => Err(unreadable("role", other)),
        }
    }
}

/// A user in a room's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// User id.
    pub user: String,
    /// The user's role in the room.
    pub role: Role,
    /// Since when, milliseconds since 1970 UTC.
    pub joined_ms: i64,
    /// Number of the last message the user has read.
    pub last_read: Seq,
}

/// The read position of a user in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The room.
    pub channel: Channel,
    /// Number of its newest message.
    pub head: Seq,
    /// Number of the last message the user has read.
    pub last_read: Seq,
}

impl Unread {
    /// Number of messages the user has not read.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.head.saturating_sub(self.last_read)
    }
}

/// Puts a user into a room's list unless it is there. A reader who joins becomes what is given.
pub(in crate::store) fn add(
    connection: &mut Connection,
    room_id: i64,
    user: &str,
    role: Role,
    now_ms: i64,
) -> QueryResult<()> {
    let row = (
        members::room_id.eq(room_id),
        members::user_id.eq(user),
        members::role.eq(role.as_str()),
        members::last_read_seq.eq(0),
        members::joined_at.eq(now_ms),
    );
    let insert = diesel::insert_into(members::table).values(row).on_conflict_do_nothing();
    on_either!(connection, c => insert.execute(c).map(drop))
}

/// The user's role in the room; `None` for strangers.
pub(in crate::store) fn role(
    connection: &mut Connection,
    room: &str,
    user: &str,
) -> QueryResult<Option<Role>> {
    let query = members::table
        .inner_join(rooms::table)
        .filter(rooms::name.eq(room))
        .filter(members::user_id.eq(user))
        .select(members::role);
    let role: Option<String> = on_either!(connection, c => query.first(c).optional())?;
    role.map(|role| Role::parse(&role)).transpose()
}

/// The members of a room, readers left out, in the order of their ids, behind `after`.
pub(in crate::store) fn of_room(
    connection: &mut Connection,
    room: &str,
    after: &str,
    limit: i64,
) -> QueryResult<Vec<Member>> {
    let query = members::table
        .inner_join(rooms::table)
        .filter(rooms::name.eq(room))
        .filter(members::role.ne(Role::Reader.as_str()))
        .filter(members::user_id.gt(after))
        .order(members::user_id)
        .limit(limit)
        .select((members::user_id, members::role, members::joined_at, members::last_read_seq));
    let rows: Vec<(String, String, i64, i64)> = on_either!(connection, c => query.load(c))?;
    rows.into_iter()
        .map(|(user, role, joined_ms, last_read)| {
            Ok(Member { user, role: Role::parse(&role)?, joined_ms, last_read: last_read as Seq })
        })
        .collect()
}

/// Moves a read position forward and tells where it is now; `None` when the user is not in the
/// room's list.
pub(in crate::store) fn set_last_read(
    connection: &mut Connection,
    room_id: i64,
    user: &str,
    seq: Seq,
) -> QueryResult<Option<Seq>> {
    let row = members::table.find((room_id, user));
    let seq = seq as i64;
    on_either!(connection, c => {
        diesel::update(row.filter(members::last_read_seq.lt(seq)))
            .set(members::last_read_seq.eq(seq))
            .execute(c)?;
        let last_read: Option<i64> = row.select(members::last_read_seq).first(c).optional()?;
        Ok(last_read.map(|seq| seq as Seq))
    })
}

/// A place in the list of a user's rooms: rooms that were active later, or then and have a larger id, come before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomCursor {
    pub(in crate::store) last_active_ms: i64,
    pub(in crate::store) room_id: i64,
}

impl RoomCursor {
    /// Before the first room.
    pub(in crate::store) const START: Self = Self { last_active_ms: i64::MAX, room_id: i64::MAX };
}

impl fmt::Display for RoomCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.last_active_ms, self.room_id)
    }
}

impl FromStr for RoomCursor {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (last_active_ms, room_id) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { last_active_ms: last_active_ms.parse()?, room_id: room_id.parse()? })
    }
}

/// A room of a user: name, head, last read, last active, id.
pub(in crate::store) type RoomOfUser = (String, i64, i64, i64, i64);

/// The rooms in whose lists the user is, most recently active first.
pub(in crate::store) fn rooms_of(
    connection: &mut Connection,
    user: &str,
    after: RoomCursor,
    limit: i64,
) -> QueryResult<Vec<RoomOfUser>> {
    let RoomCursor { last_active_ms, room_id } = after;
    let is_behind = rooms::last_active_at
        .lt(last_active_ms)
        .or(rooms::last_active_at.eq(last_active_ms).and(rooms::id.lt(room_id)));
    let query = members::table
        .inner_join(rooms::table)
        .filter(members::user_id.eq(user))
        .filter(is_behind)
        .order((rooms::last_active_at.desc(), rooms::id.desc()))
        .limit(limit)
        .select((rooms::name, rooms::head_seq, members::last_read_seq, rooms::last_active_at, rooms::id));
    on_either!(connection, c => query.load(c))
}
