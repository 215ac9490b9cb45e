//! The errors of the store, and whose fault a database error is.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// The reason for which the database is not asked for a request whose time is over.
pub(super) const TOO_LATE: &str = "its request has waited too long";

/// A database that could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// It cannot be reached, or its file cannot be opened.
    Connect(String),
    /// It was reached, but could not be brought to the schema of this version.
    Migrate(String),
    /// It is none that this server may use: another server has it, it is of a newer version, it belongs to
    /// another program, or it cannot hold every text. Nothing was written into it.
    Refused(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(reason) => write!(f, "the database cannot be opened: {reason}"),
            Self::Migrate(reason) => write!(f, "the database cannot be migrated: {reason}"),
            Self::Refused(reason) => write!(f, "the database cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// A message that was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// The room does not exist and the message may not create it.
    UnknownRoom,
    /// The message itself cannot be stored; trying again will not help.
    Rejected(String),
    /// Its key is that of another message: of one with other data or tags, or of one that the server API sent while
    /// this one comes from an anonymous client, or the other way round.
    KeyTaken,
    /// The store failed; trying again later will help.
    Unavailable,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => write!(f, "there is no such room"),
            Self::Rejected(reason) => write!(f, "the message cannot be stored: {reason}"),
            Self::KeyTaken => write!(f, "another message was published with this key"),
            Self::Unavailable => write!(f, "the database is not available"),
        }
    }
}

impl std::error::Error for AppendError {}

/// A read or a change, other than an append, that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The store failed; trying again later will help.
    Unavailable(Outage),
    /// There is no such room.
    UnknownRoom,
    /// A room of that name exists.
    RoomExists,
    /// Direct rooms come only with contacts.
    DirectRoom,
    /// The user is no member of the room.
    NotMember,
    /// The text is no user id: empty, too long, or with a NUL character.
    BadUser,
    /// Nobody is a contact of themselves.
    OwnContact,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "the database is not available: {reason}"),
            Self::UnknownRoom => write!(f, "there is no such room"),
            Self::RoomExists => write!(f, "a room of that name exists"),
            Self::DirectRoom => write!(f, "direct rooms come only with contacts"),
            Self::NotMember => write!(f, "the user is not a member of the room"),
            Self::BadUser => write!(f, "this is not a user id: empty, too long, or with a NUL character"),
            Self::OwnContact => write!(f, "nobody is a contact of themselves"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<DieselError> for StoreError {
    fn from(error: DieselError) -> Self {
        Self::Unavailable(Outage::of(&error))
    }
}

/// What the operator has to know of a store that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    pub(super) reason: String,
    /// Other statements may pass at the same time: a lock on one table, a damaged page, too few connections.
    pub(super) is_partial: bool,
}

impl Outage {
    /// All of the store fails, or the way to it.
    pub(super) fn whole(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), is_partial: false }
    }

    /// Others may pass at the same time.
    pub(super) fn in_part(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), is_partial: true }
    }

    /// By the error of a statement.
    pub(super) fn of(error: &DieselError) -> Self {
        // To a message of SQLite all tables are one.
        let of_table = error.to_string().starts_with(SQLITE_NO_TABLE);
        Self { reason: error.to_string(), is_partial: of_table || Fault::of(error) != Fault::Store }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Whose fault a failed statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Certainly a value's: the same statement would fail on a healthy database too.
    Row,
    /// The database's, or that of the way to it, whatever the statement.
    Store,
    /// Not known to be a value's, so the database's; but a statement with other rows may pass: a lock on one room,
    /// a disk that is full for large rows, an index that is broken in one place.
    Part,
}

/// The only index that a message can offend against by its values.
const KEY_INDEX: &str = "messages_by_client_key";

