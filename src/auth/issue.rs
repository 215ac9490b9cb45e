//! Makes tokens, for the command line and for tests; in production the operator's backend does it.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::ids::Channel;

/// What a connection token shall say.
#[derive(Debug, Clone, Default)]
pub struct ConnectionTokenRequest {
    /// The user id; empty for an anonymous user.
    pub user: String,
    /// When the token expires, seconds since 1970 UTC; `None`: never.
    pub expires_at: Option<i64>,
    /// JSON that others may see of the connection.
    pub info: Option<String>,
    /// What the server shall subscribe the connection to.
    pub channels: Vec<Channel>,
}

/// What a subscription token shall say.
#[derive(Debug, Clone)]
pub struct SubscriptionTokenRequest {
    /// The user id; empty for an anonymous user.
    pub user: String,
    /// The channel.
    pub channel: Channel,
    /// When the token expires, seconds since 1970 UTC; `None`: never.
    pub expires_at: Option<i64>,
    /// JSON that others may see of the subscription.
    pub info: Option<String>,
}

/// Why no token was made.
#[derive(Debug)]
pub enum IssueError {
    /// `info` is no JSON.
    Info(serde_json::Error),
    /// Signing failed.
    Signing(jsonwebtoken::errors::Error),
}

impl std::fmt::Display for IssueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Info(error) => write!(f, "info is no JSON: {error}"),
            Self::Signing(error) => write!(f, "the token could not be signed: {error}"),
        }
    }
}

impl std::error::Error for IssueError {}

#[derive(Serialize)]
struct IssuedClaims<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<&'a str>,
}

/// A connection token signed with HS256.
///
/// # Errors
/// [`IssueError`]
pub fn issue_connection_token(secret: &str, request: &ConnectionTokenRequest) -> Result<String, IssueError> {
    sign(
        secret,
        &IssuedClaims {
            sub: &request.user,
            exp: request.expires_at,
            info: parse(request.info.as_deref())?,
            channel: None,
            channels: request.channels.iter().map(Channel::as_str).collect(),
        },
    )
}

/// A subscription token signed with HS256.
///
/// # Errors
/// [`IssueError`]
pub fn issue_subscription_token(
    secret: &str,
    request: &SubscriptionTokenRequest,
) -> Result<String, IssueError> {
    sign(
        secret,
        &IssuedClaims {
            sub: &request.user,
            exp: request.expires_at,
            info: parse(request.info.as_deref())?,
            channel: Some(request.channel.as_str()),
            channels: Vec::new(),
        },
    )
}

fn parse(info: Option<&str>) -> Result<Option<&RawValue>, IssueError> {
    info.map(serde_json::from_str).transpose().map_err(IssueError::Info)
}

fn sign(secret: &str, claims: &IssuedClaims<'_>) -> Result<String, IssueError> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(IssueError::Signing)
}
