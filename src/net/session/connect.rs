//! The connect command: who the client is, and what the server subscribes it to.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use super::Session;
use super::expiry::ttl_seconds;
use super::joining::Joining;
use super::outcome::{CommandError, Flow};
use crate::auth::{TokenError, VerifiedConnection};
use crate::clock;
use crate::ids::Channel;
use crate::limits::PAGE_BYTES_MAX;
use crate::node::{Answer, Caller, Client, Extra, Joined, Position, SubscribeError, SubscribeOptions};
use crate::outbox::frame::Frames;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::{ConnectRequest, RecoverRequest};
use crate::protocol::message::Message;
use crate::protocol::push::Push;
use crate::protocol::reply::{ConnectResult, Reply};

/// A channel the server subscribes a client to, with what its token says about it.
pub(super) struct ServerSide {
    pub(super) channel: Channel,
    pub(super) chan_info: Option<Arc<str>>,
    pub(super) data: Option<Arc<str>>,
}

/// The client that connects.
struct ClientIdentity {
    user: Arc<str>,
    conn_info: Option<Arc<str>>,
    /// Unix seconds.
    expires_at: Option<i64>,
    subscriptions: Vec<ServerSide>,
}

impl Session {
    /// Begins to connect: the reply comes when the server-side subscriptions are answered, which wakes the
    /// connection.
    pub(super) fn connect(&mut self, id: u32, request: ConnectRequest) -> Result<(), CommandError> {
        debug_assert!(self.client.is_none(), "a session connects once");
        let identity = self.identify(&request)?;
        self.count_connect()?;
        let ClientIdentity { user, conn_info, expires_at, subscriptions } = identity;
        if request.token.as_ref().is_some_and(|token| !token.is_empty()) && !user.is_empty() {
            self.who = self.rules.rates.user(&user);
        }
        let client = self.node.connect(self.outbox.clone(), user, conn_info);
        self.client = Some(client.clone());
        let (sender, answers) = unbounded();
        let awaited = subscriptions.len();
        for subscription in subscriptions {
            let returns =
                request.subs.iter().find(|(name, one)| *name == subscription.channel && one.recover);
            self.subscribe_server_side(&client, subscription, returns.map(|(_, one)| one), sender.clone())?;
        }
        self.joining = Some(Box::new(Joining::new(id, expires_at, answers, awaited)));
        self.go_on_connecting()
    }

    /// Goes on with a connect that waits for its subscriptions: `Flow::Wait` while some are missing.
    pub(in crate::net) fn resume(&mut self) -> Flow {
        let id = self.joining.as_ref().map_or(0, |joining| joining.id);
        match self.go_on_connecting() {
            Ok(()) if self.joining.is_some() => Flow::Wait(0),
            Err(CommandError::Wait) => Flow::Wait(0),
            Ok(()) => Flow::Continue,
            Err(CommandError::Close(code)) => Flow::Disconnect(code),
            Err(CommandError::Error(code)) => {
                let _ = self.fail(id, code);
                self.refuse()
            }
        }
    }

    fn go_on_connecting(&mut self) -> Result<(), CommandError> {
        let Some(joining) = &mut self.joining else { return Ok(()) };
        match joining.take_answers() {
            Ok(false) => Ok(()),
            Ok(true) => {
                if let Some(joining) = self.joining.take() {
                    self.finish_connect(&joining)?;
                }
                Ok(())
            }
            Err(code) => {
                self.joining = None;
                Err(code.into())
            }
        }
    }

    fn finish_connect(&mut self, joining: &Joining) -> Result<(), CommandError> {
        if let Some(expires_at) = joining.expires_at {
            self.expiries.set_connection(Some(self.end_of_grace(expires_at)));
        }
        let mut space = PAGE_BYTES_MAX;
        let (subs, late): (Vec<_>, Vec<_>) = joining
            .joined
            .iter()
            .map(|(channel, one)| {
                let (now, late) = one.publications_within(&mut space);
                ((channel.clone(), one.to_wire(now)), late)
            })
            .unzip();
        let result = ConnectResult {
            client: self.client()?.id(),
            version: env!("CARGO_PKG_VERSION"),
            ttl_seconds: joining.expires_at.map(ttl_seconds),
            data: None,
            subs: &subs,
            ping_seconds: ping_seconds(self.rules.client.ping_interval),
            pong: true,
        };
        let mut frames = Frames::new(self.outbox.format());
        frames.add(&Message::Reply(joining.id, Reply::Connect(&result)));
        for publication in late.into_iter().flatten() {
            frames.add(&Push::Publication(publication).into());
        }
        let _ = self.outbox.uncork(&frames.take());
        Ok(())
    }

