//! How fast clients may do things: token buckets of users over all their connections, of rooms, and of addresses.
//!
//! For clients alone: the HTTP API and Rust programs never come here. In open mode there are no limits, because
//! every client is a process of this machine. Decides, and neither counts nor answers.

mod table;

use std::hash::Hash;
use std::time::{Duration, Instant};

use ahash::RandomState;

use crate::config::{Config, Mode};
use crate::ids::{Channel, ConnectionId};
use crate::net::bucket::Rate;
use crate::net::peers::ClientAddress;
use table::RateTable;

/// What may be done at once after a pause, in time of its rate: an application that was offline for a while sends
/// what people wrote meanwhile.
const BURST: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Kinds of the buckets of a user.
const PUBLISHES: usize = 0;
const BYTES: usize = 1;
const NEW_ROOMS: usize = 2;
const CONTACTS: usize = 3;

/// Kinds of the buckets of an address.
const FAILED_TOKENS: usize = 0;
const FAILED_KEYS: usize = 1;
const CONNECTS: usize = 2;

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Limit {
    /// Commands and other frames of a connection.
    Commands,
    /// Questions of a connection.
    Requests,
    /// Questions to the database that wait at once, of all connections of a user.
    Queries,
    /// Messages of a user.
    UserPublishes,
    /// Bytes of the messages of a user.
    UserBytes,
    /// Rooms that a user creates.
    UserNewRooms,
    /// Contacts that a user adds.
    UserContacts,
    /// Messages in a room.
    RoomPublishes,
    /// Bytes of the messages in a room.
    RoomBytes,
    /// Tokens from an address that were no good.
    AddressFailedTokens,
    /// Keys of the API from an address that were wrong.
    AddressFailedKeys,
    /// Clients that connect from an address.
    AddressConnects,
}

impl Limit {
    /// The label under which it is counted.
    pub(in crate::net) fn as_str(self) -> &'static str {
        match self {
            Self::Commands => "commands",
            Self::Requests => "requests",
            Self::Queries => "queries",
            Self::UserPublishes => "user_publishes",
            Self::UserBytes => "user_bytes",
            Self::UserNewRooms => "user_new_rooms",
            Self::UserContacts => "user_contacts",
            Self::RoomPublishes => "room_publishes",
            Self::RoomBytes => "room_bytes",
            Self::AddressFailedTokens => "address_failed_tokens",
            Self::AddressFailedKeys => "address_failed_keys",
            Self::AddressConnects => "address_connects",
        }
    }
}

/// Somebody who is counted: a user who has shown a token, or else an address, or a single connection where the
/// address stands for anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::net) struct Who {
    key: u64,
    is_connection: bool,
}

/// Whether a message may create its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Creation {
    /// Nobody counts.
    Free,
    /// It may; the place of one new room is held for it.
    Held,
    /// Its sender has created too many.
    Denied,
}

/// All limits on rates.
#[derive(Debug)]
pub(in crate::net) struct Rates {
    /// With keys of its own, so that nobody can choose names that meet in one bucket.
    hasher: RandomState,
    users: RateTable<4>,
    rooms: RateTable<2>,
    addresses: RateTable<3>,
    requests: Option<Rate>,
}

impl Rates {
    /// The limits that the configuration sets.
    pub(in crate::net) fn new(config: &Config) -> Self {
        let limits = &config.limits;
        let is_open = config.mode() == Mode::Open;
        let rate = |tokens: usize, period: Duration, burst: Duration| {
            (!is_open && tokens > 0).then(|| Rate::new(tokens as u64, period, burst))
        };
        Self {
            hasher: RandomState::new(),
            users: RateTable::new([
                rate(limits.user_publishes_per_second_max, SECOND, BURST),
                rate(limits.user_bytes_per_second_max, SECOND, BURST),
                rate(limits.user_new_rooms_per_minute_max, MINUTE, MINUTE),
                rate(limits.user_contacts_per_minute_max, MINUTE, MINUTE),
            ]),
            rooms: RateTable::new([
                rate(limits.room_publishes_per_second_max, SECOND, BURST),
                rate(limits.room_bytes_per_second_max, SECOND, BURST),
            ]),
            addresses: RateTable::new([
                rate(limits.address_failed_tokens_per_minute_max, MINUTE, MINUTE),
                rate(limits.address_failed_keys_per_minute_max, MINUTE, MINUTE),
                rate(limits.address_connects_per_minute_max, MINUTE, MINUTE),
            ]),
            requests: rate(limits.connection_requests_per_second_max, SECOND, BURST),
        }
    }

