//! The subscribe and unsubscribe commands: may the client listen, and since when.

use super::Session;
use super::expiry::ttl_seconds;
use super::outcome::CommandError;
use crate::auth::{TokenError, VerifiedSubscription};
use crate::clock;
use crate::ids::Channel;
use crate::node::{Answer, Extra, Position, SubscribeOptions};
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::SubscribeRequest;
use crate::protocol::message::Message;

impl Session {
    /// Subscribes; the reply comes from the room's shard, before anything the room sends.
    pub(super) fn subscribe(&mut self, id: u32, request: SubscribeRequest) -> Result<(), CommandError> {
        if let Some(code) = request.unsupported() {
            return Err(code.into());
        }
        let channel = request.channel.clone();
        let token = request.token.as_deref().filter(|token| !token.is_empty());
        let _slot = self.slot_if(self.node.subscribe_asks(self.caller(&channel), &channel))?;
        let right = self.node.check_subscribe(self.caller(&channel), &channel, token.is_some())?;
        let grant = token.map(|token| self.verify_subscription(token, &channel)).transpose()?;
        let expires_at = grant.as_ref().and_then(VerifiedSubscription::expires_at);
        let how = SubscribeOptions {
            chan_info: grant.as_ref().and_then(VerifiedSubscription::info).cloned(),
            position: position(&request),
            extra: Extra {
                ttl_seconds: expires_at.map(ttl_seconds),
                data: grant.as_ref().and_then(VerifiedSubscription::data).cloned(),
            },
            answer: Answer::Reply(id),
            server_side: false,
        };
        self.node.subscribe(self.client()?, right, how)?;
        // That of an earlier subscription to the channel, which somebody else ended.
        self.expiries.forget(&channel);
        if let Some(expires_at) = expires_at {
            self.expiries.set_subscription(channel, self.end_of_grace(expires_at));
        }
        Ok(())
    }

    /// Leaves a channel; also when the client was not in it. `last`, the reply or the push about it, comes
    /// behind the last message of the room.
    pub(super) fn unsubscribe(&mut self, channel: &Channel, last: &Message<'_>) {
        self.expiries.forget(channel);
        let Some(client) = &self.client else { return };
        if !self.node.unsubscribe(client, channel, last) {
            self.tell(last);
        }
    }

    fn verify_subscription(
        &self,
        token: &str,
        channel: &Channel,
    ) -> Result<VerifiedSubscription, CommandError> {
        let verifier = self.rules.verifier.as_ref().ok_or(ErrorCode::PermissionDenied)?;
        self.try_token()?;
        let user = self.client()?.user();
        verifier.verify_subscription(token, clock::unix_seconds(), user, Some(channel)).map_err(|error| {
            tracing::debug!(%channel, %error, "a subscription token was refused");
            if !matches!(error, TokenError::Expired) {
                self.token_failed();
            }
            match error {
                TokenError::Expired => ErrorCode::TokenExpired.into(),
                TokenError::Mismatch => CloseCode::InvalidToken.into(),
                TokenError::Invalid(_) => ErrorCode::PermissionDenied.into(),
            }
        })
    }
}

/// The position the client returns from, if it asks for missed messages.
fn position(request: &SubscribeRequest) -> Option<Position> {
    request.recover.then(|| Position {
        after: request.offset,
        epoch: request.epoch.clone(),
        reject_unrecovered: request.rejects_unrecovered(),
    })
}
