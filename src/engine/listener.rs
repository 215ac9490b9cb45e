//! A listener: one connection as the engine sees it, and what it is subscribed to.
//!
//! Its subscriptions are added by the connection's session and taken out by it or by shards.

use super::subscription::{Refused, Subscription, SubscriptionSet};
use crate::ids::{Channel, ConnectionId};
use crate::outbox::Outbox;
use crate::publication::ClientInfo;
use crate::sync::Arc;

/// One connection as the engine sees it.
#[derive(Debug)]
pub struct Listener {
    /// The client as other clients see it.
    pub info: Arc<ClientInfo>,
    /// The queue of frames to the client.
    pub outbox: Arc<Outbox>,
    subscriptions: Arc<SubscriptionSet>,
}

impl Listener {
    /// A listener without subscriptions.
    #[must_use]
    pub fn new(info: Arc<ClientInfo>, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { info, outbox, subscriptions: Arc::default() })
    }

    /// Id of its connection.
    pub fn id(&self) -> ConnectionId {
        self.outbox.id()
    }

    /// The subscription to a channel, if there is one.
    pub fn subscription(&self, channel: &Channel) -> Option<Arc<Subscription>> {
        self.subscriptions.get(channel)
    }

    /// The channels the server subscribed it to.
    pub fn server_side_channels(&self) -> Vec<Channel> {
        self.subscriptions.server_side_channels()
    }

    /// Adds a subscription unless there is one already or `most` are reached.
    pub(super) fn subscribe(
        &self,
        channel: Channel,
        info: Arc<ClientInfo>,
        server_side: bool,
        most: usize,
    ) -> Result<Arc<Subscription>, Refused> {
        self.subscriptions.add(channel, (info, self.outbox.clone()), server_side, most)
    }

    /// Ends the subscription to a channel; `None` when there is none.
    pub(super) fn unsubscribe(&self, channel: &Channel) -> Option<Arc<Subscription>> {
        self.subscriptions.remove(channel)
    }

    /// Ends all subscriptions.
    pub(super) fn unsubscribe_all(&self) -> impl Iterator<Item = Arc<Subscription>> + use<> {
        self.subscriptions.remove_all().into_values()
    }
}
