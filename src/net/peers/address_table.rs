//! The sockets of each address, and the limits on them.
//!
//! An address is remembered while it has sockets, and then until its rate has recovered. The first is
//! bounded by the number of sockets, the second by [`RESTING_PER_PART_MAX`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::{AHashMap, RandomState};

use super::address::ClientAddress;
use super::refusal::Refusal;
use crate::config;
use crate::net::bucket::{Bucket, Rate};
use crate::sync::{MutexGuard, ShardedMutex};

/// Addresses without a socket that one part of the table remembers; it has 16 parts, so that all of them take
/// some 6 MiB. An address that is forgotten early has its full rate again, which somebody with so many
/// addresses has anyway.
const RESTING_PER_PART_MAX: usize = 4096;

/// Sockets an address may open at once after a pause, in seconds of its rate: everybody behind it comes
/// back when the server has restarted.
const BURST: Duration = Duration::from_secs(10);

/// Resting addresses looked at whenever a socket comes, or is the last to go: more than one, so that they
/// become fewer.
const SWEEP: usize = 4;

/// Limits of one address; `None`: there is none.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct AddressLimits {
    sockets_max: Option<usize>,
    strangers_max: Option<usize>,
    rate: Option<Rate>,
}

impl AddressLimits {
    /// The limits that the configuration sets.
    pub(in crate::net) fn new(client: &config::Client) -> Self {
        let per_second = client.address_sockets_per_second_max;
        Self {
            sockets_max: client.address_sockets_max,
            strangers_max: client.address_strangers_max,
            rate: per_second.map(|count| Rate::new(count as u64, Duration::from_secs(1), BURST)),
        }
    }
}

/// The sockets that are open, by address.
#[derive(Debug)]
pub(in crate::net) struct AddressTable {
    limits: AddressLimits,
    /// With keys of its own, so that nobody can choose addresses that meet in one part.
    hasher: RandomState,
    parts: ShardedMutex<Part>,
}

#[derive(Debug, Default)]
struct Part {
    addresses: AHashMap<IpAddr, Address>,
    /// Addresses that had no socket left, longest ago first; each at most once (see [`Address::is_resting`]).
    resting: VecDeque<(IpAddr, Instant)>,
}

#[derive(Debug)]
struct Address {
    sockets: usize,
    /// Those of the sockets that are strangers.
    strangers: usize,
    bucket: Bucket,
    /// It is in the queue of those without a socket; perhaps it has one again.
    is_resting: bool,
}

impl AddressTable {
    pub(in crate::net) fn new(limits: AddressLimits) -> Arc<Self> {
        Arc::new(Self { limits, hasher: RandomState::new(), parts: ShardedMutex::default() })
    }

    /// Counts one more socket of the address, as a stranger, until the permit is dropped. An address that
    /// is not counted is always let in.
    pub(in crate::net) fn admit(
        self: &Arc<Self>,
        client: ClientAddress,
        now: Instant,
    ) -> Result<AddressPermit, Refusal> {
        if !client.is_counted() {
            return Ok(AddressPermit { counted: None });
        }
        let key = client.key();
        let mut part = self.part(key);
        part.sweep(now);
        part.admit(key, &self.limits, now)?;
        Ok(AddressPermit { counted: Some(Counted { table: self.clone(), key, is_stranger: true }) })
    }

    /// The part that holds this address.
    fn part(&self, key: IpAddr) -> MutexGuard<'_, Part> {
        self.parts.of(self.hasher.hash_one(key))
    }

    /// Number of addresses that are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.each(|part| part.addresses.len()).sum()
    }
}

impl Part {
    fn admit(&mut self, key: IpAddr, limits: &AddressLimits, now: Instant) -> Result<(), Refusal> {
        let address = self.addresses.entry(key).or_insert_with(|| Address::new(now));
        let refused = address.admit(limits, now);
        debug_assert!(refused.is_ok() || address.sockets > 0 || address.is_resting, "an entry for nothing");
        refused
    }

