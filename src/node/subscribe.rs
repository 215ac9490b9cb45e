//! Subscribing: the one way of a listener into a room, whoever asks.
//!
//! A rule about who may listen belongs in [`NodeHandle::check_subscribe`], which alone makes a
//! [`SubscribeRight`]; what holds for every subscription belongs in [`NodeHandle::subscribe`].

use std::sync::Arc;

use super::access::Caller;
use super::clients::Client;
use super::error::{AccessError, SubscribeError};
use super::handle::NodeHandle;
use crate::config::{Namespace, PayloadKind};
use crate::engine::{Answer, Extra, JoinRequest, Joined, Recover};
use crate::ids::{Channel, Seq};
use crate::protocol::message::Message;
use crate::publication::ClientInfo;

/// The right to listen to one channel. Only [`NodeHandle::check_subscribe`] makes one.
#[derive(Debug)]
pub(crate) struct SubscribeRight {
    channel: Channel,
    options: Arc<Namespace>,
    grant: Grant,
}

/// The ground on which somebody may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    /// The operator asks.
    Operator,
    /// A subscription token, which the caller of the node verifies.
    Token,
    /// The client is in the namespace's audience.
    Audience,
}

/// The position a subscriber returns from.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// The last seq it saw; 0 = none.
    pub(crate) after: Seq,
    /// The epoch it saw it in; empty = any.
    pub(crate) epoch: String,
    /// Refuse what cannot be recovered, instead of starting at the head.
    pub(crate) reject_unrecovered: bool,
}

/// Options of a new subscription.
#[derive(Debug)]
pub(crate) struct SubscribeOptions {
    /// JSON about the client in this room, compact.
    pub(crate) chan_info: Option<Arc<str>>,
    /// The position the client returns from, if it does.
    pub(crate) position: Option<Position>,
    /// Content of the answer besides the position.
    pub(crate) extra: Extra,
    /// The way to tell the outcome.
    pub(crate) answer: Answer,
    /// Made by the server, not asked for by the client.
    pub(crate) server_side: bool,
}

impl NodeHandle {
    /// Decides whether the caller may listen to a channel. With `has_token` only the privacy of the
    /// channel is checked: the token, verified by the caller of the node, allows the rest.
    ///
    /// # Errors
    /// [`SubscribeError`]
    pub(crate) fn check_subscribe(
        &self,
        caller: Caller<'_>,
        channel: &Channel,
        has_token: bool,
    ) -> Result<SubscribeRight, SubscribeError> {
        let options = self.namespace(channel)?.clone();
        let grant = match caller {
            Caller::Operator => Grant::Operator,
            Caller::Client { subscribed: true, .. } => return Err(SubscribeError::AlreadySubscribed),
            Caller::Client { user, .. } if has_token => {
                self.check_privacy(channel, user)?;
                Grant::Token
            }
            Caller::Client { .. } => {
                self.check_audience(caller, channel, options.subscribe)?;
                Grant::Audience
            }
        };
        Ok(SubscribeRight { channel: channel.clone(), options, grant })
    }

    /// True when [`check_subscribe`](Self::check_subscribe) or [`subscribe`](Self::subscribe) may have to ask the
    /// database, before anything is read for the answer.
    pub(crate) fn subscribe_asks(&self, caller: Caller<'_>, channel: &Channel) -> bool {
        let Ok(options) = self.namespace(channel) else { return false };
        let by_members = [options.subscribe, options.read_history];
        let is_client = matches!(caller, Caller::Client { .. });
        by_members.into_iter().any(|audience| self.asks_for_members(caller, channel, audience))
            || (is_client && options.persist && !options.auto_create)
    }

    /// Puts a client into a room. The outcome comes as [`SubscribeOptions::answer`] says, before
    /// anything else of the room.
    ///
    /// # Errors
    /// [`SubscribeError`], and then no answer comes.
    pub(crate) fn subscribe(
        &self,
        client: &Client,
        right: SubscribeRight,
        how: SubscribeOptions,
    ) -> Result<(), SubscribeError> {
        self.check_format(client, &right.channel)?;
        if right.grant != Grant::Operator {
            self.check_room_exists(&right)?;
        }
        let SubscribeOptions { chan_info, position, extra, answer, server_side } = how;
        debug_assert_eq!(right.channel.namespace(), right.options.name, "a right holds for its own channel");
        let listener = &client.listener;
        let recover = position.map(|position| self.recover(&listener.info.user, &right, position));
        let info = match chan_info {
            Some(_) => Arc::new(ClientInfo { chan_info, ..(*listener.info).clone() }),
            None => listener.info.clone(),
        };
        let request = JoinRequest { channel: right.channel, info, recover, extra, answer, server_side };
        Ok(self.engine.join(listener, request, self.channels_max)?)
    }

    /// Ends a subscription and tells the client `last` behind the last message of the room. False when
    /// there was no such subscription; then nothing is told.
    pub(crate) fn unsubscribe(&self, client: &Client, channel: &Channel, last: &Message<'_>) -> bool {
        self.engine.leave(&client.listener, channel, last)
    }

    /// Refuses a client that could not read the messages of a room.
    ///
    /// # Errors
    /// [`AccessError::Binary`], or that the namespace is not configured.
    pub(crate) fn check_format(&self, client: &Client, channel: &Channel) -> Result<(), AccessError> {
        let is_binary = self.namespace(channel)?.payload == PayloadKind::Binary;
        if is_binary && !client.takes_bytes() { Err(AccessError::Binary) } else { Ok(()) }
    }

    /// Rooms are created with their first message, or else only through the API.
    fn check_room_exists(&self, right: &SubscribeRight) -> Result<(), SubscribeError> {
        if !right.options.persist || right.options.auto_create {
            return Ok(());
        }
        match self.store.room(&right.channel) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(SubscribeError::UnknownRoom),
            Err(_) => Err(SubscribeError::Unavailable),
        }
    }

    /// The recovery to make: of all that was missed if the listener may read history.
    fn recover(&self, user: &str, right: &SubscribeRight, position: Position) -> Recover {
        // A client that resumes is about to be a subscriber, so it is judged as one.
        let caller = Caller::Client { user, subscribed: true };
        let permitted = right.grant != Grant::Audience
            || self.check_audience(caller, &right.channel, right.options.read_history).is_ok();
        let Position { after, epoch, reject_unrecovered } = position;
        Recover { after, epoch, permitted, reject_unrecovered }
    }
}

/// True when the missed messages of a new subscription start right after its position, without a hole.
pub(crate) fn is_gapless(joined: &Joined) -> bool {
    joined.publications.iter().zip(joined.offset + 1..).all(|(publication, seq)| publication.seq == seq)
}
