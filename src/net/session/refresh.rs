//! The end of tokens that were not replaced in time, and the refresh commands that replace them.

use std::time::Instant;

use super::Session;
use super::expiry::ttl_seconds;
use super::outcome::{CommandError, Flow};
use crate::auth::TokenError;
use crate::clock;
use crate::ids::Channel;
use crate::protocol::code::{CloseCode, ErrorCode, UnsubscribeCode};
use crate::protocol::command::SubRefreshRequest;
use crate::protocol::push::Push;
use crate::protocol::reply::Reply;

impl Session {
    /// Ends what was not refreshed in time, and tells it at once: no turn may be under way that would.
    pub(in crate::net) fn on_expiry(&mut self) -> Flow {
        let now = Instant::now();
        if self.expiries.is_connection_expired(now) {
            return Flow::Disconnect(CloseCode::ConnectionExpired);
        }
        for channel in self.expiries.expired_subscriptions(now) {
            self.unsubscribe_expired(&channel);
        }
        self.flush_replies();
        debug_assert!(self.expiries.next().is_none_or(|at| at > now), "an expiry is handled once");
        Flow::Continue
    }

    fn unsubscribe_expired(&mut self, channel: &Channel) {
        if !self.is_subscribed(channel) {
            // It was ended by somebody else, who told the client.
            return self.expiries.forget(channel);
        }
        self.unsubscribe(channel, &Push::Unsubscribe(channel, UnsubscribeCode::Expired).into());
    }

    pub(super) fn refresh(&mut self, id: u32, token: &Option<String>) -> Result<(), CommandError> {
        let token = token.as_deref().filter(|token| !token.is_empty()).ok_or(ErrorCode::BadRequest)?;
        let verifier = self.rules.verifier.as_ref().ok_or(CloseCode::InvalidToken)?;
        self.try_token()?;
        let verified = verifier.verify_connection(token, clock::unix_seconds()).map_err(|error| {
            if !matches!(error, TokenError::Expired) {
                self.token_failed();
            }
            tracing::debug!(%error, "a refresh was refused");
            match error {
                TokenError::Expired => CloseCode::ConnectionExpired,
                _ => CloseCode::InvalidToken,
            }
        })?;
        if verified.user() != self.client()?.user() {
            return Err(CloseCode::InvalidToken.into());
        }
        if !self.holds_all(verified.subscriptions().iter().map(|grant| &grant.channel)) {
            return Err(CloseCode::InsufficientState.into());
        }
        let expires_at = verified.expires_at();
        self.expiries.set_connection(expires_at.map(|at| self.end_of_grace(at)));
        self.reply(id, Reply::Refresh(expires_at.map(ttl_seconds)));
        Ok(())
    }

    /// True when the server subscribed the client to exactly these channels besides its personal
    /// ones; if not, it has to connect anew to get them.
    fn holds_all<'a>(&self, granted: impl Iterator<Item = &'a Channel>) -> bool {
        let Some(client) = &self.client else { return false };
        let personal = self.node.personal_channels(client.user());
        let mut wanted: Vec<&Channel> = granted.filter(|channel| !personal.contains(channel)).collect();
        let mut held = client.server_side_channels();
        held.retain(|channel| !personal.contains(channel));
        wanted.sort();
        held.sort();
        held.iter().eq(wanted)
    }

    pub(super) fn sub_refresh(&mut self, id: u32, request: &SubRefreshRequest) -> Result<(), CommandError> {
        if let Some(code) = request.unsupported() {
            return Err(code.into());
        }
        let token =
            request.token.as_deref().filter(|token| !token.is_empty()).ok_or(ErrorCode::BadRequest)?;
        let verifier = self.rules.verifier.as_ref().ok_or(ErrorCode::PermissionDenied)?;
        self.try_token()?;
        let user = self.client()?.user().clone();
        let now = clock::unix_seconds();
        let verified = match verifier.verify_subscription(token, now, &user, request.channel.as_ref()) {
            Ok(verified) => verified,
            Err(TokenError::Expired) => return self.refuse_expired(request.channel.as_ref()),
            Err(error) => {
                self.token_failed();
                return Err(match error {
                    TokenError::Mismatch => CloseCode::InvalidToken.into(),
                    _ => ErrorCode::PermissionDenied.into(),
                });
            }
        };
        let channel = verified.channel().clone();
        if !self.is_subscribed(&channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        let expires_at = verified.expires_at();
        match expires_at {
            Some(at) => self.expiries.set_subscription(channel, self.end_of_grace(at)),
            None => self.expiries.forget(&channel),
        }
        self.reply(id, Reply::SubRefresh(expires_at.map(ttl_seconds)));
        Ok(())
    }

    /// An expired token in `sub_refresh`: every SDK takes an error here as the end of the
    /// subscription, so the client is told to subscribe again, which makes it fetch a new token.
    fn refuse_expired(&mut self, channel: Option<&Channel>) -> Result<(), CommandError> {
        let Some(channel) = channel.filter(|channel| self.is_subscribed(channel)).cloned() else {
            return Err(ErrorCode::TokenExpired.into());
        };
        self.unsubscribe_expired(&channel);
        // A temporary error is the one answer after which SDKs do not give up.
        Err(ErrorCode::Internal.into())
    }
}