    fn close(&mut self, key: IpAddr, was_stranger: bool, now: Instant) {
        let Some(address) = self.addresses.get_mut(&key) else {
            debug_assert!(false, "an address with sockets is remembered");
            return;
        };
        debug_assert!(
            address.sockets > 0 && address.strangers <= address.sockets,
            "a permit given back twice"
        );
        address.sockets -= 1;
        address.strangers -= usize::from(was_stranger);
        if address.sockets == 0 && !address.is_resting {
            if address.bucket.is_full(now) {
                self.addresses.remove(&key);
            } else {
                address.is_resting = true;
                self.resting.push_back((key, now));
                self.sweep(now);
            }
        }
    }

    fn connected(&mut self, key: IpAddr) {
        match self.addresses.get_mut(&key) {
            Some(address) if address.strangers > 0 => address.strangers -= 1,
            _ => debug_assert!(false, "a stranger connects once"),
        }
    }

    fn stranger_again(&mut self, key: IpAddr, most: Option<usize>) -> Result<(), Refusal> {
        match self.addresses.get_mut(&key) {
            Some(address) if is_reached(address.strangers, most) => Err(Refusal::AddressStrangers),
            Some(address) => {
                address.strangers += 1;
                debug_assert!(address.strangers <= address.sockets, "a stranger without a socket");
                Ok(())
            }
            None => {
                debug_assert!(false, "an address with sockets is remembered");
                Ok(())
            }
        }
    }

    /// Forgets some addresses that have rested long enough, and the oldest when there are too many.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEEP {
            let is_too_long = self.resting.len() > RESTING_PER_PART_MAX;
            let Some((_, since)) = self.resting.front() else { return };
            if !is_too_long && now.saturating_duration_since(*since) < BURST {
                return;
            }
            let Some((key, _)) = self.resting.pop_front() else { return };
            let Some(address) = self.addresses.get_mut(&key) else { continue };
            address.is_resting = false;
            if address.sockets > 0 {
                continue;
            }
            if is_too_long || address.bucket.is_full(now) {
                self.addresses.remove(&key);
            } else {
                address.is_resting = true;
                self.resting.push_back((key, now));
            }
        }
    }
}

impl Address {
    fn new(now: Instant) -> Self {
        Self { sockets: 0, strangers: 0, bucket: Bucket::full(now), is_resting: false }
    }

    fn admit(&mut self, limits: &AddressLimits, now: Instant) -> Result<(), Refusal> {
        if is_reached(self.sockets, limits.sockets_max) {
            return Err(Refusal::AddressSockets);
        }
        if is_reached(self.strangers, limits.strangers_max) {
            return Err(Refusal::AddressStrangers);
        }
        // Last, because it takes a token.
        if limits.rate.is_some_and(|rate| !self.bucket.take(rate, now)) {
            return Err(Refusal::AddressRate);
        }
        self.sockets += 1;
        self.strangers += 1;
        Ok(())
    }
}

fn is_reached(count: usize, most: Option<usize>) -> bool {
    most.is_some_and(|most| count >= most)
}

/// The right of one socket to count among those of its address; given back when it is dropped.
#[derive(Debug)]
pub(in crate::net) struct AddressPermit {
    /// `None` for an address that is not counted.
    counted: Option<Counted>,
}

#[derive(Debug)]
struct Counted {
    table: Arc<AddressTable>,
    key: IpAddr,
    is_stranger: bool,
}

impl AddressPermit {
    /// The socket is no stranger from now on: it has connected, or a request of it was answered.
    pub(in crate::net) fn known(&mut self) {
        if let Some(counted) = self.counted.as_mut().filter(|counted| counted.is_stranger) {
            counted.is_stranger = false;
            counted.table.part(counted.key).connected(counted.key);
        }
    }

    /// The socket becomes a WebSocket, which is a stranger until it has connected, whatever was answered
    /// before. An error when its address has as many strangers as it may.
    pub(in crate::net) fn stranger_again(&mut self) -> Result<(), Refusal> {
        let Some(counted) = self.counted.as_mut().filter(|counted| !counted.is_stranger) else {
            return Ok(());
        };
        let most = counted.table.limits.strangers_max;
        counted.table.part(counted.key).stranger_again(counted.key, most)?;
        counted.is_stranger = true;
        Ok(())
    }

