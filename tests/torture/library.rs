//! Library users: the promises of order and exactly-once delivery through the embedded API.
//!
//! Everything happens in this process: publishers and subscriptions are threads beside a [`Node`] whose
//! thresholds, budgets and timeouts are so small that all ways of delivery interleave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use roomcast::config::DatabaseUrl;
use roomcast::{Channel, Config, Ended, Node, Seq, Subscription};

use crate::form::{Random, seed, short_or_long};
use crate::support::{PATIENCE, TempDir, eventually, postgres};

/// Subscriptions of each room; nobody stays in the last two, which leave memory in between.
const LISTENERS: [usize; 7] = [12, 6, 3, 1, 1, 0, 0];

const PUBLISHERS: u64 = 4;

/// Who published what: the writer and its count.
type Stamp = (u64, u64);

struct Attack {
    node: Node,
    rooms: Vec<Channel>,
    /// By room: what each number was given to, as the publishers were told.
    sent: Vec<Mutex<HashMap<Seq, Stamp>>>,
    /// By room: what each number was heard as, the first time.
    heard: Vec<RwLock<HashMap<Seq, Stamp>>>,
    published: AtomicU64,
    deliveries: AtomicU64,
    joins: AtomicU64,
    over: AtomicBool,
}

impl Attack {
    fn new(url: DatabaseUrl) -> Self {
        let mut config = Config { workers: 2, ..Config::default() };
        config.database.url = url;
        config.client.outbox_bytes_max = 3_000;
        config.rooms.idle_timeout = Duration::from_millis(5);
        config.rooms.inline_max_listeners = 2;
        config.rooms.inline_max_cost = Duration::from_secs(1);
        config.rooms.parallel_min_listeners = 8;
        config.rooms.parallel_min_cost = Duration::ZERO;
        let name = |room| Channel::new(&format!("room{room}")).unwrap();
        Self {
            node: Node::open(&config).unwrap(),
            rooms: (0..LISTENERS.len()).map(name).collect(),
            sent: LISTENERS.iter().map(|_| Mutex::default()).collect(),
            heard: LISTENERS.iter().map(|_| RwLock::default()).collect(),
            published: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            joins: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    fn publish(&self, writer: u64, count: u64, mut dice: Random) {
        for number in 0..count {
            // Half of all messages go to the room with most listeners.
            let room = if dice.one_in(2) { 0 } else { dice.below(self.rooms.len() as u64) as usize };
            let pad = "x".repeat(dice.below(300) as usize);
            let data = format!(r#"{{"w":{writer},"n":{number},"pad":"{pad}"}}"#);
            let seq = self.node.publish(&self.rooms[room], &data).unwrap();
            let twice = self.sent[room].lock().unwrap().insert(seq, (writer, number));
            assert_eq!(twice, None, "two messages of {} have the number {seq}", self.rooms[room]);
            self.published.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Subscribes, reads, reads not, leaves and comes back; at the end it comes to the head.
    fn listen(&self, room: usize, mut dice: Random) {
        let mut subscription = self.join(room, None);
        while !self.over.load(Ordering::Acquire) {
            match dice.below(200) {
                0 => subscription = self.join(room, Some(subscription.position())),
                1 => subscription = self.join(room, None),
                2 => {
                    let after = dice.below(subscription.position() + 1);
                    subscription = self.join(room, Some(after));
                }
                3 | 4 => self.wait_for_messages(dice.below(400)),
                _ => drop(self.hear(room, &mut subscription, Duration::from_millis(1))),
            }
        }
        let head = self.head(room);
        // However long all of it takes on a busy machine: each message comes.
        while subscription.position() < head {
            let comes = self.hear(room, &mut subscription, PATIENCE);
            assert!(comes, "{} is stuck at {}", self.rooms[room], subscription.position());
        }
    }

    /// The seq of the last message of a room.
    fn head(&self, room: usize) -> Seq {
        self.node.subscribe(&self.rooms[room], None).unwrap().position()
    }

    /// Looks in on rooms where nobody stays.
    fn visit(&self, mut dice: Random) {
        while !self.over.load(Ordering::Acquire) {
            let room = self.rooms.len() - 1 - dice.below(2) as usize;
            let mut subscription = self.join(room, dice.one_in(2).then_some(0));
            for _ in 0..dice.below(40) {
                self.hear(room, &mut subscription, Duration::from_millis(1));
            }
            drop(subscription);
            self.wait_for_messages(dice.below(100));
        }
    }

    fn join(&self, room: usize, after: Option<Seq>) -> Subscription {
        self.joins.fetch_add(1, Ordering::Relaxed);
        let subscription = self.node.subscribe(&self.rooms[room], after).unwrap();
        assert!(after.is_none_or(|after| subscription.position() == after), "everything is kept");
        subscription
    }

    fn hear(&self, room: usize, subscription: &mut Subscription, patience: Duration) -> bool {
        let expected = subscription.position() + 1;
        let publication = match subscription.recv_timeout(patience) {
            Ok(publication) => publication,
            Err(Ended::TimedOut) => return false,
            Err(ended) => panic!("{} gave a subscription up: {ended:?}", self.rooms[room]),
        };
        assert_eq!(publication.seq, expected, "{} lost, repeated or reordered", self.rooms[room]);
        let data: serde_json::Value = serde_json::from_slice(publication.data.as_bytes()).unwrap();
        let stamp = (data["w"].as_u64().unwrap(), data["n"].as_u64().unwrap());
        let before = self.heard[room].read().unwrap().get(&expected).copied();
        match before {
            Some(before) => assert_eq!(before, stamp, "{} has two messages {expected}", self.rooms[room]),
            None => drop(self.heard[room].write().unwrap().insert(expected, stamp)),
        }
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Waits until so many more messages were published, or the publishers are done. On a busy machine
    /// they may be slow; only when none comes at all is something broken.
    fn wait_for_messages(&self, more: u64) {
        let published = || self.published.load(Ordering::Relaxed);
        let enough = published() + more;
        while published() < enough && !self.over.load(Ordering::Acquire) {
            let before = published();
            eventually("a message is published", || {
                published() > before || self.over.load(Ordering::Acquire)
            });
        }
    }

    fn run(&self, seed: u64, count: u64) {
        thread::scope(|scope| {
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|writer| scope.spawn(move || self.publish(writer, count, Random::new(seed, writer))))
                .collect();
            for (room, listeners) in LISTENERS.into_iter().enumerate() {
                for place in 0..listeners {
                    let dice = Random::new(seed, 100 + (room * 100 + place) as u64);
                    scope.spawn(move || self.listen(room, dice));
                }
            }
            scope.spawn(move || self.visit(Random::new(seed, 99)));
            let outcomes: Vec<_> = publishers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            self.over.store(true, Ordering::Release);
            assert!(outcomes.iter().all(Result::is_ok), "a publisher failed");
        });
    }

    /// What was heard is what was sent, and every way of delivery was tried.
    fn judge(&self, what: &str, seed: u64, started: Instant) {
        for (room, (sent, heard)) in self.sent.iter().zip(&self.heard).enumerate() {
            let sent = sent.lock().unwrap();
            assert_eq!(self.head(room), sent.len() as Seq, "a hole");
            for (seq, stamp) in heard.read().unwrap().iter() {
                assert_eq!(
                    sent.get(seq),
                    Some(stamp),
                    "{} {seq} was heard as something else",
                    self.rooms[room]
                );
            }
        }
        let metrics = self.node.metrics();
        let fan_outs = |strategy, reason| metrics.fanouts_total.with_label_values(&[strategy, reason]).get();
        let recoveries = |outcome| metrics.recoveries_total.with_label_values(&[outcome]).get();
        let ways = [
            ("inline", fan_outs("inline", "small")),
            ("worker", fan_outs("worker", "queued") + fan_outs("worker", "moderate")),
            ("parallel", fan_outs("parallel", "costly")),
            ("catch-ups", metrics.catch_ups_total.get()),
            ("evictions", metrics.evictions_total.get()),
            ("resumes from memory", recoveries("tail")),
            ("resumes from the database", recoveries("log")),
        ];
        eprintln!(
            "{what}: published {}, deliveries {}, joins {}, {ways:?}, lost 0, repeated 0, out of order 0, {:.0?}, seed {seed}",
            self.published.load(Ordering::Relaxed),
            self.deliveries.load(Ordering::Relaxed),
            self.joins.load(Ordering::Relaxed),
            started.elapsed(),
        );
        assert!(ways.iter().all(|(_, count)| *count > 0), "a way of delivery was not tried: {ways:?}");
        // A hole is read back from the database, so subscriptions would not notice a wrong hand-off.
        assert_eq!(metrics.handoff_holes_total.get(), 0, "publications were handed over out of order");
        // Subscriptions recover from a panic, so nobody would notice that an invariant broke.
        assert_eq!(metrics.shard_panics_total.get(), 0, "an invariant broke in a turn");
    }
}

fn attack(what: &str, url: DatabaseUrl) {
    let (seed, started) = (seed(), Instant::now());
    let attack = Attack::new(url);
    attack.run(seed, short_or_long(1_500, 60_000));
    attack.judge(what, seed, started);
    attack.node.stop();
}

#[test]
fn an_embedded_node_on_sqlite() {
    let folder = TempDir::new();
    attack("embedded, SQLite", DatabaseUrl::Sqlite(folder.0.join("chat.db")));
}

#[test]
fn an_embedded_node_on_postgres() {
    let url = postgres::shared().database();
    attack("embedded, PostgreSQL", url.parse().unwrap());
}
