//! The clock of one connection: pings, pongs, and the deadlines of connect and tokens.
//!
//! Asked when the connection has a turn or its next deadline has come. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a ping.
    Ping,
    /// The client did not answer a ping in time.
    NoPong,
    /// The client did not send connect in time.
    NoConnect,
    /// A token expired and its grace is over; the session knows which.
    Expiry,
}

/// Deadlines of one connection: the next ping, the pong it waits for, connect, and token expiries.
#[derive(Debug)]
pub(super) struct Timers {
    ping_interval: Duration,
    pong_timeout: Duration,
    /// Until connect: when it must have come.
    connect_by: Option<Instant>,
    ping_at: Option<Instant>,
    pong_by: Option<Instant>,
    expiry_at: Option<Instant>,
}

impl Timers {
    /// The clock of a socket that has just become a WebSocket.
    pub(super) fn new(
        now: Instant,
        connect_timeout: Duration,
        ping_interval: Duration,
        pong_timeout: Duration,
    ) -> Self {
        Self {
            ping_interval,
            pong_timeout,
            connect_by: Some(now + connect_timeout),
            ping_at: None,
            pong_by: None,
            expiry_at: None,
        }
    }

    /// The client is connected; `spread` in 0..=255 places the first ping between half an interval
    /// and a whole one, so that connections made at once are not pinged at once.
    pub(super) fn connected(&mut self, now: Instant, spread: u8) {
        debug_assert!(self.connect_by.is_some(), "a client connects once");
        self.connect_by = None;
        let half = self.ping_interval / 2;
        self.ping_at = Some(now + half + half * u32::from(spread) / 255);
        self.check();
    }

    /// The client answered a ping.
    pub(super) fn pong(&mut self) {
        self.pong_by = None;
    }

    /// Sets the next end of a token's grace; `None`: nothing expires.
    pub(super) fn set_expiry(&mut self, at: Option<Instant>) {
        debug_assert!(at.is_none() || self.connect_by.is_none(), "only tokens of a connected client expire");
        self.expiry_at = at;
    }

    /// The next moment at which something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        [self.connect_by, self.ping_at, self.pong_by, self.expiry_at].into_iter().flatten().min()
    }

    /// The next ping.
    pub(super) fn ping_at(&self) -> Option<Instant> {
        self.ping_at
    }

    /// True when a ping is due, which is taken as sent, whatever else is due.
    pub(super) fn take_due_ping(&mut self, now: Instant) -> bool {
        let Some(at) = self.ping_at.filter(|at| *at <= now) else { return false };
        self.ping_at = Some(self.next_beat(at, now));
        self.pong_by.get_or_insert(now + self.pong_timeout);
        self.check();
        true
    }

    /// The most urgent thing that is due now. A ping that is due is taken as sent. `answerable` is
    /// false while the client may not have seen the ping because frames are on their way before it;
    /// then a missing pong is no sign of death.
    pub(super) fn due(&mut self, now: Instant, answerable: bool) -> Option<Due> {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if passed(self.connect_by) {
            return Some(Due::NoConnect);
        }
        if passed(self.expiry_at) {
            self.expiry_at = None;
            return Some(Due::Expiry);
        }
        if passed(self.pong_by) {
            if answerable {
                return Some(Due::NoPong);
            }
            self.pong_by = Some(now + self.pong_timeout);
        }
        if self.take_due_ping(now) {
            return Some(Due::Ping);
        }
        debug_assert!(self.next().is_none_or(|next| next > now), "nothing that is due is left over");
        None
    }

    /// The first moment behind `now` that is whole intervals after `at`. A connection keeps its beat, so that
    /// pings stay spread after a moment at which many were late.
    fn next_beat(&self, at: Instant, now: Instant) -> Instant {
        let late = now.saturating_duration_since(at);
        let missed = late.as_nanos() / self.ping_interval.as_nanos().max(1);
        let beats = u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1);
        at.checked_add(self.ping_interval.saturating_mul(beats)).unwrap_or(now + self.ping_interval)
    }

    fn check(&self) {
        debug_assert!(
            self.connect_by.is_some() != self.ping_at.is_some(),
            "a client has to connect, and is pinged from then on"
        );
        debug_assert!(self.pong_by.is_none() || self.ping_at.is_some(), "a pong answers a ping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_client_must_connect_then_answer_pings() {
        let start = Instant::now();
        let mut timers = Timers::new(start, seconds(15), seconds(25), seconds(8));
        assert_eq!(timers.next(), Some(start + seconds(15)));
        assert_eq!(timers.due(start + seconds(14), true), None);
        assert_eq!(timers.due(start + seconds(15), true), Some(Due::NoConnect));

        timers.connected(start, 255);
        assert_eq!(timers.next(), Some(start + seconds(25)));
        assert_eq!(timers.due(start + seconds(25), true), Some(Due::Ping));
        assert_eq!(timers.next(), Some(start + seconds(33)));
        timers.pong();
        assert_eq!(timers.due(start + seconds(40), true), None);
        assert_eq!(timers.due(start + seconds(50), true), Some(Due::Ping));
        assert_eq!(timers.due(start + seconds(58), false), None, "a client that lags is not judged");
        assert_eq!(timers.due(start + seconds(66), true), Some(Due::NoPong));
    }

    #[test]
    fn a_late_ping_shifts_no_other() {
        let start = Instant::now();
        let mut timers = Timers::new(start, seconds(15), seconds(25), seconds(8));
        timers.connected(start, 255);
        assert_eq!(timers.due(start + seconds(40), true), Some(Due::Ping));
        timers.pong();
        assert_eq!(timers.next(), Some(start + seconds(50)));
        assert_eq!(timers.due(start + seconds(101), true), Some(Due::Ping), "missed ones are left out");
        timers.pong();
        assert_eq!(timers.next(), Some(start + seconds(125)));
    }

    #[test]
    fn the_first_ping_is_spread_over_half_an_interval() {
        let start = Instant::now();
        let mut timers = Timers::new(start, seconds(15), seconds(20), seconds(8));
        timers.connected(start, 0);
        assert_eq!(timers.next(), Some(start + seconds(10)));
    }

    #[test]
    fn an_expiry_is_told_once() {
        let start = Instant::now();
        let mut timers = Timers::new(start, seconds(15), seconds(25), seconds(8));
        timers.connected(start, 255);
        timers.set_expiry(Some(start + seconds(3)));
        assert_eq!(timers.due(start + seconds(3), true), Some(Due::Expiry));
        assert_eq!(timers.due(start + seconds(3), true), None);
    }
}
