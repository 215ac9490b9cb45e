//! Parts of a token's meaning that its claims and its verifier share.
//!
//! Plain values; nothing here checks anything.

use std::fmt;
use std::sync::Arc;

use crate::ids::Channel;

/// A token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Genuine, but past its time or not valid yet: the client needs a new one.
    Expired,
    /// Genuine, but issued for another user or another channel.
    Mismatch,
    /// Malformed, forged, or with claims that make no sense.
    Invalid(&'static str),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("the token is expired or not valid yet"),
            Self::Mismatch => f.write_str("the token is for another user or channel"),
            Self::Invalid(reason) => write!(f, "the token is invalid: {reason}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// A channel the token subscribes its connection to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerSubscription {
    /// The channel.
    pub channel: Channel,
    /// Information about the subscription for others, compact JSON.
    pub info: Option<Arc<str>>,
    /// Data for the client in the subscribe reply, compact JSON.
    pub data: Option<Arc<str>>,
}
