//! The connect command: who the client is, and what the server subscribes it to.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::Session;
use super::expiry::ttl_seconds;
use super::outcome::CommandError;
use crate::auth::{TokenError, VerifiedConnection};
use crate::clock;
use crate::ids::Channel;
use crate::node::{Answer, Caller, Client, Extra, Joined, Position, SubscribeOptions, is_gapless};
use crate::outbox::frame;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::{ConnectRequest, RecoverRequest};
use crate::protocol::reply::{self, ConnectResult};
use crate::sync::blocking;

/// Longest wait for the positions of server-side subscriptions; a client waits no longer either.
const SUBSCRIPTIONS_WAIT: Duration = Duration::from_secs(5);

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
    pub(super) fn connect(&mut self, id: u32, request: ConnectRequest) -> Result<(), CommandError> {
        debug_assert!(self.client.is_none(), "a session connects once");
        let identity = self.identify(&request)?;
        let ClientIdentity { user, conn_info, expires_at, subscriptions } = identity;
        let client = self.node.connect(self.outbox.clone(), user, conn_info);
        self.client = Some(client.clone());

        let joined = self.join_server_side(&client, subscriptions, &request.subs)?;
        if let Some(expires_at) = expires_at {
            self.expiries.set_connection(Some(self.end_of_grace(expires_at)));
        }
        let lists: Vec<_> = joined.iter().map(|(_, one)| one.encode_publications()).collect();
        let subs: Vec<_> = joined
            .iter()
            .zip(&lists)
            .map(|((channel, one), publications)| (channel.clone(), one.to_wire(publications)))
            .collect();
        let result = ConnectResult {
            client: client.id(),
            version: env!("CARGO_PKG_VERSION"),
            ttl_seconds: expires_at.map(ttl_seconds),
            data: None,
            subs: &subs,
            ping_seconds: ping_seconds(self.rules.client.ping_interval),
            pong: true,
        };
        let _ = self.outbox.uncork(&frame::encode(|out| reply::connect(out, id, &result)));
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
        let verified = match verifier.verify_connection(token, clock::unix_seconds()) {
            Ok(verified) => verified,
            Err(TokenError::Expired) => return Err(ErrorCode::TokenExpired.into()),
            Err(error) => {
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
        // Without tokens there is nothing to prove an identity by, so the client's word is taken.
        let claimed = if self.node.is_open() { request.named_user().ok() } else { None };
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

    /// Joins the channels and waits for where each stands.
    fn join_server_side(
        &self,
        client: &Client,
        subscriptions: Vec<ServerSide>,
        previous: &[(Channel, RecoverRequest)],
    ) -> Result<Vec<(Channel, Joined)>, CommandError> {
        let (sender, answers) = unbounded();
        let awaited = subscriptions.len();
        for subscription in subscriptions {
            let returns = previous.iter().find(|(name, one)| *name == subscription.channel && one.recover);
            self.subscribe_server_side(client, subscription, returns.map(|(_, one)| one), sender.clone())?;
        }
        drop(sender);
        blocking::waiting(|| collect(&answers, awaited))
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
        self.node.subscribe(client, right, how).map_err(|_| CloseCode::ChannelLimit.into())
    }
}

fn collect(
    answers: &Receiver<(Channel, Result<Joined, ErrorCode>)>,
    awaited: usize,
) -> Result<Vec<(Channel, Joined)>, CommandError> {
    let mut joined = Vec::with_capacity(awaited);
    for _ in 0..awaited {
        match answers.recv_timeout(SUBSCRIPTIONS_WAIT) {
            Ok((channel, Ok(one))) => {
                debug_assert!(is_gapless(&one), "a recovered range of {channel} has a hole");
                joined.push((channel, one));
            }
            Ok((_, Err(code))) => return Err(code.into()),
            Err(_) => return Err(ErrorCode::Internal.into()),
        }
    }
    Ok(joined)
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