impl Fault {
    /// Judges an error that came from a statement with a message's values.
    pub(super) fn of(error: &DieselError) -> Self {
        match error {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                let index = information.constraint_name().unwrap_or(information.message());
                if index.contains(KEY_INDEX) { Self::Row } else { Self::Part }
            }
            DieselError::DatabaseError(kind, information) => Self::of_kind(kind, information.message()),
            DieselError::SerializationError(_) | DieselError::InvalidCString(_) => Self::Row,
            _ => Self::Store,
        }
    }

    /// What diesel has no kind for is the store's: it hides the numeric code of those.
    fn of_kind(kind: &DatabaseErrorKind, message: &str) -> Self {
        match kind {
            DatabaseErrorKind::RestrictViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ExclusionViolation => Self::Row,
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand
            | DatabaseErrorKind::ReadOnlyTransaction => Self::Store,
            _ => Self::of_message(message),
        }
    }

    /// SQLite's messages are fixed texts of the library that is compiled in. None of them is a text of
    /// PostgreSQL, whose messages depend on the server's language and are not looked at.
    fn of_message(message: &str) -> Self {
        const SQLITE_ROW: &str = "string or blob too big";
        const SQLITE_STORE: &[&str] = &[
            "database or disk is full",
            "disk I/O error",
            "unable to open database file",
            SQLITE_LOCKED,
            "database table is locked",
            "attempt to write a readonly database",
            "database disk image is malformed",
            "file is not a database",
            "out of memory",
        ];
        if message == SQLITE_ROW {
            return Self::Row;
        }
        let is_store = SQLITE_STORE.contains(&message) || message.starts_with(SQLITE_NO_TABLE);
        if is_store { Self::Store } else { Self::Part }
    }
}

/// What SQLite says of a table that is missing, before its name.
const SQLITE_NO_TABLE: &str = "no such table";

/// What SQLite says when another process holds the file.
const SQLITE_LOCKED: &str = "database is locked";

/// True when another process holds the file of SQLite.
pub(super) fn is_locked_file(error: &DieselError) -> bool {
    matches!(error, DieselError::DatabaseError(_, information) if information.message() == SQLITE_LOCKED)
}

/// True when a connection is worth nothing after this error although it can still roll back: another one may lead to
/// a server that takes writes, to one that is not being stopped, or to a file that can be opened.
pub(super) fn wants_new_connection(error: &DieselError) -> bool {
    Fault::of(error) != Fault::Row && !is_locked_file(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: DatabaseErrorKind, message: &str) -> DieselError {
        DieselError::DatabaseError(kind, Box::new(message.to_owned()))
    }

    fn fault(kind: DatabaseErrorKind, message: &str) -> Fault {
        Fault::of(&error(kind, message))
    }

    #[test]
    fn only_what_is_known_to_be_the_rows_fault_is() {
        assert_eq!(fault(DatabaseErrorKind::CheckViolation, "x"), Fault::Row);
        assert_eq!(fault(DatabaseErrorKind::Unknown, "string or blob too big"), Fault::Row);
        let unique = |message| fault(DatabaseErrorKind::UniqueViolation, message);
        assert_eq!(unique("UNIQUE constraint failed: index 'messages_by_client_key'"), Fault::Row);
        assert_eq!(unique("UNIQUE constraint failed: messages.id"), Fault::Part);
        assert_eq!(unique("UNIQUE constraint failed: messages.room_id, messages.seq"), Fault::Part);
        assert_eq!(fault(DatabaseErrorKind::ForeignKeyViolation, "x"), Fault::Part);
        assert_eq!(fault(DatabaseErrorKind::SerializationFailure, "x"), Fault::Part);
        assert_eq!(fault(DatabaseErrorKind::Unknown, "canceling statement due to lock timeout"), Fault::Part);
        assert_eq!(fault(DatabaseErrorKind::ClosedConnection, "x"), Fault::Store);
        assert_eq!(fault(DatabaseErrorKind::ReadOnlyTransaction, "x"), Fault::Store);
        assert_eq!(fault(DatabaseErrorKind::Unknown, "database or disk is full"), Fault::Store);
        assert_eq!(Fault::of(&DieselError::NotFound), Fault::Store);
    }

    #[test]
    fn a_table_is_part_of_the_store() {
        let is_partial = |kind, message| Outage::of(&error(kind, message)).is_partial;
        assert!(is_partial(DatabaseErrorKind::Unknown, "canceling statement due to lock timeout"));
        assert!(is_partial(DatabaseErrorKind::Unknown, "no such table: members"));
        assert!(!is_partial(DatabaseErrorKind::ClosedConnection, "x"));
        assert!(!is_partial(DatabaseErrorKind::Unknown, "disk I/O error"));
    }

    #[test]
    fn a_locked_file_is_no_reason_to_open_it_again() {
        assert!(!wants_new_connection(&error(DatabaseErrorKind::Unknown, SQLITE_LOCKED)));
        assert!(!wants_new_connection(&error(DatabaseErrorKind::CheckViolation, "x")));
        assert!(wants_new_connection(&error(DatabaseErrorKind::ReadOnlyTransaction, "x")));
        assert!(wants_new_connection(&error(DatabaseErrorKind::Unknown, "terminating connection")));
    }
}
