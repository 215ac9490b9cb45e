//! What a run does: how many of what, how fast, for how long; and the scenarios that have names.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::dialect::DialectName;

/// Most messages that one publisher may have in flight.
pub const WINDOW_MAX: usize = 4096;

/// Smallest payload in bytes: it carries the time it was due.
pub const SIZE_MIN: usize = 48;

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The host as the client names it.
    pub host: String,
    /// Protocol of the server.
    pub dialect: DialectName,
    /// Path of the WebSocket, where the protocol has none of its own.
    pub path: String,
    /// Token of every connection.
    pub token: Option<String>,
    /// Prefix of the rooms' names: the namespace, if any, and a part of its own for each run.
    pub prefix: String,
    /// Groups of rooms; each is reported by itself.
    pub groups: Vec<Group>,
    /// Warm-up: messages are sent, but not measured, until caches and batch sizes are steady.
    pub warmup: Duration,
    /// Measured time.
    pub duration: Duration,
    /// Connections made per second.
    pub ramp: f64,
    /// Wait between the last connection and the first message, so that a server is idle when its memory is
    /// read, and finishes subscriptions it does not confirm.
    pub settle: Duration,
    /// All listeners are disconnected for this long, a quarter into the measured time, and come back.
    pub disconnect_for: Option<Duration>,
    /// Threads that listen, to each group of rooms if there is a rate; then one more publishes.
    pub threads: usize,
}

/// Rooms of one kind with their listeners and publishers.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// What the report calls it.
    pub name: String,
    /// How many rooms.
    pub rooms: usize,
    /// Connections that listen, spread evenly over the rooms.
    pub listeners: usize,
    /// Connections that publish, each to one room after the other.
    pub publishers: usize,
    /// The publishers are the first of the listeners, and publish to the room they listen to. A message is
    /// then in flight until its publisher has its own copy of it, and the answer if the protocol has one.
    pub publishers_listen: bool,
    /// How fast they do.
    pub pace: Pace,
    /// Payload in bytes.
    pub size: usize,
}

/// How fast the publishers of a group publish.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// Messages per second, all publishers combined, whatever the server does: the latency of a message
    /// sent late counts from when it was due.
    Rate(f64),
    /// Messages in flight per publisher: the next one is sent when one is acknowledged.
    Window(usize),
}

/// A run with a name.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// As typed.
    pub name: &'static str,
    /// One line for `--list`: load and purpose.
    pub what: &'static str,
    groups: &'static [Shape],
    /// As in [`Plan::disconnect_for`].
    pub disconnect_for: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    rooms: usize,
    listeners: usize,
    publishers: usize,
    pace: Pace,
}

const fn shape(name: &'static str, rooms: usize, listeners: usize, publishers: usize, pace: Pace) -> Shape {
    Shape { name, rooms, listeners, publishers, pace }
}

/// Every scenario with a name.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "room",
        what: "one room of 1,000 listeners, 100 messages/s: the cost of one delivery",
        groups: &[shape("room", 1, 1000, 1, Pace::Rate(100.0))],
        disconnect_for: None,
    },
    Scenario {
        name: "pipeline",
        what: "the same room, one publisher with 8 messages in flight",
        groups: &[shape("pipeline", 1, 1000, 1, Pace::Window(8))],
        disconnect_for: None,
    },
    Scenario {
        name: "flood",
        what: "the same room, one publisher with 64 messages in flight",
        groups: &[shape("flood", 1, 1000, 1, Pace::Window(64))],
        disconnect_for: None,
    },
    Scenario {
        name: "crowd",
        what: "the same room, 16 publishers with 32 messages in flight each",
        groups: &[shape("crowd", 1, 1000, 16, Pace::Window(32))],
        disconnect_for: None,
    },
    Scenario {
        name: "rooms",
        what: "1,000 rooms of 10 listeners, 2,000 messages/s in total",
        groups: &[shape("rooms", 1000, 10_000, 8, Pace::Rate(2000.0))],
        disconnect_for: None,
    },
    Scenario {
        name: "huge",
        what: "one room of 10,000 listeners, 5 messages/s",
        groups: &[shape("huge", 1, 10_000, 1, Pace::Rate(5.0))],
        disconnect_for: None,
    },
    Scenario {
        name: "publish",
        what: "64 publishers in 100 rooms with 16 messages in flight each, no listeners: durable messages/s",
        groups: &[shape("publish", 100, 0, 64, Pace::Window(16))],
        disconnect_for: None,
    },
    Scenario {
        name: "quiet",
        what: "one publisher, one message in flight, no listeners: the time to a durable acknowledgement",
        groups: &[shape("quiet", 1, 0, 1, Pace::Window(1))],
        disconnect_for: None,
    },
    Scenario {
        name: "idle",
        what: "10,000 listeners in 1,000 rooms, 1 message/s in total: memory per connection",
        groups: &[shape("idle", 1000, 10_000, 1, Pace::Rate(1.0))],
        disconnect_for: None,
    },
    Scenario {
        name: "small",
        what: "500 rooms of 10 listeners, 500 messages/s in total",
        groups: &[shape("small", 500, 5000, 4, Pace::Rate(500.0))],
        disconnect_for: None,
    },
    Scenario {
        name: "isolation",
        what: "the small rooms of `small` next to one room of 10,000 listeners with 20 messages/s",
        groups: &[
            shape("small", 500, 5000, 4, Pace::Rate(500.0)),
            shape("big", 1, 10_000, 1, Pace::Rate(20.0)),
        ],
        disconnect_for: None,
    },
    Scenario {
        name: "isolation-light",
        what: "the same with 5 messages/s in the big room, which two cores can sustain",
        groups: &[
            shape("small", 500, 5000, 4, Pace::Rate(500.0)),
            shape("big", 1, 10_000, 1, Pace::Rate(5.0)),
        ],
        disconnect_for: None,
    },
    Scenario {
        name: "storm",
        what: "5,000 listeners in 100 rooms, disconnected while each misses 50 messages, all reconnecting at once",
        groups: &[shape("storm", 100, 5000, 4, Pace::Rate(1000.0))],
        disconnect_for: Some(Duration::from_secs(5)),
    },
];