    /// A user, who has shown a token.
    pub(in crate::net) fn user(&self, id: &str) -> Who {
        self.who(("user", id))
    }

    /// Somebody of whom no more is known than the connection.
    pub(in crate::net) fn somebody(&self, address: ClientAddress, connection: ConnectionId) -> Who {
        self.address(address).unwrap_or_else(|| self.connection(connection))
    }

    /// Those behind an address; `None` where it may stand for anybody.
    fn address(&self, address: ClientAddress) -> Option<Who> {
        address.is_counted().then(|| self.who(("address", address.key())))
    }

    /// Somebody with a single connection.
    pub(in crate::net) fn connection(&self, id: ConnectionId) -> Who {
        Who { is_connection: true, ..self.who(("connection", id.0)) }
    }

    fn who(&self, name: impl Hash) -> Who {
        Who { key: self.hasher.hash_one(name), is_connection: false }
    }

    /// The rate of a connection's questions to rooms and database.
    pub(in crate::net) fn requests(&self) -> Option<Rate> {
        self.requests
    }

    /// Somebody wants to publish.
    pub(in crate::net) fn try_publish(&self, who: Who, now: Instant) -> Result<(), Limit> {
        let is_there = self.users.with(who.key, now, |user| user.take(PUBLISHES, 1));
        if is_there.unwrap_or(true) { Ok(()) } else { Err(Limit::UserPublishes) }
    }

