//! Outcomes of commands: the refusals of a session, and the next step of its connection.

use crate::net::queries::NoSlot;
use crate::node::{AccessError, PublishError, RequestError, SubscribeError};
use crate::protocol::code::{CloseCode, ErrorCode};

/// The next step of a connection after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(in crate::net) enum Flow {
    /// Goes on.
    Continue,
    /// The turn is full, or the client has to read first, or others are to query the database: the commands from
    /// this byte of the frame on are for another turn.
    Wait(usize),
    /// Closes with this code.
    Disconnect(CloseCode),
    /// Stops: the connection was closed while its commands were carried out, by a kick for example.
    Ended,
    /// Reads no more; connect was answered with an error and the client is to leave.
    Refused,
}

/// The reason a command has no result.
pub(super) enum CommandError {
    /// The reply to the command is this error.
    Error(ErrorCode),
    /// The connection is closed with this code.
    Close(CloseCode),
    /// None yet: the command is to be carried out anew when the connection may query the database.
    Wait,
}

impl From<ErrorCode> for CommandError {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code)
    }
}

impl From<NoSlot> for CommandError {
    fn from(no: NoSlot) -> Self {
        match no {
            NoSlot::Wait => Self::Wait,
            NoSlot::TooLate => Self::Error(ErrorCode::Internal),
            NoSlot::TooMany => Self::Error(ErrorCode::TooManyRequests),
        }
    }
}

impl From<AccessError> for CommandError {
    fn from(error: AccessError) -> Self {
        Self::Error(error.code())
    }
}

impl From<PublishError> for CommandError {
    fn from(error: PublishError) -> Self {
        Self::Error(error.code())
    }
}

impl From<SubscribeError> for CommandError {
    fn from(error: SubscribeError) -> Self {
        Self::Error(error.code())
    }
}

impl From<RequestError> for CommandError {
    fn from(error: RequestError) -> Self {
        Self::Error(error.code())
    }
}

impl From<CloseCode> for CommandError {
    fn from(code: CloseCode) -> Self {
        Self::Close(code)
    }
}