    fn give_back(&mut self, now: Instant) {
        if let Some(Counted { table, key, is_stranger }) = self.counted.take() {
            table.part(key).close(key, is_stranger, now);
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.give_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::super::address::AddressRules;
    use super::*;
    use crate::mutation::Random;

    fn table(sockets: usize, strangers: usize, per_second: usize) -> Arc<AddressTable> {
        let text = format!(
            "[client]\naddress_sockets_max = {sockets}\naddress_strangers_max = {strangers}\n\
             address_sockets_per_second_max = {per_second}"
        );
        let config = config::Config::from_toml("r.toml", &text).unwrap().config;
        AddressTable::new(AddressLimits::new(&config.client))
    }

    fn client(address: &str) -> ClientAddress {
        AddressRules::new(config::TrustedProxies::default()).of_socket(address.parse().unwrap())
    }

    /// The permits of as many sockets as are let in, at most `most`, and what then refuses.
    fn fill(
        table: &Arc<AddressTable>,
        address: &str,
        most: usize,
        now: Instant,
    ) -> (Vec<AddressPermit>, Option<Refusal>) {
        let mut permits = Vec::new();
        for _ in 0..most {
            match table.admit(client(address), now) {
                Ok(permit) => permits.push(permit),
                Err(refusal) => return (permits, Some(refusal)),
            }
        }
        (permits, None)
    }

    fn give_back(permits: Vec<AddressPermit>, now: Instant) {
        for mut permit in permits {
            permit.give_back(now);
        }
    }

    #[test]
    fn an_address_has_only_so_many_sockets() {
        let (table, now) = (table(3, 0, 0), Instant::now());
        let (mut permits, refusal) = fill(&table, "203.0.113.9", 10, now);
        assert_eq!((permits.len(), refusal), (3, Some(Refusal::AddressSockets)));
        assert_eq!(fill(&table, "203.0.113.10", 3, now).0.len(), 3, "others are not concerned");
        permits.pop();
        assert_eq!(fill(&table, "203.0.113.9", 10, now).0.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (table, now) = (table(2, 0, 0), Instant::now());
        let _one = table.admit(client("2001:db8::1"), now).unwrap();
        let _two = table.admit(client("2001:db8::2:1"), now).unwrap();
        assert_eq!(table.admit(client("2001:db8::3"), now).unwrap_err(), Refusal::AddressSockets);
        assert!(table.admit(client("2001:db8:0:1::1"), now).is_ok());
    }

    #[test]
    fn strangers_are_fewer_and_those_who_connect_make_place() {
        let (table, now) = (table(0, 2, 0), Instant::now());
        let (mut permits, refusal) = fill(&table, "203.0.113.9", 10, now);
        assert_eq!((permits.len(), refusal), (2, Some(Refusal::AddressStrangers)));
        permits[0].known();
        permits[0].known();
        let (more, _) = fill(&table, "203.0.113.9", 10, now);
        assert_eq!(more.len(), 1, "who connects twice makes place once");
        drop(permits);
        assert_eq!(fill(&table, "203.0.113.9", 10, now).0.len(), 1, "the known one was no stranger any more");
    }

    #[test]
    fn new_sockets_come_in_a_burst_and_then_evenly() {
        let (table, now) = (table(0, 0, 5), Instant::now());
        let (permits, refusal) = fill(&table, "203.0.113.9", 1000, now);
        assert_eq!((permits.len(), refusal), (50, Some(Refusal::AddressRate)));
        give_back(permits, now);
        let later = now + Duration::from_secs(1);
        let (permits, _) = fill(&table, "203.0.113.9", 1000, later);
        assert_eq!(permits.len(), 5, "sockets that ended were opened all the same");
    }

    #[test]
    fn by_default_an_office_is_let_in_at_once() {
        let client_rules = config::Config::default().client;
        let (table, now) = (AddressTable::new(AddressLimits::new(&client_rules)), Instant::now());
        let mut people = fill(&table, "203.0.113.9", 500, now).0;
        people.iter_mut().for_each(AddressPermit::known);
        people.extend(fill(&table, "203.0.113.9", 500, now + Duration::from_secs(1)).0);
        assert_eq!(people.len(), 1000);
    }

    #[test]
    fn what_is_not_counted_has_no_limit() {
        let (table, now) = (table(1, 1, 1), Instant::now());
        assert_eq!(fill(&table, "127.0.0.1", 20_000, now).0.len(), 20_000);
        let unlimited = self::table(0, 0, 0);
        assert_eq!(fill(&unlimited, "203.0.113.9", 20_000, now).0.len(), 20_000);
        assert_eq!((table.len(), unlimited.len()), (0, 0));
    }

    #[test]
    fn an_address_is_forgotten_when_its_rate_has_recovered() {
        let (table, now) = (table(0, 0, 10), Instant::now());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        give_back(fill(&table, "203.0.113.9", 100, now).0, now);
        assert_eq!(table.len(), 1, "its rate is used up");
        // Any socket sweeps the part it is in, and a thousand are in all of them.
        let sweep =
            |now| give_back((0..1000).flat_map(|n| fill(&table, &v6(n), 1, now).0).collect(), seconds(3600));
        sweep(seconds(5));
        assert_eq!(table.len(), 1);
        sweep(seconds(10));
        assert_eq!(table.len(), 0);
        give_back(fill(&table, "203.0.113.9", 1, seconds(20)).0, seconds(60));
        assert_eq!(table.len(), 0, "a socket that was open for long leaves nothing behind");
    }

    fn v6(n: usize) -> String {
        format!("2001:db8:{:x}:{:x}::1", n >> 16, n & 0xffff)
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let (table, now) = (table(0, 0, 1), Instant::now());
        for n in 0..200_000 {
            give_back(fill(&table, &v6(n), 1, now).0, now);
        }
        let most = 16 * RESTING_PER_PART_MAX;
        assert!((most / 2..=most).contains(&table.len()), "{}", table.len());
        let open: Vec<_> = (0..100).flat_map(|n| fill(&table, &v6(n), 1, now).0).collect();
        for n in 1000..200_000 {
            give_back(fill(&table, &v6(n), 1, now).0, now);
        }
        assert!(table.len() <= most + open.len(), "{}", table.len());
        give_back(open, now);
        assert!(table.len() <= most, "{}", table.len());
    }

    /// Against a table that simply counts.
    #[test]
    fn any_order_of_events_counts_right() {
        let mut random = Random(7);
        let table = table(5, 3, 50);
        let mut now = Instant::now();
        let mut open: Vec<(usize, bool, AddressPermit)> = Vec::new();
        for _ in 0..50_000 {
            now += Duration::from_millis(u64::try_from(random.below(40)).unwrap());
            let n = random.below(40);
            match random.below(3) {
                0 if !open.is_empty() => {
                    let (.., mut permit) = open.swap_remove(random.below(open.len()));
                    permit.give_back(now);
                }
                1 if !open.is_empty() => {
                    let at = random.below(open.len());
                    open[at].1 = false;
                    open[at].2.known();
                }
                _ => {
                    let of = |stranger: bool| {
                        open.iter()
                            .filter(|(at, is_stranger, _)| *at == n && (!stranger || *is_stranger))
                            .count()
                    };
                    let expected = match (of(false), of(true)) {
                        (5.., _) => Some(Refusal::AddressSockets),
                        (_, 3..) => Some(Refusal::AddressStrangers),
                        _ => None,
                    };
                    match table.admit(client(&v6(n)), now) {
                        Ok(permit) => {
                            assert_eq!(expected, None);
                            open.push((n, true, permit));
                        }
                        Err(refusal) => assert_eq!(Some(refusal), expected),
                    }
                }
            }
            assert!(table.len() <= 40);
        }
        let later = now + 2 * BURST;
        open.into_iter().for_each(|(.., mut permit)| permit.give_back(later));
        give_back((0..1000).flat_map(|n| fill(&table, &v6(n), 1, later).0).collect(), later + BURST);
        give_back(
            (0..1000).flat_map(|n| fill(&table, &v6(n), 1, later + BURST).0).collect(),
            later + 2 * BURST,
        );
        assert_eq!(table.len(), 0);
    }
}
