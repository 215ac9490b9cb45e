//! Expiries of the tokens of a connection.

use std::time::Instant;

use ahash::AHashMap;

use crate::clock;
use crate::ids::Channel;

/// The end of the grace period of each token of a connection.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    connection: Option<Instant>,
    subscriptions: AHashMap<Channel, Instant>,
    /// The earliest of them all; asked before each command.
    next: Option<Instant>,
}

impl Expiries {
    pub(super) fn set_connection(&mut self, at: Option<Instant>) {
        self.connection = at;
        self.find_next();
    }

    pub(super) fn set_subscription(&mut self, channel: Channel, at: Instant) {
        self.subscriptions.insert(channel, at);
        self.find_next();
    }

    pub(super) fn forget(&mut self, channel: &Channel) {
        if self.subscriptions.remove(channel).is_some() {
            self.find_next();
        }
    }

    pub(super) const fn next(&self) -> Option<Instant> {
        self.next
    }

    fn find_next(&mut self) {
        self.next = self.connection.into_iter().chain(self.subscriptions.values().copied()).min();
    }

    pub(super) fn is_connection_expired(&self, now: Instant) -> bool {
        self.connection.is_some_and(|at| at <= now)
    }

    pub(super) fn expired_subscriptions(&self, now: Instant) -> Vec<Channel> {
        let expired = self.subscriptions.iter().filter(|(_, at)| **at <= now);
        expired.map(|(channel, _)| channel.clone()).collect()
    }
}

/// Seconds from now to an expiry in Unix seconds, as replies tell it; at least 1.
pub(super) fn ttl_seconds(expires_at: i64) -> u32 {
    u32::try_from((expires_at - clock::unix_seconds()).max(1)).unwrap_or(u32::MAX)
}
