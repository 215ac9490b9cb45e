//! The listeners of one room: joining, leaving and finding one are O(1), walking them is a slice.

use std::sync::Arc;

use ahash::AHashMap;

use super::listener::Listener;
use crate::ids::{ConnectionId, SubscriptionId};
use crate::outbox::Outbox;
use crate::publication::ClientInfo;

/// One listener in one room.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The listener's outbox, held here too so that a fan-out touches one pointer less.
    pub(super) outbox: Arc<Outbox>,
    /// Gets what the room sends; false while the catch-up pool serves it.
    pub(super) live: bool,
    pub(super) subscription: SubscriptionId,
    pub(super) info: Arc<ClientInfo>,
    pub(super) listener: Arc<Listener>,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Members {
    list: Vec<Member>,
    /// Position in `list` by connection.
    index: AHashMap<ConnectionId, usize>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn as_slice(&self) -> &[Member] {
        &self.list
    }

    /// Adds a member; an older one of the same connection is replaced and returned.
    pub(super) fn insert(&mut self, member: Member) -> Option<Member> {
        let id = member.outbox.id();
        if let Some(&position) = self.index.get(&id) {
            return Some(std::mem::replace(&mut self.list[position], member));
        }
        self.index.insert(id, self.list.len());
        self.list.push(member);
        None
    }

    /// Removes the member if it still is this subscription.
    pub(super) fn remove(&mut self, id: ConnectionId, subscription: SubscriptionId) -> Option<Member> {
        let position = self.position(id, subscription)?;
        self.index.remove(&id);
        let member = self.list.swap_remove(position);
        if let Some(moved) = self.list.get(position) {
            self.index.insert(moved.outbox.id(), position);
        }
        if self.list.is_empty() {
            *self = Self::default();
        }
        Some(member)
    }

    /// The member, if it still is this subscription.
    pub(super) fn get_mut(&mut self, id: ConnectionId, subscription: SubscriptionId) -> Option<&mut Member> {
        let position = self.position(id, subscription)?;
        self.list.get_mut(position)
    }

    /// The member at a position of [`as_slice`](Self::as_slice).
    pub(super) fn at_mut(&mut self, position: usize) -> &mut Member {
        &mut self.list[position]
    }

    /// Takes all members out.
    pub(super) fn take_all(&mut self) -> Vec<Member> {
        std::mem::take(self).list
    }

    fn position(&self, id: ConnectionId, subscription: SubscriptionId) -> Option<usize> {
        let position = *self.index.get(&id)?;
        (self.list[position].subscription == subscription).then_some(position)
    }
}
