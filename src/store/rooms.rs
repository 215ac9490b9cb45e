//! Rooms, their members, and how far each has read.

use std::sync::Arc;

use diesel::prelude::*;

use super::connection::{Connection, Reader, on};
use super::error::StoreError;
use super::schema::{members, rooms};
use super::{Store, statements};
use crate::clock;
use crate::ids::{Channel, Seq};

/// What a room is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomKind {
    /// The room of two contacts.
    Direct,
    /// For its members.
    Group,
    /// For everybody its namespace admits.
    Public,
}

impl RoomKind {
    /// The word in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
            Self::Public => "public",
        }
    }

    fn from_word(word: &str) -> Self {
        match word {
            "direct" => Self::Direct,
            "group" => Self::Group,
            _ => Self::Public,
        }
    }
}

/// A room as the database knows it.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its row.
    pub id: i64,
    /// What it is for.
    pub kind: RoomKind,
    /// Seq of the newest message; 0 = none yet.
    pub head: Seq,
    /// When it came into being, milliseconds since 1970 UTC.
    pub created_ms: i64,
    /// When somebody last spoke, milliseconds since 1970 UTC; 0 = never.
    pub last_active_ms: i64,
}

/// A member of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The user.
    pub user: Arc<str>,
    /// The last seq the user has read.
    pub last_read: Seq,
}

/// How far a user has read in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPosition {
    /// The room.
    pub channel: Channel,
    /// Its newest seq.
    pub head: Seq,
    /// The last seq the user has read.
    pub last_read: Seq,
}

/// Role of a user who belongs to a room.
pub(super) const ROLE_MEMBER: &str = "member";
/// Role of a user who only keeps a read position in a public room.
const ROLE_READER: &str = "reader";

type RoomRow = (i64, String, i64, i64, i64);

