//! What can go wrong in the store, told apart by whose fault it is.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error};

/// The database could not do what was asked; asking again later may help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StoreError {}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// Why a database cannot be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Which database, without its password.
    pub database: String,
    /// What it said.
    pub reason: String,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database {} cannot be opened: {}", self.database, self.reason)
    }
}

impl std::error::Error for OpenError {}

/// Why a message was not stored. Nobody has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendError {
    /// The room does not exist, and may not come into being by a message.
    UnknownRoom,
    /// The database refuses this message, whatever is tried; the others of its batch are stored.
    Rejected(String),
    /// The database failed; trying again later may work.
    Unavailable,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownRoom => f.write_str("the room does not exist"),
            Self::Rejected(reason) => write!(f, "the database refuses the message: {reason}"),
            Self::Unavailable => f.write_str("the database does not answer"),
        }
    }
}

impl std::error::Error for AppendError {}

/// Why two users did not become contacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContactError {
    /// A user cannot be its own contact.
    Oneself,
    /// The database failed.
    Store(StoreError),
}

impl fmt::Display for ContactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oneself => f.write_str("a user can not be its own contact"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ContactError {}

impl From<StoreError> for ContactError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Words by which the databases complain about a value, where diesel has no kind of error for it.
const VALUE_COMPLAINTS: &[&str] =
    &["too big", "too long", "invalid byte sequence", "exceeds maximum", "exceeds btree", "out of range"];

/// True when a statement failed because of what was in it, so that leaving a row out helps.
pub(super) fn is_about_a_row(error: &Error) -> bool {
    match error {
        Error::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::UniqueViolation
            | DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ForeignKeyViolation => true,
            DatabaseErrorKind::Unknown => {
                VALUE_COMPLAINTS.iter().any(|words| information.message().contains(words))
            }
            _ => false,
        },
        Error::SerializationError(_) | Error::InvalidCString(_) => true,
        _ => false,
    }
}
