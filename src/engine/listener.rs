//! A listener: one connection as the engine sees it, and the list of what it is subscribed to.
//!
//! The list is shared by the connection's session, which adds to it, and by shards, which take out
//! subscriptions they end. While its lock is held, only the outbox's is taken.

use ahash::AHashMap;

use crate::config::Namespace;
use crate::ids::{Channel, ConnectionId, SubscriptionId};
use crate::outbox::{Outbox, frame};
use crate::protocol::code::{CloseCode, UnsubscribeCode};
use crate::protocol::push;
use crate::publication::ClientInfo;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// See the module.
#[derive(Debug)]
pub struct Listener {
    /// Who the client is.
    pub info: Arc<ClientInfo>,
    /// Where its frames go.
    pub outbox: Arc<Outbox>,
    subscriptions: Mutex<AHashMap<Channel, Subscription>>,
}

/// One subscription of a listener.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Tells this subscription from earlier and later ones to the same channel.
    pub id: SubscriptionId,
    /// Who the client is in this room.
    pub info: Arc<ClientInfo>,
    /// Options of the room.
    pub namespace: Arc<Namespace>,
    /// Made by the server, not asked for by the client.
    pub server_side: bool,
}

/// Why a subscription was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The listener is subscribed to the channel already.
    AlreadySubscribed,
    /// The listener has as many subscriptions as it may.
    LimitExceeded,
}

impl Listener {
    /// A listener without subscriptions.
    #[must_use]
    pub fn new(info: Arc<ClientInfo>, outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self { info, outbox, subscriptions: Mutex::default() })
    }

    /// Its connection.
    pub fn id(&self) -> ConnectionId {
        self.outbox.id()
    }

    /// The subscription to a channel, if there is one.
    pub fn subscription(&self, channel: &Channel) -> Option<Subscription> {
        self.lock().get(channel).cloned()
    }

    /// The channels it is subscribed to.
    pub fn channels(&self) -> Vec<Channel> {
        self.lock().keys().cloned().collect()
    }

    /// The channels the server subscribed it to.
    pub fn server_side_channels(&self) -> Vec<Channel> {
        let subscriptions = self.lock();
        let server_side = subscriptions.iter().filter(|(_, subscription)| subscription.server_side);
        server_side.map(|(channel, _)| channel.clone()).collect()
    }

    /// Adds a subscription unless there is one already or `most` are reached.
    pub(super) fn add(
        &self,
        channel: &Channel,
        subscription: Subscription,
        most: usize,
    ) -> Result<(), Refused> {
        let mut subscriptions = self.lock();
        if subscriptions.contains_key(channel) {
            return Err(Refused::AlreadySubscribed);
        }
        if subscriptions.len() >= most {
            return Err(Refused::LimitExceeded);
        }
        subscriptions.insert(channel.clone(), subscription);
        Ok(())
    }

    /// Takes a subscription out; `None` when there is none.
    pub(super) fn remove(&self, channel: &Channel) -> Option<Subscription> {
        self.lock().remove(channel)
    }

    /// Takes a subscription out if it is still this one.
    pub(super) fn remove_exactly(&self, channel: &Channel, id: SubscriptionId) -> bool {
        let mut subscriptions = self.lock();
        let same = subscriptions.get(channel).is_some_and(|subscription| subscription.id == id);
        if same {
            subscriptions.remove(channel);
        }
        same
    }

    /// Ends a subscription that can not go on without a hole, if it is still this one, and tells the
    /// client, which then comes back and recovers: the subscription alone if the client made it, the
    /// connection if the server did, because SDKs do not renew those.
    pub(super) fn lose(&self, channel: &Channel, id: SubscriptionId) {
        let server_side = self.subscription(channel).is_some_and(|subscription| subscription.server_side);
        if !self.remove_exactly(channel, id) {
            return;
        }
        if server_side {
            let close = CloseCode::InsufficientState;
            self.outbox.close(close.number(), close.as_str());
        } else {
            let mut text = Vec::new();
            push::unsubscribe(&mut text, channel, UnsubscribeCode::InsufficientState);
            let _ = self.outbox.reply(&frame::text(&text));
        }
    }

    /// Takes all subscriptions out.
    pub(super) fn remove_all(&self) -> AHashMap<Channel, Subscription> {
        std::mem::take(&mut *self.lock())
    }

    /// True while the listener holds exactly this subscription.
    pub(super) fn holds(&self, channel: &Channel, id: SubscriptionId) -> bool {
        self.lock().get(channel).is_some_and(|subscription| subscription.id == id)
    }

    /// Does something that must not come behind the end of this subscription, such as a push: nobody
    /// can take the subscription out meanwhile. `None` when it is no longer held.
    pub(super) fn while_holding<T>(
        &self,
        channel: &Channel,
        id: SubscriptionId,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        let subscriptions = self.lock();
        let held = subscriptions.get(channel).is_some_and(|subscription| subscription.id == id);
        held.then(work)
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<Channel, Subscription>> {
        lock(&self.subscriptions)
    }
}
