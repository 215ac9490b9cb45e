//! A subscription: one connection's interest in one room, from the request to its end.
//!
//! The listener holds it in its set, the room in its member list, a job of the catch-up pool while it
//! is served from the log. It is held as long as it is in the set; whoever takes it out ends it. The
//! way back to the set is weak, so that a connection that is gone leaves nothing behind. While the
//! lock of the set is held, only the outbox's is taken.

use std::sync::Weak;

use ahash::AHashMap;

use crate::ids::{Channel, ConnectionId, SubscriptionId};
use crate::outbox::{Outbox, frame};
use crate::protocol::code::{CloseCode, UnsubscribeCode};
use crate::protocol::message::Message;
use crate::protocol::push::Push;
use crate::protocol::reply::Reply;
use crate::publication::ClientInfo;
use crate::sync::{Arc, Mutex, MutexGuard, lock};

/// One subscription of a connection to a room.
#[derive(Debug)]
pub struct Subscription {
    /// The room.
    pub channel: Channel,
    /// The client as the room sees it.
    pub info: Arc<ClientInfo>,
    /// Made by the server, not asked for by the client.
    pub server_side: bool,
    /// The outbox of the connection.
    pub outbox: Arc<Outbox>,
    /// Tells this subscription from earlier and later ones of the connection to the same room.
    id: SubscriptionId,
    set: Weak<SubscriptionSet>,
}

/// Reason for which a subscription was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The listener is subscribed to the channel already.
    AlreadySubscribed,
    /// The listener has as many subscriptions as it may.
    LimitExceeded,
}

/// The subscriptions of one connection, at most one a channel.
#[derive(Debug, Default)]
pub(super) struct SubscriptionSet(Mutex<AHashMap<Channel, Arc<Subscription>>>);

impl Subscription {
    pub(super) fn id(&self) -> SubscriptionId {
        self.id
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.outbox.id()
    }

    /// True until it was ended by anybody, or its connection is gone.
    pub(super) fn is_held(&self) -> bool {
        self.while_held(|| ()).is_some()
    }

    /// Does something that must not come behind the end of this subscription, such as a push: nobody
    /// can end it meanwhile. `None` when it is no longer held.
    pub(super) fn while_held<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let set = self.set.upgrade()?;
        let held = set.lock();
        self.is_in(&held).then(work)
    }

    /// Ends it. False when it had ended already.
    pub(super) fn end(&self) -> bool {
        let Some(set) = self.set.upgrade() else { return false };
        let mut held = set.lock();
        let was_held = self.is_in(&held);
        if was_held {
            held.remove(&self.channel);
        }
        was_held
    }

    /// Ends it because messages are missing, and tells the client, which then comes back and recovers:
    /// the subscription alone if the client made it, the connection if the server did, because SDKs do
    /// not renew those.
    pub(super) fn end_with_gap(&self) {
        if !self.end() {
            return;
        }
        debug_assert!(!self.is_held(), "it was ended");
        if self.server_side {
            let close = CloseCode::InsufficientState;
            self.outbox.close(close.number(), close.as_str());
        } else {
            let code = UnsubscribeCode::InsufficientState;
            let push = Push::Unsubscribe(&self.channel, code);
            let _ = self.outbox.reply(&frame::message(self.outbox.format(), &push.into()));
        }
    }

    /// Answers the command of its client that has this id.
    pub(super) fn reply(&self, id: u32, reply: Reply<'_>) {
        let frame = frame::message(self.outbox.format(), &Message::Reply(id, reply));
        let _ = self.outbox.reply(&frame);
    }

    fn is_in(&self, held: &AHashMap<Channel, Arc<Self>>) -> bool {
        held.get(&self.channel).is_some_and(|held| held.id == self.id)
    }
}

impl SubscriptionSet {
    /// Adds a subscription unless there is one to its channel already or the set has `most`.
    pub(super) fn add(
        self: &Arc<Self>,
        channel: Channel,
        (info, outbox): (Arc<ClientInfo>, Arc<Outbox>),
        server_side: bool,
        most: usize,
    ) -> Result<Arc<Subscription>, Refused> {
        let mut held = self.lock();
        if held.contains_key(&channel) {
            return Err(Refused::AlreadySubscribed);
        }
        if held.len() >= most {
            return Err(Refused::LimitExceeded);
        }
        let (id, set) = (SubscriptionId::next(), Arc::downgrade(self));
        let subscription = Arc::new(Subscription { channel, info, server_side, outbox, id, set });
        held.insert(subscription.channel.clone(), subscription.clone());
        debug_assert!(held.len() <= most);
        Ok(subscription)
    }

    pub(super) fn get(&self, channel: &Channel) -> Option<Arc<Subscription>> {
        self.lock().get(channel).cloned()
    }

    pub(super) fn remove(&self, channel: &Channel) -> Option<Arc<Subscription>> {
        let removed = self.lock().remove(channel);
        debug_assert!(removed.as_ref().is_none_or(|removed| removed.channel == *channel));
        removed
    }

    pub(super) fn remove_all(&self) -> AHashMap<Channel, Arc<Subscription>> {
        std::mem::take(&mut *self.lock())
    }

    /// The channels the server subscribed the connection to.
    pub(super) fn server_side_channels(&self) -> Vec<Channel> {
        let held = self.lock();
        let server_side = held.values().filter(|subscription| subscription.server_side);
        server_side.map(|subscription| subscription.channel.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, AHashMap<Channel, Arc<Subscription>>> {
        lock(&self.0)
    }
}
