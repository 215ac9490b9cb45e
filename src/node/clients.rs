//! Connected clients: made known to the rest of the node, and taken out again by themselves or by
//! the operator.
//!
//! A server in front of the node holds a [`Client`] for each connection and nothing else of the engine.

use std::sync::Arc;

use uuid::Uuid;

use super::access::Caller;
use super::handle::NodeHandle;
use crate::engine::Listener;
use crate::ids::Channel;
use crate::outbox::Outbox;
use crate::protocol::code::{Close, UnsubscribeCode};
use crate::publication::ClientInfo;

/// A connected client: its identity, and the rooms it is subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) listener: Arc<Listener>,
}

impl Client {
    /// User id; empty for the anonymous user.
    pub(crate) fn user(&self) -> &Arc<str> {
        &self.listener.info.user
    }

    /// Unique id of the connection, as clients see it.
    pub(crate) fn id(&self) -> &Arc<str> {
        &self.listener.info.client
    }

    /// True when it can be given messages that are no JSON.
    pub(super) fn takes_bytes(&self) -> bool {
        let outbox = &self.listener.outbox;
        outbox.is_for_consumer() || !outbox.format().is_text()
    }

    /// True while it is subscribed to the channel.
    pub(crate) fn is_subscribed(&self, channel: &Channel) -> bool {
        self.listener.subscription(channel).is_some()
    }

    /// This client as the one who asks something about a channel, and as the room sees it: with the
    /// channel info of its subscription if it has one.
    pub(crate) fn in_channel(&self, channel: &Channel) -> (Caller<'_>, Arc<ClientInfo>) {
        let subscription = self.listener.subscription(channel);
        let caller = Caller::Client { user: self.user(), subscribed: subscription.is_some() };
        let info = subscription.map_or_else(|| self.listener.info.clone(), |one| one.info.clone());
        debug_assert_eq!(info.client, *self.id(), "a subscription keeps the identity of its connection");
        (caller, info)
    }

    /// The channels the server subscribed it to.
    pub(crate) fn server_side_channels(&self) -> Vec<Channel> {
        self.listener.server_side_channels()
    }
}

/// One connection of a user, or all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientSelector<'a> {
    pub(crate) user: &'a str,
    /// Only this one; `None`: all of the user.
    pub(crate) client: Option<&'a str>,
}

impl NodeHandle {
    /// Makes a connection known under a new client id.
    pub(crate) fn connect(&self, outbox: Arc<Outbox>, user: Arc<str>, conn_info: Option<Arc<str>>) -> Client {
        let listener = Listener::new(Arc::new(new_client(user, conn_info)), outbox);
        self.engine.connect(&listener);
        Client { listener }
    }

    /// Takes a connection out of every room.
    pub(crate) fn disconnect(&self, client: &Client) {
        self.engine.disconnect(&client.listener);
    }

    /// The channels every connection of this user is subscribed to by the server.
    pub(crate) fn personal_channels(&self, user: &str) -> Vec<Channel> {
        self.engine.personal_channels(user)
    }

    /// Ends connections of a user, but not those with a client id in `spared`.
    pub(crate) fn disconnect_user(&self, whom: ClientSelector<'_>, spared: &[String], close: &Close) {
        self.engine.disconnect_user(whom.user, whom.client, spared, close);
    }

    /// Ends a user's subscriptions to a channel and tells the clients.
    pub(crate) fn unsubscribe_user(&self, whom: ClientSelector<'_>, channel: &Channel) {
        self.engine.unsubscribe_user(whom.user, whom.client, channel, UnsubscribeCode::Server);
    }
}

/// A client with an id that no other has.
pub(super) fn new_client(user: Arc<str>, conn_info: Option<Arc<str>>) -> ClientInfo {
    ClientInfo { user, client: Uuid::new_v4().to_string().into(), conn_info, chan_info: None }
}
