//! Faults of bytes that are no command, and their answers.

use std::fmt;

/// The answer to bytes that are no legal command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCommand {
    /// The protocol is broken: close with [`CloseCode::BadRequest`](crate::protocol::code::CloseCode), read no further.
    Close(Broken),
    /// The envelope is fine but the parameters are not: answer this id with
    /// [`ErrorCode::BadRequest`](crate::protocol::code::ErrorCode) and go on.
    Refuse {
        /// The id to answer.
        id: u32,
        /// The command was a connect, so nothing after it counts.
        connect: bool,
    },
}

/// The way in which a frame breaks the protocol; for metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The frame or one of its lines is empty.
    Blank,
    /// A binary frame came where text frames were agreed upon.
    Binary,
    /// A text frame came where binary frames were agreed upon.
    Text,
    /// No command, or one whose members have impossible types.
    Malformed,
    /// No known method is named.
    NoMethod,
    /// The id is missing or 0.
    NoId,
    /// The channel is missing or empty.
    NoChannel,
}

impl Broken {
    /// One word, as metrics want it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Binary => "binary",
            Self::Text => "text",
            Self::Malformed => "malformed",
            Self::NoMethod => "no_method",
            Self::NoId => "no_id",
            Self::NoChannel => "no_channel",
        }
    }
}

impl fmt::Display for BadCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(broken) => write!(f, "the frame breaks the protocol: {}", broken.as_str()),
            Self::Refuse { id, .. } => write!(f, "command {id} has illegal parameters"),
        }
    }
}

impl std::error::Error for BadCommand {}
