//! Makes tokens, for the command line and for tests; in production the operator's backend does it.

use serde::Serialize;
use serde_json::value::RawValue;

use super::jws::Key;
use crate::ids::Channel;

/// The claims of a token; an absent one is left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenRequest<'a> {
    /// The user id; empty for an anonymous user.
    pub user: &'a str,
    /// Makes it a subscription token for this channel.
    pub channel: Option<&'a Channel>,
    /// Channels the server subscribes the connection to.
    pub channels: &'a [Channel],
    /// JSON that others may see of the connection or the subscription.
    pub info: Option<&'a str>,
    /// Time of issue, seconds since 1970 UTC.
    pub issued_at: Option<i64>,
    /// Expiry, seconds since 1970 UTC; `None`: never.
    pub expires_at: Option<i64>,
    /// The `aud` claim, if the server demands one.
    pub audience: Option<&'a str>,
    /// The `iss` claim, if the server demands one.
    pub issuer: Option<&'a str>,
}

/// A token could not be made.
#[derive(Debug)]
pub(crate) enum IssueError {
    /// `info` is not JSON.
    Info(serde_json::Error),
    /// The claims could not be written.
    Claims(serde_json::Error),
}

impl std::fmt::Display for IssueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Info(error) => write!(f, "info is not JSON: {error}"),
            Self::Claims(error) => write!(f, "the claims could not be written: {error}"),
        }
    }
}

impl std::error::Error for IssueError {}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
}

/// A token signed with HS256.
///
/// # Errors
/// [`IssueError`]
pub(crate) fn issue(secret: &str, request: &TokenRequest<'_>) -> Result<String, IssueError> {
    let claims = IssuedClaims {
        sub: request.user,
        channel: request.channel.map(Channel::as_str),
        channels: request.channels.iter().map(Channel::as_str).collect(),
        info: request.info.map(serde_json::from_str).transpose().map_err(IssueError::Info)?,
        iat: request.issued_at,
        exp: request.expires_at,
        aud: request.audience,
        iss: request.issuer,
    };
    let claims = serde_json::to_vec(&claims).map_err(IssueError::Claims)?;
    Ok(Key::new(secret).seal(&claims))
}

/// A token with any claims at all, for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn sign(secret: &str, claims: &str) -> String {
    Key::new(secret).seal(claims.as_bytes())
}
