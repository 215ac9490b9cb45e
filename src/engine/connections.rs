//! Who is connected, for the server API.
//!
//! Split by connection, not by user: all anonymous connections are one user, and ten thousand of them
//! that come or go at once must not queue for one lock. Finding a user's connections looks at every
//! part.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::listener::Listener;
use crate::ids::ConnectionId;
use crate::sync::ShardedMutex;

/// User → connection → listener.
type ByUser = AHashMap<Arc<str>, AHashMap<ConnectionId, Arc<Listener>>>;

/// The open connections by user.
#[derive(Debug, Default)]
pub(super) struct Connections(ShardedMutex<ByUser>);

impl Connections {
    pub(super) fn insert(&self, listener: &Arc<Listener>) {
        let id = listener.id();
        self.0.of(id.0).entry(listener.info.user.clone()).or_default().insert(id, listener.clone());
    }

    /// False when it was not there.
    pub(super) fn remove(&self, listener: &Listener) -> bool {
        let user = &listener.info.user;
        let mut part = self.0.of(listener.id().0);
        let Some(of_user) = part.get_mut(user) else { return false };
        let removed = of_user.remove(&listener.id()).is_some();
        if of_user.is_empty() {
            part.remove(user);
        }
        removed
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<Arc<Listener>> {
        let found =
            |part: &mut ByUser| part.get(user).map(|found| found.values().cloned().collect::<Vec<_>>());
        self.0.each(found).flatten().flatten().collect()
    }

    /// Different users connected; all anonymous connections are one.
    pub(super) fn users(&self) -> usize {
        let users = |part: &mut ByUser| part.keys().cloned().collect::<Vec<_>>();
        self.0.each(users).flatten().collect::<AHashSet<_>>().len()
    }
}
