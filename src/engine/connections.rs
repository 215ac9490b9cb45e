//! Who is connected: listeners by client id and by user, for the server API.
//!
//! Split over several locks so that many connections coming or going do not queue for one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, RandomState};

use super::listener::Listener;

/// Locks the directory is split over.
const PARTS: usize = 16;

type ByUser = AHashMap<Arc<str>, AHashMap<Arc<str>, Arc<Listener>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Connections {
    /// By hash of the user: user → client id → listener.
    parts: [Mutex<ByUser>; PARTS],
    hasher: RandomState,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { parts: Default::default(), hasher: RandomState::new() }
    }

    pub(super) fn insert(&self, listener: &Arc<Listener>) {
        let info = &listener.info;
        self.part(&info.user)
            .entry(info.user.clone())
            .or_default()
            .insert(info.client.clone(), listener.clone());
    }

    /// False when it was not there.
    pub(super) fn remove(&self, listener: &Listener) -> bool {
        let info = &listener.info;
        let mut part = self.part(&info.user);
        let Some(clients) = part.get_mut(&info.user) else { return false };
        let removed = clients.remove(&info.client).is_some();
        if clients.is_empty() {
            part.remove(&info.user);
        }
        removed
    }

    pub(super) fn of_user(&self, user: &str) -> Vec<Arc<Listener>> {
        self.part(user).get(user).map(|clients| clients.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn all(&self) -> Vec<Arc<Listener>> {
        let mut all = Vec::new();
        for part in &self.parts {
            let part = lock(part);
            all.extend(part.values().flat_map(|clients| clients.values().cloned()));
        }
        all
    }

    /// Different users connected; all anonymous connections are one.
    pub(super) fn users(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    fn part(&self, user: &str) -> MutexGuard<'_, ByUser> {
        lock(&self.parts[self.hasher.hash_one(user) as usize % PARTS])
    }
}

fn lock(part: &Mutex<ByUser>) -> MutexGuard<'_, ByUser> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
