//! The subscribe and unsubscribe commands: may the client listen, and since when.

use std::sync::Arc;

use super::{Failure, Session, ttl_seconds};
use crate::auth::{TokenError, VerifiedSubscription};
use crate::clock;
use crate::config::Namespace;
use crate::engine::{Answer, Extra, JoinRequest, Recover, Refused};
use crate::ids::Channel;
use crate::outbox::frame;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::SubscribeRequest;
use crate::publication::ClientInfo;

impl Session {
    /// Subscribes; the reply comes from the room's shard, before anything the room sends.
    pub(super) fn subscribe(&mut self, id: u32, request: SubscribeRequest) -> Result<(), Failure> {
        if let Some(code) = request.unsupported() {
            return Err(code.into());
        }
        let channel = request.channel.clone();
        let options = self.services.options(&channel)?.clone();
        let grant = self.admit(&request, &options)?;
        let listener = self.listener()?.clone();
        let expires_at = grant.as_ref().and_then(VerifiedSubscription::expires_at);
        let chan_info = grant.as_ref().and_then(VerifiedSubscription::info).cloned();
        let info = match chan_info {
            Some(_) => Arc::new(ClientInfo { chan_info, ..(*listener.info).clone() }),
            None => listener.info.clone(),
        };
        let extra = Extra {
            ttl_seconds: expires_at.map(ttl_seconds),
            data: grant.as_ref().and_then(VerifiedSubscription::data).cloned(),
        };
        let join = JoinRequest {
            recover: self.recover(&request, &options, grant.is_some()),
            channel: channel.clone(),
            info,
            extra,
            answer: Answer::Reply(id),
            server_side: false,
        };
        self.services.engine.join(&listener, join, self.services.client.channels_max).map_err(|refused| {
            match refused {
                Refused::AlreadySubscribed => ErrorCode::AlreadySubscribed,
                Refused::LimitExceeded => ErrorCode::LimitExceeded,
            }
        })?;
        if let Some(expires_at) = expires_at {
            self.expiries.set_subscription(channel, self.end_of_grace(expires_at));
        }
        Ok(())
    }

    /// Leaves a channel; also when the client was not in it. `farewell`, the reply or the push that
    /// tells so, comes behind the last message of the room.
    pub(super) fn unsubscribe(&mut self, channel: &Channel, farewell: &[u8]) {
        self.expiries.forget(channel);
        let Some(listener) = &self.listener else { return };
        if !self.services.engine.leave(listener, channel, frame::text(farewell)) {
            self.reply(|out| out.extend_from_slice(farewell));
        }
    }

    /// Checks that the client may listen; gives its token if that is what allows it.
    fn admit(
        &self,
        request: &SubscribeRequest,
        options: &Namespace,
    ) -> Result<Option<VerifiedSubscription>, Failure> {
        let channel = &request.channel;
        let asker = self.asker(channel);
        if asker.subscribed {
            return Err(ErrorCode::AlreadySubscribed.into());
        }
        let grant = match request.token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => {
                self.services.check_privacy(channel, asker.user)?;
                Some(self.verify_subscription(token, channel)?)
            }
            None if (options.token_required || channel.is_private()) && !self.services.is_open() => {
                return Err(ErrorCode::PermissionDenied.into());
            }
            None => {
                self.services.check(channel, options.subscribe, asker)?;
                None
            }
        };
        if options.persist && !options.auto_create {
            let room = self.services.store.room(channel).map_err(|_| ErrorCode::Internal)?;
            room.ok_or(ErrorCode::UnknownChannel)?;
        }
        Ok(grant)
    }

    fn verify_subscription(&self, token: &str, channel: &Channel) -> Result<VerifiedSubscription, Failure> {
        let verifier = self.services.verifier.as_ref().ok_or(ErrorCode::PermissionDenied)?;
        let user = self.asker(channel).user;
        verifier.verify_subscription(token, clock::unix_seconds(), user, Some(channel)).map_err(|error| {
            tracing::debug!(%channel, %error, "a subscription token was refused");
            match error {
                TokenError::Expired => ErrorCode::TokenExpired.into(),
                TokenError::Mismatch => CloseCode::InvalidToken.into(),
                TokenError::Invalid(_) => ErrorCode::PermissionDenied.into(),
            }
        })
    }

    fn recover(&self, request: &SubscribeRequest, options: &Namespace, granted: bool) -> Option<Recover> {
        if !request.recover {
            return None;
        }
        // Who resumes is about to be a subscriber, so it is judged as one.
        let asker = super::Asker { subscribed: true, ..self.asker(&request.channel) };
        let permitted = granted || self.services.check(&request.channel, options.read_history, asker).is_ok();
        Some(Recover {
            after: request.offset,
            epoch: request.epoch.clone(),
            permitted,
            reject_unrecovered: request.rejects_unrecovered(),
        })
    }
}