impl Scenario {
    /// The scenario with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Its groups with payloads of this size.
    #[must_use]
    pub fn groups(&self, size: usize) -> Vec<Group> {
        let group = |shape: &Shape| Group {
            name: shape.name.to_owned(),
            rooms: shape.rooms,
            listeners: shape.listeners,
            publishers: shape.publishers,
            publishers_listen: false,
            pace: shape.pace,
            size,
        };
        self.groups.iter().map(group).collect()
    }
}

impl Group {
    /// Listeners of one of its rooms; the first rooms have one more when it does not come out even.
    #[must_use]
    pub fn listeners_of(&self, room: usize) -> usize {
        self.listeners / self.rooms + usize::from(room < self.listeners % self.rooms)
    }

    /// Connections it is made of.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.listeners + if self.publishers_listen { 0 } else { self.publishers }
    }

    /// Publishers whose messages a room gets.
    pub(crate) fn publishers_of(&self, room: usize) -> usize {
        if !self.publishers_listen {
            return self.publishers;
        }
        self.publishers / self.rooms + usize::from(room < self.publishers % self.rooms)
    }

    /// Which of the publishers of a room the `publisher`th one of the group is, and how many messages
    /// to this room its `number`th one was behind; `None` for one that does not publish there.
    pub(crate) fn locate(&self, room: usize, publisher: u64, number: u64) -> Option<(usize, u64)> {
        let publisher = usize::try_from(publisher).ok().filter(|publisher| *publisher < self.publishers)?;
        if self.publishers_listen {
            return (publisher % self.rooms == room).then_some((publisher / self.rooms, number));
        }
        Some((publisher, number / self.rooms as u64))
    }
}

impl Plan {
    /// Connections of the whole run.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.groups.iter().map(Group::connections).sum()
    }

    /// True when the plan says how fast messages come, and not the server's answers: then the server may
    /// have the processor first, for it cannot run away from its listeners.
    pub(crate) fn is_paced(&self) -> bool {
        self.groups.iter().all(|group| matches!(group.pace, Pace::Rate(_)))
    }

    /// Threads that listen. With a rate, each group has its own.
    pub(crate) fn listening_threads(&self) -> usize {
        if self.is_paced() { self.threads * self.groups.len() } else { self.threads }
    }

    /// Name of a group's room.
    #[must_use]
    pub fn room(&self, group: usize, room: usize) -> String {
        format!("{}-{}-{room}", self.prefix, self.groups[group].name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_spread_evenly_over_rooms() {
        let mut group = Scenario::named("room").unwrap().groups(128).remove(0);
        (group.rooms, group.listeners) = (3, 10);
        assert_eq!([0, 1, 2].map(|room| group.listeners_of(room)), [4, 3, 3]);
    }

    #[test]
    fn publishers_that_listen_stay_in_their_room() {
        let mut group = Scenario::named("room").unwrap().groups(128).remove(0);
        (group.rooms, group.listeners, group.publishers, group.publishers_listen) = (3, 10, 5, true);
        assert_eq!(group.connections(), 10);
        assert_eq!([0, 1, 2].map(|room| group.publishers_of(room)), [2, 2, 1]);
        assert_eq!(group.locate(1, 4, 7), Some((1, 7)), "the second publisher of room 1");
        assert_eq!((group.locate(0, 4, 7), group.locate(2, 5, 7)), (None, None));
        group.publishers_listen = false;
        assert_eq!((group.connections(), group.publishers_of(2)), (15, 5));
        assert_eq!(group.locate(1, 4, 7), Some((4, 2)), "behind its messages 1 and 4 there");
    }

    #[test]
    fn scenario_names_are_unique_and_found() {
        for scenario in SCENARIOS {
            assert_eq!(Scenario::named(scenario.name).unwrap().what, scenario.what);
            assert!(scenario.groups(128).iter().all(|group| group.rooms > 0 && group.size >= SIZE_MIN));
        }
        assert!(Scenario::named("none").is_none());
    }
}
