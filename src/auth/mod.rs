//! Tokens, signed by the operator's backend: they name the user of a connection and the channels it
//! may listen to.
//!
//! The only code that knows JWT. Accepts HS256 and nothing else. The types of verified tokens can
//! be made by the verifier alone, so holding one is proof. Knows no message of the protocol.

mod claims;
pub(crate) mod issue;
mod jws;
mod token;

use std::fmt;
use std::sync::Arc;

use crate::ids::Channel;
use claims::Claims;
use jws::Key;

pub(crate) use token::{ServerSubscription, TokenError};

/// Checks tokens against one secret.
///
/// Times are compared without leeway: a token is expired at the second of its `exp`.
pub(crate) struct Verifier {
    key: Key,
    audience: Option<String>,
    issuer: Option<String>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("audience", &self.audience).field("issuer", &self.issuer).finish()
    }
}

/// A connection token that was checked: proof of who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedConnection {
    user: Arc<str>,
    info: Option<Arc<str>>,
    expires_at: Option<i64>,
    subscriptions: Vec<ServerSubscription>,
}

impl VerifiedConnection {
    /// The user id; empty for an anonymous user.
    pub(crate) const fn user(&self) -> &Arc<str> {
        &self.user
    }

    /// Information about the connection for others, compact JSON.
    pub(crate) const fn info(&self) -> Option<&Arc<str>> {
        self.info.as_ref()
    }

    /// Expiry of the connection, seconds since 1970 UTC; always in the future of the check.
    pub(crate) const fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }

    /// Channels the server subscribes the connection to, each once.
    pub(crate) fn subscriptions(&self) -> &[ServerSubscription] {
        &self.subscriptions
    }
}

/// A subscription token that was checked: this user may listen to this channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedSubscription {
    channel: Channel,
    info: Option<Arc<str>>,
    data: Option<Arc<str>>,
    expires_at: Option<i64>,
}

impl VerifiedSubscription {
    /// The channel.
    pub(crate) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Information about the subscription for others, compact JSON.
    pub(crate) const fn info(&self) -> Option<&Arc<str>> {
        self.info.as_ref()
    }

    /// Data for the client in the subscribe reply, compact JSON.
    pub(crate) const fn data(&self) -> Option<&Arc<str>> {
        self.data.as_ref()
    }

    /// Expiry of the subscription, seconds since 1970 UTC; always in the future of the check.
    pub(crate) const fn expires_at(&self) -> Option<i64> {
        self.expires_at
    }
}

impl Verifier {
    /// Checks against `secret`; `audience` and `issuer` must be in every token if given.
    pub(crate) fn new(secret: &str, audience: Option<String>, issuer: Option<String>) -> Self {
        Self { key: Key::new(secret), audience, issuer }
    }

    /// Checks a connection token at the time `now`, in seconds since 1970 UTC.
    ///
    /// # Errors
    /// [`TokenError`], never [`TokenError::Mismatch`].
    pub(crate) fn verify_connection(&self, token: &str, now: i64) -> Result<VerifiedConnection, TokenError> {
        let claims = self.genuine(token)?;
        if claims.names_channel() {
            return Err(TokenError::Invalid("it is a subscription token"));
        }
        let verified = VerifiedConnection {
            user: claims.user()?,
            info: claims.info()?,
            subscriptions: claims.subscriptions()?,
            expires_at: claims.expires_at(now)?,
        };
        debug_assert!(verified.expires_at.is_none_or(|at| at > now), "an expired token passed");
        Ok(verified)
    }

    /// Checks a subscription token of the connection of `user`. Without `channel` the token alone
    /// says which one it is for.
    ///
    /// # Errors
    /// [`TokenError`]
    pub(crate) fn verify_subscription(
        &self,
        token: &str,
        now: i64,
        user: &str,
        channel: Option<&Channel>,
    ) -> Result<VerifiedSubscription, TokenError> {
        let claims = self.genuine(token)?;
        let named = claims.channel()?;
        if *claims.user()? != *user || channel.is_some_and(|wanted| *wanted != named) {
            return Err(TokenError::Mismatch);
        }
        if claims.names_client() {
            return Err(TokenError::Invalid("tokens for a single connection are not supported"));
        }
        debug_assert!(channel.is_none_or(|wanted| *wanted == named));
        let verified = VerifiedSubscription {
            channel: named,
            info: claims.info()?,
            data: claims.data()?,
            expires_at: claims.expires_at(now)?,
        };
        debug_assert!(verified.expires_at.is_none_or(|at| at > now), "an expired token passed");
        Ok(verified)
    }

    /// The claims of a token with a right signature, audience and issuer.
    fn genuine(&self, token: &str) -> Result<Claims, TokenError> {
        let content = self.key.open(token).map_err(TokenError::Invalid)?;
        let claims: Claims = serde_json::from_slice(&content)
            .map_err(|_| TokenError::Invalid("header or claims are malformed"))?;
        if !self.audience.as_ref().is_none_or(|audience| claims.is_for(audience)) {
            return Err(TokenError::Invalid("it is for another audience"));
        }
        if !self.issuer.as_ref().is_none_or(|issuer| claims.is_from(issuer)) {
            return Err(TokenError::Invalid("it is from another issuer"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
