//! When a room was used, and how long it stays in memory once nobody uses it: as long as it was in use before, at most
//! `rooms.idle_timeout`. So a name that was only touched leaves at once, and nobody makes the server
//! remember rooms for longer than he used them.

use std::time::{Duration, Instant};

/// Shorter use is none: the room leaves at once.
const USE_LEAST: Duration = Duration::from_secs(1);

/// The use that a message counts for, also when nobody hears it: those that come back for it find it in
/// memory, and a room that gets one every few seconds is not brought in anew for each.
const MESSAGE_USE: Duration = Duration::from_secs(10);

/// The use of one room since it came into memory. Its listeners and messages count; joins that wait for
/// the room do not.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Usage {
    /// Since when the room is in memory.
    pub(super) active_since: Instant,
    /// Last message or join.
    pub(in crate::engine) last_activity: Instant,
    /// Time of the room's timer in its shard.
    pub(in crate::engine) timer: Instant,
    /// The first and the last moment of use.
    span: Option<(Instant, Instant)>,
    had_message: bool,
}

impl Usage {
    pub(super) fn new(now: Instant, timer: Instant) -> Self {
        Self { active_since: now, last_activity: now, timer, span: None, had_message: false }
    }

    /// Notes that a listener is there, or was until now.
    pub(super) fn note_listener(&mut self, now: Instant) {
        let (since, _) = self.span.unwrap_or((now, now));
        debug_assert!(since <= now, "time goes back");
        self.span = Some((since, now));
    }

    /// Notes a message.
    pub(super) fn note_message(&mut self, now: Instant) {
        self.note_listener(now);
        self.had_message = true;
    }

    /// Time at which the room may leave memory if it is not used again; `None`: at once.
    pub(super) fn idle_at(&self, idle_timeout: Duration) -> Option<Instant> {
        let (since, until) = self.span?;
        let least = if self.had_message { MESSAGE_USE } else { Duration::ZERO };
        let used = (until - since).max(least);
        (used >= USE_LEAST).then(|| until + used.min(idle_timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_room_stays_as_long_as_it_was_in_use() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        // Use in seconds after the start, and when the room may go.
        let table: &[(&[f64], Option<f64>)] = &[
            (&[], None),
            (&[0.0], None),
            (&[0.0, 0.9], None),
            (&[0.0, 1.0], Some(2.0)),
            (&[5.0, 12.0], Some(19.0)),
            (&[0.0, 20.0, 59.0], Some(118.0)),
            (&[0.0, 3600.0], Some(3660.0)),
        ];
        for (moments, idle) in table {
            let mut usage = Usage::new(start, start);
            moments.iter().for_each(|moment| usage.note_listener(at(*moment)));
            assert_eq!(usage.idle_at(MINUTE), idle.map(at), "{moments:?}");
        }
    }

    #[test]
    fn a_message_counts_as_some_seconds_of_use() {
        let start = Instant::now();
        let mut usage = Usage::new(start, start);
        usage.note_message(start);
        assert_eq!(usage.idle_at(MINUTE), Some(start + MESSAGE_USE));
        assert_eq!(usage.idle_at(Duration::from_secs(3)), Some(start + Duration::from_secs(3)));
        usage.note_listener(start + MINUTE);
        assert_eq!(usage.idle_at(MINUTE), Some(start + MINUTE * 2));
    }
}
