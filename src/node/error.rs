//! Refusals of requests, one enum for each kind of request, and the error code of each.
//!
//! The only file in which a refusal becomes a code.

use std::fmt;
use std::io;

use crate::config::ConfigError;
use crate::engine::Refused;
use crate::protocol::code::ErrorCode;
use crate::store::{AppendError, OpenError, StoreError};

/// A node or server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration breaks a rule; it lists all problems.
    Config(ConfigError),
    /// The database cannot be used.
    Store(OpenError),
    /// The server cannot listen on its address; the text names it and says what to do.
    Listen(String),
    /// The system could not provide a thread or poller.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Store(error) => write!(f, "{error}"),
            Self::Listen(reason) => f.write_str(reason),
            Self::System(error) => write!(f, "the system could not provide a thread or poller: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// The caller may not do something with a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The caller does not belong to the audience.
    Forbidden,
    /// The database that knows the members does not answer.
    Unavailable,
    /// The room may hold messages that are no JSON, and the client speaks nothing else.
    Binary,
}

impl AccessError {
    /// The code a client is told.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::UnknownNamespace => ErrorCode::UnknownChannel,
            Self::Forbidden => ErrorCode::PermissionDenied,
            Self::Unavailable => ErrorCode::Internal,
            Self::Binary => ErrorCode::BinaryRoom,
        }
    }
}

/// A message was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The client may not publish there; never for an embedding program.
    Forbidden,
    /// The payload is not JSON that every client can read; never in a namespace of binary payloads.
    Json(String),
    /// The payload, its tags and what is attached to the sender are more than the namespace's
    /// `message_bytes_max`.
    TooLarge,
    /// The message was not to be stored, but its namespace stores every message.
    AlwaysStored,
    /// The store refused it or failed. After [`AppendError::Unavailable`] it may be stored all the same.
    Store(AppendError),
}

impl PublishError {
    /// The code a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownNamespace | Self::Store(AppendError::UnknownRoom) => ErrorCode::UnknownChannel,
            Self::Forbidden => ErrorCode::PermissionDenied,
            Self::Json(_) | Self::Store(AppendError::Rejected(_)) => ErrorCode::BadRequest,
            Self::TooLarge => ErrorCode::LimitExceeded,
            Self::AlwaysStored => ErrorCode::NotAvailable,
            Self::Store(AppendError::KeyTaken) => ErrorCode::Conflict,
            Self::Store(AppendError::Unavailable) => ErrorCode::Internal,
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace => write!(f, "the channel's namespace is not configured"),
            Self::Forbidden => write!(f, "the client may not publish in this channel"),
            Self::Json(reason) => write!(f, "the payload cannot be sent: {reason}"),
            Self::TooLarge => write!(f, "the message is larger than message_bytes_max allows"),
            Self::AlwaysStored => write!(f, "the channel's namespace stores every message"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for PublishError {}

impl From<AccessError> for PublishError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::UnknownNamespace => Self::UnknownNamespace,
            AccessError::Forbidden | AccessError::Binary => Self::Forbidden,
            AccessError::Unavailable => Self::Store(AppendError::Unavailable),
        }
    }
}

/// A subscription was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The room does not exist, and in this namespace only the API creates rooms.
    UnknownRoom,
    /// The client may not listen there; never for an embedding program.
    Forbidden,
    /// The connection is subscribed to the channel already.
    AlreadySubscribed,
    /// The connection holds as many subscriptions as it may.
    TooManyChannels,
    /// The messages after the given seq are no longer kept.
    Unrecoverable,
    /// The database does not answer just now.
    Unavailable,
    /// The room may hold messages that are no JSON, and the client speaks nothing else; never for an
    /// embedding program.
    Binary,
}

impl SubscribeError {
    /// The code a client is told.
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::UnknownNamespace | Self::UnknownRoom => ErrorCode::UnknownChannel,
            Self::Forbidden => ErrorCode::PermissionDenied,
            Self::AlreadySubscribed => ErrorCode::AlreadySubscribed,
            Self::TooManyChannels => ErrorCode::LimitExceeded,
            Self::Unrecoverable => ErrorCode::UnrecoverablePosition,
            Self::Unavailable => ErrorCode::Internal,
            Self::Binary => ErrorCode::BinaryRoom,
        }
    }
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownNamespace => "the channel's namespace is not configured",
            Self::UnknownRoom => "the room does not exist",
            Self::Forbidden => "the client may not subscribe to this channel",
            Self::AlreadySubscribed => "the connection is already subscribed to the channel",
            Self::TooManyChannels => "the connection has reached its limit of subscriptions",
            Self::Unrecoverable => "the requested messages are no longer kept",
            Self::Unavailable => "the database does not answer",
            Self::Binary => "the room holds binary payloads, which the client cannot read",
        })
    }
}

impl std::error::Error for SubscribeError {}

impl From<AccessError> for SubscribeError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::UnknownNamespace => Self::UnknownNamespace,
            AccessError::Forbidden => Self::Forbidden,
            AccessError::Unavailable => Self::Unavailable,
            AccessError::Binary => Self::Binary,
        }
    }
}

impl From<Refused> for SubscribeError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::AlreadySubscribed => Self::AlreadySubscribed,
            Refused::LimitExceeded => Self::TooManyChannels,
        }
    }
}

/// A room could not be read by this program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The namespace keeps no messages, or does not list its listeners.
    NotAvailable,
    /// The database does not answer.
    Unavailable,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownNamespace => "the channel's namespace is not configured",
            Self::NotAvailable => "the channel's namespace does not offer it",
            Self::Unavailable => "the database does not answer",
        })
    }
}

impl std::error::Error for ReadError {}

/// A program of its own asks as the operator and names no position of another database, so what else could
/// be wrong with a request does not occur.
impl From<RequestError> for ReadError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Access(AccessError::UnknownNamespace) => Self::UnknownNamespace,
            RequestError::NotAvailable => Self::NotAvailable,
            _ => Self::Unavailable,
        }
    }
}

/// A request other than a publish or subscribe was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestError {
    /// The caller may not.
    Access(AccessError),
    /// The namespace does not offer it.
    NotAvailable,
    /// The position makes no sense in the direction asked for.
    BadPosition,
    /// The position belongs to another database.
    Unrecoverable,
    /// The limit of these is reached.
    LimitExceeded,
    /// The store refused or failed.
    Store(StoreError),
}

impl RequestError {
    /// The code a client is told.
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Access(error) => error.code(),
            Self::NotAvailable => ErrorCode::NotAvailable,
            Self::BadPosition => ErrorCode::BadRequest,
            Self::Unrecoverable => ErrorCode::UnrecoverablePosition,
            Self::LimitExceeded => ErrorCode::LimitExceeded,
            Self::Store(error) => code_of_store(error),
        }
    }
}

fn code_of_store(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Unavailable(_) => ErrorCode::Internal,
        StoreError::UnknownRoom => ErrorCode::UnknownChannel,
        StoreError::NotMember => ErrorCode::PermissionDenied,
        StoreError::RoomExists => ErrorCode::Conflict,
        StoreError::DirectRoom | StoreError::BadUser | StoreError::OwnContact => ErrorCode::BadRequest,
    }
}

impl From<AccessError> for RequestError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
