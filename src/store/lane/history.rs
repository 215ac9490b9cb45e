//! What a lane knows of the history that it commits to: numbers it gave, and senders that are stored. When the
//! history forks, all of it is void.

use ahash::{AHashMap, HashSet};

use crate::ids::{Channel, Seq};
use crate::store::connection::Connection;
use crate::store::lineage::Lineage;
use crate::store::models::meta;
use crate::store::origin::NoOrigin;
use crate::sync::Arc;

use super::rows::{Grown, Stored};

/// Senders a lane remembers to be rows of `users`, so that it need not ask per message.
const KNOWN_USERS_MAX: usize = 16 * 1024;

/// Rooms of which a lane remembers the head that it gave them.
const KNOWN_HEADS_MAX: usize = 16 * 1024;

/// The memory of a lane.
pub(super) struct LaneHistory {
    lineage: Arc<Lineage>,
    /// Number of the lane.
    lane: usize,
    /// The history that the rest is of, see [`Lineage::generation`].
    generation: u64,
    known_users: HashSet<Arc<str>>,
    known_heads: AHashMap<Channel, Seq>,
}

impl LaneHistory {
    pub(super) fn new(lineage: Arc<Lineage>, lane: usize) -> Self {
        let generation = lineage.generation();
        let (known_users, known_heads) = (HashSet::default(), AHashMap::default());
        Self { lineage, lane, generation, known_users, known_heads }
    }

    /// True when a connection of this lane may be used: nobody found since it was opened that the history
    /// forked.
    pub(super) fn is_current(&self) -> bool {
        self.generation == self.lineage.generation()
    }

    /// Asks a new connection for the history it shows, which is that of this lane from now on.
    pub(super) fn admit(&mut self, connection: &mut Connection) -> Result<(), NoOrigin> {
        let generation = self.lineage.admit(connection)?;
        if generation != self.generation {
            self.generation = generation;
            self.known_users.clear();
            self.known_heads.clear();
        }
        Ok(())
    }

    /// True when the user is certainly a row of `users`.
    pub(super) fn knows_user(&self, user: &str) -> bool {
        self.known_users.contains(user)
    }

    /// True when a transaction gave numbers that were given before: the database went back.
    pub(super) fn went_back(&self, grown: &[Grown]) -> bool {
        let is_known =
            |grown: &Grown| self.known_heads.get(&grown.channel).is_some_and(|head| grown.before < *head);
        !self.known_heads.is_empty() && grown.iter().any(is_known)
    }

    /// Gives the history another name, in a transaction of its own, because the database went back. The
    /// connection is to be replaced then, like all others.
    pub(super) fn renew_epoch(&self, connection: &mut Connection) -> diesel::QueryResult<()> {
        let (_, meta) = self.lineage.names();
        let meta = meta::renew_epoch(connection, &meta)?;
        self.lineage.rename(meta);
        Ok(())
    }

    /// Remembers what was committed.
    pub(super) fn note(&mut self, stored: &Stored) {
        let users = &stored.users;
        if self.known_users.len() + users.len() > KNOWN_USERS_MAX {
            self.known_users.clear();
        }
        self.known_users.extend(users.iter().cloned());
        debug_assert!(self.known_users.len() <= KNOWN_USERS_MAX.max(users.len()), "the memory is bounded");
        if self.known_heads.len() + stored.grown.len() > KNOWN_HEADS_MAX {
            self.known_heads.clear();
        }
        for Grown { channel, head, .. } in &stored.grown {
            match self.known_heads.get_mut(channel) {
                Some(known) => *known = *head,
                None => drop(self.known_heads.insert(channel.clone(), *head)),
            }
        }
        if let Some(Grown { channel, head, .. }) = stored.grown.last() {
            self.lineage.note_commit(self.lane, self.generation, (channel.clone(), *head));
        }
    }
}