    fn identify(&self, request: &ConnectRequest) -> Result<ClientIdentity, CommandError> {
        let Some(token) = request.token.as_deref().filter(|token| !token.is_empty()) else {
            return self.identify_without_token(request);
        };
        let Some(verifier) = &self.rules.verifier else {
            tracing::debug!("a token came, but client.token_hmac_secret is not set");
            return Err(CloseCode::InvalidToken.into());
        };
        self.try_token()?;
        let verified = match verifier.verify_connection(token, clock::unix_seconds()) {
            Ok(verified) => verified,
            Err(TokenError::Expired) => return Err(ErrorCode::TokenExpired.into()),
            Err(error) => {
                self.token_failed();
                tracing::debug!(%error, "a connection token was refused");
                return Err(CloseCode::InvalidToken.into());
            }
        };
        if verified.user().is_empty() && !self.allows_anonymous() {
            return Err(CloseCode::PermissionDenied.into());
        }
        Ok(self.identity_of(&verified))
    }

    fn identity_of(&self, verified: &VerifiedConnection) -> ClientIdentity {
        let mut subscriptions = server_side(verified);
        self.add_personal(verified.user(), &mut subscriptions);
        ClientIdentity {
            user: verified.user().clone(),
            conn_info: verified.info().cloned(),
            expires_at: verified.expires_at(),
            subscriptions,
        }
    }

    fn identify_without_token(&self, request: &ConnectRequest) -> Result<ClientIdentity, CommandError> {
        if !self.allows_anonymous() {
            return Err(CloseCode::BadRequest.into());
        }
        // Without a secret there is nothing to prove an identity by, so the client's word is taken. With one, a
        // name is another user's, who proves it by a token.
        let is_word_taken = self.node.is_open() && self.rules.verifier.is_none();
        let claimed = if is_word_taken { request.named_user().ok() } else { None };
        let user = claimed.unwrap_or_default();
        let mut subscriptions = Vec::new();
        self.add_personal(&user, &mut subscriptions);
        Ok(ClientIdentity { user, conn_info: None, expires_at: None, subscriptions })
    }

    fn allows_anonymous(&self) -> bool {
        self.node.is_open() || self.rules.client.allow_anonymous
    }

    /// Adds the user's own channel in every namespace that has them.
    fn add_personal(&self, user: &str, subscriptions: &mut Vec<ServerSide>) {
        if user.is_empty() {
            return;
        }
        for channel in self.node.personal_channels(user) {
            if !subscriptions.iter().any(|one| one.channel == channel) {
                subscriptions.push(ServerSide { channel, chan_info: None, data: None });
            }
        }
    }

    fn subscribe_server_side(
        &self,
        client: &Client,
        subscription: ServerSide,
        previous: Option<&RecoverRequest>,
        sender: Sender<(Channel, Result<Joined, ErrorCode>)>,
    ) -> Result<(), CommandError> {
        let ServerSide { channel, chan_info, data } = subscription;
        let Ok(right) = self.node.check_subscribe(Caller::Operator, &channel, false) else {
            tracing::warn!(%channel, "a server-side subscription names an unknown namespace");
            return Err(CloseCode::BadRequest.into());
        };
        let position = |previous: &RecoverRequest| Position {
            after: previous.offset,
            epoch: previous.epoch.clone(),
            reject_unrecovered: false,
        };
        let how = SubscribeOptions {
            chan_info,
            position: previous.map(position),
            extra: Extra { ttl_seconds: None, data },
            answer: Answer::Collect(sender),
            server_side: true,
        };
        self.node.subscribe(client, right, how).map_err(|error| match error {
            SubscribeError::Binary => error.code().into(),
            _ => CloseCode::ChannelLimit.into(),
        })
    }
}

/// The channels a token subscribes its bearer to.
pub(super) fn server_side(verified: &VerifiedConnection) -> Vec<ServerSide> {
    let grants = verified.subscriptions().iter();
    grants
        .map(|grant| ServerSide {
            channel: grant.channel.clone(),
            chan_info: grant.info.clone(),
            data: grant.data.clone(),
        })
        .collect()
}

/// The ping interval as the client is told it: whole seconds, rounded up so that it is never early.
fn ping_seconds(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}
