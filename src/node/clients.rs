//! Connected clients: made known to the rest of the node, and taken out again by themselves or by
//! the operator.

use std::sync::Arc;

use uuid::Uuid;

use super::handle::NodeHandle;
use crate::engine::Listener;
use crate::ids::Channel;
use crate::outbox::Outbox;
use crate::protocol::code::{Close, UnsubscribeCode};
use crate::publication::ClientInfo;

/// Which connections of a user are meant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientSelector<'a> {
    pub(crate) user: &'a str,
    /// Only this one; `None`: all of the user.
    pub(crate) client: Option<&'a str>,
}

impl NodeHandle {
    /// Makes a connection known under a new client id.
    pub(crate) fn connect(
        &self,
        outbox: Arc<Outbox>,
        user: Arc<str>,
        conn_info: Option<Arc<str>>,
    ) -> Arc<Listener> {
        let listener = Listener::new(Arc::new(new_client(user, conn_info)), outbox);
        self.engine.connect(&listener);
        listener
    }

    /// Takes a connection out of every room.
    pub(crate) fn disconnect(&self, listener: &Listener) {
        self.engine.disconnect(listener);
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
