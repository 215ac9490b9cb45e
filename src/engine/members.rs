//! The listeners of one room: joining, leaving and finding one are O(1), walking them is a slice.
//!
//! Keeps count of those that are live, by what they take: frames of a format, or publications; only its
//! own methods change whether a member is.

use std::sync::{Arc, LazyLock};

use ahash::AHashMap;

use super::packing::Receivers;
use super::subscription::Subscription;
use crate::ids::ConnectionId;
use crate::outbox::Outbox;
use crate::protocol::format::{Format, PerFormat};

/// Members up to which the count of live ones is checked after every change, in a debug build.
const MEMBERS_CHECKED_MAX: usize = 64;

/// One listener in one room.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// The subscription's outbox, held here too so that a fan-out touches one pointer less.
    outbox: Arc<Outbox>,
    /// Gets what the room sends; false while the catch-up pool serves it.
    live: bool,
    subscription: Arc<Subscription>,
}

/// The members of one room.
#[derive(Debug, Default, Clone)]
pub(super) struct Members {
    list: Vec<Member>,
    /// Index in `list` by connection.
    index: AHashMap<ConnectionId, usize>,
    live: usize,
    /// Live ones with a socket, by the format of their frames. The others are consumers in this process.
    live_sockets: PerFormat<usize>,
}

impl Member {
    pub(super) fn new(subscription: Arc<Subscription>, live: bool) -> Self {
        Self { outbox: subscription.outbox.clone(), live, subscription }
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn subscription(&self) -> &Arc<Subscription> {
        &self.subscription
    }

    /// The format of its frames; `None` for a consumer in this process.
    fn format(&self) -> Option<Format> {
        (!self.outbox.is_for_consumer()).then(|| self.outbox.format())
    }
}

impl Members {
    /// The members of every room that has none: most rooms never have one.
    pub(super) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Members>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Number of live members.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// The kinds of members that are live.
    pub(super) fn receivers(&self) -> Receivers {
        let sockets = self.live_sockets.values().sum::<usize>();
        Receivers {
            sockets: PerFormat::from_fn(|format| self.live_sockets[format] > 0),
            consumers: self.live > sockets,
        }
    }

    pub(super) fn as_slice(&self) -> &[Member] {
        &self.list
    }

    /// Adds a member; an older one of the same connection is replaced and returned.
    pub(super) fn insert(&mut self, member: Member) -> Option<Member> {
        let id = member.outbox.id();
        if member.live {
            self.count_in(member.format());
        }
        let replaced = match self.index.get(&id) {
            Some(&index) => Some(std::mem::replace(&mut self.list[index], member)),
            None => {
                self.index.insert(id, self.list.len());
                self.list.push(member);
                None
            }
        };
        if let Some(replaced) = replaced.as_ref().filter(|replaced| replaced.live) {
            self.count_out(replaced.format());
        }
        self.assert_consistent();
        replaced
    }

    /// Removes the member if it still is of this subscription.
    pub(super) fn remove(&mut self, subscription: &Subscription) -> Option<Member> {
        let index = self.index_of(subscription)?;
        self.index.remove(&subscription.connection());
        let member = self.list.swap_remove(index);
        if member.live {
            self.count_out(member.format());
        }
        if let Some(moved) = self.list.get(index) {
            self.index.insert(moved.outbox.id(), index);
        }
        if self.list.is_empty() {
            debug_assert_eq!(self.live, 0, "nobody is live in an empty room");
            *self = Self::default();
        }
        self.assert_consistent();
        Some(member)
    }

    /// Index of the member, if it still is of this subscription.
    pub(super) fn index_of(&self, subscription: &Subscription) -> Option<usize> {
        let index = *self.index.get(&subscription.connection())?;
        (self.list[index].subscription.id() == subscription.id()).then_some(index)
    }

    /// Makes a member live that was served from the log.
    pub(super) fn set_live(&mut self, index: usize) {
        let member = &mut self.list[index];
        debug_assert!(!member.live, "a member comes back from the log once");
        member.live = true;
        let format = member.format();
        self.count_in(format);
        self.assert_consistent();
    }

    /// Takes a live member out of live delivery.
    pub(super) fn set_lagging(&mut self, index: usize) {
        let member = &mut self.list[index];
        debug_assert!(member.live, "a member is served from the log by one job");
        member.live = false;
        let format = member.format();
        self.count_out(format);
        self.assert_consistent();
    }

    /// Takes all members out.
    pub(super) fn take_all(&mut self) -> Vec<Member> {
        std::mem::take(self).list
    }

    /// One more is live.
    fn count_in(&mut self, format: Option<Format>) {
        self.live += 1;
        if let Some(format) = format {
            self.live_sockets[format] += 1;
        }
    }

    /// One less is live.
    fn count_out(&mut self, format: Option<Format>) {
        self.live -= 1;
        if let Some(format) = format {
            self.live_sockets[format] -= 1;
        }
    }

    fn assert_consistent(&self) {
        debug_assert_eq!(self.index.len(), self.list.len(), "one index entry a member");
        debug_assert!(self.live <= self.list.len() && self.live_sockets.values().sum::<usize>() <= self.live);
        if cfg!(debug_assertions) && self.list.len() <= MEMBERS_CHECKED_MAX {
            let live = || self.list.iter().filter(|member| member.live);
            let of = |format| live().filter(|member| member.format() == Some(format)).count();
            let counted = (self.live, self.live_sockets);
            let found = (live().count(), PerFormat::from_fn(of));
            assert_eq!(counted, found, "live members were counted wrongly");
            let found =
                |(index, member): (usize, &Member)| self.index.get(&member.outbox.id()) == Some(&index);
            assert!(self.list.iter().enumerate().all(found), "the index does not find its member");
        }
    }
}