impl Store {
    /// The room of a channel, if it exists.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn room(&self, channel: &Channel) -> Result<Option<Room>, StoreError> {
        let query = rooms::table.filter(rooms::name.eq(channel.as_str())).select((
            rooms::id,
            rooms::kind,
            rooms::head_seq,
            rooms::created_at,
            rooms::last_active_at,
        ));
        let row: Option<RoomRow> =
            self.read(|reader| on!(Reader, reader, connection => query.first(&mut **connection).optional()))?;
        Ok(row.map(|(id, kind, head, created_ms, last_active_ms)| Room {
            id,
            kind: RoomKind::from_word(&kind),
            head: to_seq(head),
            created_ms,
            last_active_ms,
        }))
    }

    /// Seq of the newest message of a room; 0 for a room without messages or without existence.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn head(&self, channel: &Channel) -> Result<Seq, StoreError> {
        let query = rooms::table.filter(rooms::name.eq(channel.as_str())).select(rooms::head_seq);
        let head: Option<i64> =
            self.read(|reader| on!(Reader, reader, connection => query.first(&mut **connection).optional()))?;
        Ok(head.map_or(0, to_seq))
    }

    /// Creates a room with these members; one that exists stays as it is and gains the members.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn create_room(
        &self,
        channel: &Channel,
        kind: RoomKind,
        users: &[Arc<str>],
    ) -> Result<(), StoreError> {
        let now = clock::unix_ms();
        self.write(channel, |connection| {
            let row =
                (rooms::name.eq(channel.as_str()), rooms::kind.eq(kind.as_str()), rooms::created_at.eq(now));
            on!(Connection, connection, connection => {
                diesel::insert_into(rooms::table).values(row).on_conflict_do_nothing().execute(connection)
            })?;
            let room_id =
                statements::find_room(connection, channel)?.ok_or(diesel::result::Error::NotFound)?;
            users.iter().try_for_each(|user| add_member(connection, room_id, user, now))
        })
    }

    /// True when the user belongs to the room.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn is_member(&self, channel: &Channel, user: &str) -> Result<bool, StoreError> {
        let query = members::table
            .inner_join(rooms::table)
            .filter(rooms::name.eq(channel.as_str()))
            .filter(members::user_id.eq(user))
            .filter(members::role.eq(ROLE_MEMBER));
        self.read(|reader| {
            on!(Reader, reader, connection => {
                diesel::select(diesel::dsl::exists(query)).get_result(&mut **connection)
            })
        })
    }

    /// The members of a room, by user id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn members(&self, channel: &Channel) -> Result<Vec<Member>, StoreError> {
        let query = members::table
            .inner_join(rooms::table)
            .filter(rooms::name.eq(channel.as_str()))
            .filter(members::role.eq(ROLE_MEMBER))
            .order(members::user_id)
            .select((members::user_id, members::last_read_seq));
        let rows: Vec<(String, i64)> =
            self.read(|reader| on!(Reader, reader, connection => query.load(&mut **connection)))?;
        let member =
            |(user, last_read): (String, i64)| Member { user: user.into(), last_read: to_seq(last_read) };
        Ok(rows.into_iter().map(member).collect())
    }

    /// Moves a user's read position in a room forward, never back and never past the head. A user
    /// who is no member is listed as a reader from then on. `None` when there is no such room.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn set_last_read(
        &self,
        channel: &Channel,
        user: &str,
        seq: Seq,
    ) -> Result<Option<ReadPosition>, StoreError> {
        let now = clock::unix_ms();
        self.write(channel, |connection| {
            let query = rooms::table
                .filter(rooms::name.eq(channel.as_str()))
                .select((rooms::id, rooms::head_seq));
            let room: Option<(i64, i64)> =
                on!(Connection, connection, connection => query.first(connection).optional())?;
            let Some((room_id, head)) = room else { return Ok(None) };
            let wanted = i64::try_from(seq).unwrap_or(i64::MAX).min(head);
            statements::insert_user(connection, user, now)?;
            insert_member(connection, room_id, user, ROLE_READER, now)?;
            let own = members::table.find((room_id, user));
            on!(Connection, connection, connection => {
                diesel::update(own.filter(members::last_read_seq.lt(wanted)))
                    .set(members::last_read_seq.eq(wanted))
                    .execute(connection)
            })?;
            let last_read: i64 =
                on!(Connection, connection, connection => own.select(members::last_read_seq).first(connection))?;
            Ok(Some(ReadPosition {
                channel: channel.clone(),
                head: to_seq(head),
                last_read: to_seq(last_read),
            }))
        })
    }

    /// How far a user has read in each room it belongs to or reads, by channel.
    ///
    /// # Errors
    /// When the database does not answer.
    pub fn unread(&self, user: &str) -> Result<Vec<ReadPosition>, StoreError> {
        let query = members::table
            .inner_join(rooms::table)
            .filter(members::user_id.eq(user))
            .order(rooms::name)
            .select((rooms::name, rooms::head_seq, members::last_read_seq));
        let rows: Vec<(String, i64, i64)> =
            self.read(|reader| on!(Reader, reader, connection => query.load(&mut **connection)))?;
        let position = |(name, head, last_read): (String, i64, i64)| {
            let channel = Channel::new(&name).ok()?;
            Some(ReadPosition { channel, head: to_seq(head), last_read: to_seq(last_read) })
        };
        Ok(rows.into_iter().filter_map(position).collect())
    }
}

/// Lists a user as a member of a room, also one who was only a reader.
pub(super) fn add_member(connection: &mut Connection, room_id: i64, user: &str, now: i64) -> QueryResult<()> {
    statements::insert_user(connection, user, now)?;
    insert_member(connection, room_id, user, ROLE_MEMBER, now)?;
    on!(Connection, connection, connection => {
        diesel::update(members::table.find((room_id, user)))
            .set(members::role.eq(ROLE_MEMBER))
            .execute(connection)
    })?;
    Ok(())
}

fn insert_member(
    connection: &mut Connection,
    room_id: i64,
    user: &str,
    role: &str,
    now: i64,
) -> QueryResult<()> {
    let row = (
        members::room_id.eq(room_id),
        members::user_id.eq(user),
        members::role.eq(role),
        members::joined_at.eq(now),
    );
    on!(Connection, connection, connection => {
        diesel::insert_into(members::table).values(row).on_conflict_do_nothing().execute(connection)
    })?;
    Ok(())
}

/// A seq as the program counts it; the database has no unsigned numbers.
pub(super) fn to_seq(value: i64) -> Seq {
    Seq::try_from(value).unwrap_or(0)
}