    /// A message of so many bytes by somebody who may publish it.
    pub(in crate::net) fn publish(
        &self,
        who: Who,
        channel: &Channel,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Limit> {
        let bytes = bytes as u64;
        if self.users.with(who.key, now, |user| user.take(BYTES, bytes)) == Some(false) {
            return Err(Limit::UserBytes);
        }
        let room = self.hasher.hash_one(channel.as_str());
        let in_room = self.rooms.with(room, now, |room| match () {
            () if !room.take(PUBLISHES, 1) => Err(Limit::RoomPublishes),
            () if !room.take(BYTES, bytes) => Err(Limit::RoomBytes),
            () => Ok(()),
        });
        in_room.unwrap_or(Ok(()))
    }

    /// Holds the place of a new room for a message that may create one.
    pub(in crate::net) fn hold_room(&self, who: Who, now: Instant) -> Creation {
        match self.users.with(who.key, now, |user| user.take(NEW_ROOMS, 1)) {
            None => Creation::Free,
            Some(true) => Creation::Held,
            Some(false) => Creation::Denied,
        }
    }

    /// So many of the places that were held created no room.
    pub(in crate::net) fn give_back_rooms(&self, who: Who, count: usize, now: Instant) {
        if count > 0 {
            self.users.with(who.key, now, |user| user.give_back(NEW_ROOMS, count as u64));
        }
    }

    /// A new contact.
    pub(in crate::net) fn add_contact(&self, who: Who, now: Instant) -> Result<(), Limit> {
        let is_there = self.users.with(who.key, now, |user| user.take(CONTACTS, 1));
        if is_there.unwrap_or(true) { Ok(()) } else { Err(Limit::UserContacts) }
    }

    /// Whether a token is looked at, after those that were no good.
    pub(in crate::net) fn try_token(&self, address: Who, now: Instant) -> Result<(), Limit> {
        let is_there = self.addresses.with(address.key, now, |address| address.has(FAILED_TOKENS));
        if is_there.unwrap_or(true) { Ok(()) } else { Err(Limit::AddressFailedTokens) }
    }

    /// A token was no good.
    pub(in crate::net) fn token_failed(&self, address: Who, now: Instant) {
        self.addresses.with(address.key, now, |address| address.take(FAILED_TOKENS, 1));
    }

    /// Counts a client that connects.
    pub(in crate::net) fn connect(&self, origin: Who, now: Instant) -> Result<(), Limit> {
        if origin.is_connection {
            // It connects once.
            return Ok(());
        }
        let is_there = self.addresses.with(origin.key, now, |address| address.take(CONNECTS, 1));
        if is_there.unwrap_or(true) { Ok(()) } else { Err(Limit::AddressConnects) }
    }

    /// Counts a key of the API that was wrong. The right one is never refused: one that can be reached from elsewhere
    /// has at least 32 bytes and is not guessed, and backends with an old key must not cut off those with the new one.
    pub(in crate::net) fn key_failed(&self, client: ClientAddress, now: Instant) -> Result<(), Limit> {
        let Some(address) = self.address(client) else { return Ok(()) };
        let is_there = self.addresses.with(address.key, now, |address| address.take(FAILED_KEYS, 1));
        if is_there.unwrap_or(true) { Ok(()) } else { Err(Limit::AddressFailedKeys) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::TrustedProxies;
    use crate::net::peers::AddressRules;

    fn rates(limits: &str) -> Rates {
        let text = format!("[client]\ntoken_hmac_secret = '{}'\n[limits]\n{limits}", "s".repeat(32));
        Rates::new(&Config::from_toml("r.toml", &text).unwrap().config)
    }

    fn address(last: u8) -> ClientAddress {
        AddressRules::new(TrustedProxies::default()).of_socket(IpAddr::from([203, 0, 113, last]))
    }

    fn room(name: &str) -> Channel {
        name.parse().unwrap()
    }

    #[test]
    fn a_user_tries_so_often() {
        let (rates, now) = (rates("user_publishes_per_second_max = 2"), Instant::now());
        let (ann, bob) = (rates.user("ann"), rates.user("bob"));
        assert!((0..10).all(|_| rates.try_publish(ann, now).is_ok()));
        assert_eq!(rates.try_publish(ann, now), Err(Limit::UserPublishes));
        assert_eq!(rates.try_publish(bob, now), Ok(()));
        assert_eq!(rates.try_publish(ann, now + SECOND), Ok(()));
    }

    #[test]
    fn a_room_is_one_for_all_users() {
        let limits = "room_publishes_per_second_max = 2\nroom_bytes_per_second_max = 100";
        let (rates, now) = (rates(limits), Instant::now());
        let publish = |name: String, room_name: &str, bytes| {
            rates.publish(rates.user(&name), &room(room_name), bytes, now)
        };
        for number in 0..10 {
            assert_eq!(publish(number.to_string(), "small", 1), Ok(()));
        }
        assert_eq!(publish("late".into(), "small", 1), Err(Limit::RoomPublishes));
        assert_eq!(publish("ann".into(), "large", 10_000), Ok(()), "no message is too large for a bucket");
        assert_eq!(publish("bob".into(), "large", 1), Err(Limit::RoomBytes));
    }

    #[test]
    fn bytes_are_counted_too() {
        let (rates, now) = (rates("user_bytes_per_second_max = '1KiB'"), Instant::now());
        let publish = |now| rates.publish(rates.user("ann"), &room("a"), 1024, now);
        assert_eq!((0..9).take_while(|_| publish(now).is_ok()).count(), 5);
        assert_eq!(publish(now), Err(Limit::UserBytes));
        assert_eq!(publish(now + SECOND), Ok(()));
    }

    #[test]
    fn places_of_rooms_are_held_until_it_is_known() {
        let (rates, now) = (rates("user_new_rooms_per_minute_max = 3"), Instant::now());
        let ann = rates.user("ann");
        let holds = || (0..9).take_while(|_| rates.hold_room(ann, now) == Creation::Held).count();
        assert_eq!((holds(), rates.hold_room(ann, now)), (3, Creation::Denied));
        rates.give_back_rooms(ann, 2, now);
        assert_eq!(holds(), 2);
        assert_eq!(rates.hold_room(ann, now + Duration::from_secs(21)), Creation::Held);
    }

    #[test]
    fn a_failed_token_is_remembered_and_a_good_one_is_not() {
        let (rates, now) = (rates("address_failed_tokens_per_minute_max = 2"), Instant::now());
        let (here, there) = (rates.connection(ConnectionId(1)), rates.connection(ConnectionId(2)));
        assert!((0..100).all(|_| rates.try_token(here, now).is_ok()));
        (0..2).for_each(|_| rates.token_failed(here, now));
        assert_eq!(rates.try_token(here, now), Err(Limit::AddressFailedTokens));
        assert_eq!(rates.try_token(there, now), Ok(()));
        assert_eq!(rates.try_token(here, now + MINUTE / 2), Ok(()));
    }

    #[test]
    fn wrong_keys_are_counted_by_address() {
        let (rates, now) = (rates("address_failed_keys_per_minute_max = 3"), Instant::now());
        let fail = |last, now| rates.key_failed(address(last), now);
        assert!((0..3).all(|_| fail(1, now).is_ok()));
        assert_eq!(fail(1, now), Err(Limit::AddressFailedKeys));
        assert_eq!((fail(2, now), fail(1, now + MINUTE / 3)), (Ok(()), Ok(())));
        let anybody = AddressRules::new(TrustedProxies::default()).of_socket(IpAddr::from([127, 0, 0, 1]));
        assert!((0..99).all(|_| rates.key_failed(anybody, now).is_ok()));
    }

    #[test]
    fn an_office_connects_three_times_a_minute() {
        let (rates, now) = (rates(""), Instant::now());
        let office = rates.address(address(1)).unwrap();
        assert!((0..6000).all(|_| rates.connect(office, now).is_ok()));
        assert_eq!(rates.connect(office, now), Err(Limit::AddressConnects));
        assert_eq!(rates.connect(rates.address(address(2)).unwrap(), now), Ok(()));
        assert!((0..9000).all(|_| rates.connect(rates.connection(ConnectionId(1)), now).is_ok()));
        assert!((0..100).all(|_| rates.connect(office, now + SECOND).is_ok()));
    }

    #[test]
    fn zero_is_no_limit_and_open_mode_has_none() {
        let all = "user_publishes_per_second_max = 0\nuser_bytes_per_second_max = 0\n\
                   room_publishes_per_second_max = 0\nroom_bytes_per_second_max = 0\n\
                   user_new_rooms_per_minute_max = 0\nuser_contacts_per_minute_max = 0\n\
                   address_failed_tokens_per_minute_max = 0\nconnection_requests_per_second_max = 0\n\
                   address_failed_keys_per_minute_max = 0\naddress_connects_per_minute_max = 0\n";
        for rates in [rates(all), Rates::new(&Config::default())] {
            let (ann, now) = (rates.user("ann"), Instant::now());
            assert!((0..100_000).all(|_| rates.try_publish(ann, now).is_ok()));
            assert!((0..100_000).all(|_| rates.publish(ann, &room("a"), 1 << 20, now).is_ok()));
            assert!((0..1000).all(|_| rates.add_contact(ann, now).is_ok()));
            assert!((0..9000).all(|_| rates.key_failed(address(1), now).is_ok()));
            assert!((0..9000).all(|_| rates.connect(rates.address(address(1)).unwrap(), now).is_ok()));
            assert_eq!((rates.hold_room(ann, now), rates.requests().is_none()), (Creation::Free, true));
        }
    }
}
