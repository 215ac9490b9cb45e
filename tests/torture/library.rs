//! The promises to a program that embeds a node: every subscription is the exact contiguous sequence
//! of its room, whatever publishers, subscribers, budgets and evictions do.
//!
//! Like `order`, with the journal of that attack, and without sockets: rooms leave memory after a
//! millisecond, and a subscriber's budget holds a few messages.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use roomcast::config::{Config, DatabaseUrl};
use roomcast::ids::{Channel, Seq};
use roomcast::node::{Ended, Node, Subscription};

use crate::form::{Random, seed, short_or_long};
use crate::order::journal::{Alarm, Database, Meter, Room, Sent, payload, print, print_of};
use crate::support::server::Backend;
use crate::support::{PATIENCE, TempDir, postgres};

/// Rooms that always have a witness, and rooms that have a visitor now and then.
const BUSY: usize = 5;
const SHY: usize = 20;

/// How many messages a busy room may be ahead of its witness before its publishers wait.
const LEAD_MAX: u64 = 1000;

/// What all threads of the attack share.
struct Run {
    node: Node,
    rooms: Vec<Room>,
    channels: Vec<Channel>,
    published: Meter,
    deliveries: Meter,
    joins: Meter,
    resumes: Meter,
    pauses: Meter,
    alarm: Alarm,
    over: AtomicBool,
    /// The last seq of each room, once no publisher is left.
    heads: OnceLock<Vec<Seq>>,
}

impl Run {
    fn new(node: Node) -> Self {
        let names = (0..BUSY).map(|n| format!("busy{n}")).chain((0..SHY).map(|n| format!("shy{n}")));
        let names: Vec<_> = names.collect();
        Self {
            node,
            channels: names.iter().map(|name| name.parse().unwrap()).collect(),
            rooms: names.into_iter().map(Room::new).collect(),
            published: Meter::default(),
            deliveries: Meter::default(),
            joins: Meter::default(),
            resumes: Meter::default(),
            pauses: Meter::default(),
            alarm: Alarm::default(),
            over: AtomicBool::new(false),
            heads: OnceLock::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.alarm.rang()
    }

    fn fan_outs(&self, strategy: &str) -> u64 {
        self.node.metrics().fanouts_total.with_label_values(&[strategy]).get()
    }

    fn recoveries(&self, outcome: &str) -> u64 {
        self.node.metrics().recoveries_total.with_label_values(&[outcome]).get()
    }

    fn all_happened(&self) -> bool {
        let metrics = self.node.metrics();
        let live = ["inline", "worker", "parallel"].map(|strategy| self.fan_outs(strategy));
        let other = [metrics.catch_ups_total.get(), metrics.evictions_total.get()];
        let recoveries = ["tail", "log"].map(|outcome| self.recoveries(outcome));
        live.iter().chain(&other).chain(&recoveries).all(|count| *count > 0)
    }

    fn guarded<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.alarm.guard();
        work()
    }
}

#[test]
fn every_subscription_is_the_exact_sequence_of_its_room_on_sqlite() {
    let folder = TempDir::new();
    let file = folder.0.join("chat.db");
    let database = Database::Sqlite(file.display().to_string());
    every_subscription_is_exact(Backend::Sqlite, DatabaseUrl::Sqlite(file), &database);
}

#[test]
fn every_subscription_is_the_exact_sequence_of_its_room_on_postgres() {
    let url = postgres::shared().database();
    every_subscription_is_exact(Backend::Postgres, url.parse().unwrap(), &Database::Postgres(url));
}

fn every_subscription_is_exact(backend: Backend, url: DatabaseUrl, database: &Database) {
    let seed = seed();
    let (target, subscribers) = short_or_long((40_000, 10), (4_000_000, 16));
    let mut config = Config::default();
    config.database.url = url;
    config.client.outbox_bytes_max = 2_000;
    config.rooms.idle_timeout = Duration::from_millis(1);
    config.rooms.inline_max_listeners = 1;
    config.rooms.parallel_min_listeners = 5;
    let run = Run::new(Node::open(&config).unwrap());
    let began = Instant::now();
    let sent = attack(&run, seed, target, subscribers);
    for (number, room) in run.rooms.iter().enumerate() {
        room.compare(number, database, &sent, number < BUSY);
    }
    let metrics = run.node.metrics();
    assert_eq!((metrics.handoff_holes_total.get(), run.recoveries("failed")), (0, 0));
    eprintln!(
        "library, {backend:?}: {} deliveries of {} messages, {} fresh joins, {} resumes ({} from the tail, {} from the \
         log), {} pauses, {} catch-ups, {} evictions, fan-outs: {} inline, {} worker, {} parallel, lost = 0, \
         repeated = 0, out of order = 0, {:.0} s, seed {seed}",
        run.deliveries.get(),
        run.published.get(),
        run.joins.get(),
        run.resumes.get(),
        run.recoveries("tail"),
        run.recoveries("log"),
        run.pauses.get(),
        metrics.catch_ups_total.get(),
        metrics.evictions_total.get(),
        run.fan_outs("inline"),
        run.fan_outs("worker"),
        run.fan_outs("parallel"),
        began.elapsed().as_secs_f64(),
    );
    run.node.stop();
}

/// Runs everybody until enough was heard and everything happened; what the publishers sent.
fn attack(run: &Run, seed: u64, target: u64, subscribers: u64) -> Sent {
    let witnesses: Vec<_> = (0..BUSY)
        .map(|room| {
            let mut witness = Ears::new(run);
            witness.resume(room);
            witness
        })
        .collect();
    thread::scope(|scope| {
        for (room, witness) in witnesses.into_iter().enumerate() {
            scope.spawn(move || run.guarded(|| watch(run, witness, room)));
        }
        for number in 0..subscribers {
            let random = Random::new(seed, number);
            scope.spawn(move || run.guarded(|| live(run, random)));
        }
        let publishers: Vec<_> = (1..=4)
            .map(|writer| {
                let random = Random::new(seed, 1000 + writer);
                scope.spawn(move || run.guarded(|| publish_at_random(run, writer, random)))
            })
            .collect();
        run.guarded(|| {
            await_enough(run, target);
            run.over.store(true, Ordering::Release);
            let mut sent = Sent::new();
            for publisher in publishers {
                sent.extend(publisher.join().expect("a publisher has failed"));
            }
            run.heads.set(run.rooms.iter().map(|room| room.acked.get()).collect()).unwrap();
            sent
        })
    })
}

fn await_enough(run: &Run, target: u64) {
    while run.deliveries.get() < target || !run.all_happened() {
        let before = run.deliveries.get();
        let deadline = Instant::now() + PATIENCE;
        run.deliveries.wait(before + 1 + target / 20, || run.alarm.rang() || Instant::now() > deadline);
        run.alarm.check();
        assert!(run.deliveries.get() > before, "nobody hears anything any more");
        assert!(
            before < target * 3 + 1_000_000,
            "something never happened:\n{}",
            run.node.metrics().render()
        );
    }
}

fn publish_at_random(run: &Run, writer: u64, mut random: Random) -> Sent {
    let mut sent = Sent::new();
    let mut count = 0;
    while !run.is_over() {
        let room = match random.below(10) {
            0 | 1 => BUSY + random.below(SHY as u64) as usize,
            2..6 => 0,
            _ => random.below(BUSY as u64) as usize,
        };
        let burst = if random.one_in(2) { 1 } else { random.below(30) };
        for _ in 0..burst {
            count += 1;
            let key = random.one_in(10).then(|| format!("{writer}/{count}"));
            let publish =
                || run.node.publish_once(&run.channels[room], &payload(writer, count), key.as_deref());
            let seq = publish().unwrap();
            if key.is_some() && random.one_in(2) {
                assert_eq!(publish(), Ok(seq), "the same key");
            }
            run.rooms[room].note(seq, &[print(writer, count)]);
            run.rooms[room].acked.add(1);
            run.published.add(1);
            sent.entry((room, writer)).or_default().push(count);
        }
        if room < BUSY {
            let needed = run.rooms[room].acked.get().saturating_sub(LEAD_MAX);
            run.rooms[room].witnessed.wait(needed, || run.is_over());
        }
    }
    sent
}

/// The subscriptions of one thread, and how far it has heard each room.
struct Ears<'a> {
    run: &'a Run,
    subscriptions: Vec<Option<Subscription>>,
    /// `None` before its first visit.
    positions: Vec<Option<Seq>>,
}

impl<'a> Ears<'a> {
    fn new(run: &'a Run) -> Self {
        let subscriptions = run.rooms.iter().map(|_| None).collect();
        Self { run, subscriptions, positions: vec![None; run.rooms.len()] }
    }

    /// Subscribes from the head.
    fn join(&mut self, room: usize) {
        self.run.joins.add(1);
        let subscription = self.run.node.subscribe(&self.run.channels[room], None).unwrap();
        assert!(
            self.positions[room].is_none_or(|before| before <= subscription.position()),
            "the head went back"
        );
        self.positions[room] = Some(subscription.position());
        self.subscriptions[room] = Some(subscription);
    }

    /// Subscribes from where it was, or from the first message.
    fn resume(&mut self, room: usize) {
        self.run.resumes.add(1);
        let position = self.positions[room].unwrap_or(0);
        let subscription = self.run.node.subscribe(&self.run.channels[room], Some(position)).unwrap();
        assert_eq!(subscription.position(), position);
        self.positions[room] = Some(position);
        self.subscriptions[room] = Some(subscription);
    }

    fn leave(&mut self, room: usize) {
        self.subscriptions[room] = None;
    }

    fn held(&self) -> Vec<usize> {
        (0..self.subscriptions.len()).filter(|room| self.subscriptions[*room].is_some()).collect()
    }

    /// Hears the next message, if one comes in a moment.
    fn hear(&mut self, room: usize) -> bool {
        let subscription = self.subscriptions[room].as_mut().expect("a subscription");
        match subscription.recv_timeout(Duration::from_millis(20)) {
            Ok(publication) => {
                let position = self.positions[room].unwrap_or(0);
                let name = &self.run.rooms[room].name;
                assert_eq!(publication.seq, position + 1, "heard in {name} after {position}");
                assert_eq!(subscription.position(), publication.seq);
                self.run.rooms[room].note(publication.seq, &[print_of(publication.data.as_bytes())]);
                self.run.deliveries.add(1);
                self.positions[room] = Some(publication.seq);
                true
            }
            Err(Ended::TimedOut) => false,
            Err(ended) => panic!("{}: {ended}", self.run.rooms[room].name),
        }
    }

    fn hear_to(&mut self, room: usize, seq: Seq) {
        let mut deadline = Instant::now() + PATIENCE;
        while self.positions[room].unwrap_or(0) < seq {
            self.run.alarm.check();
            if self.hear(room) {
                deadline = Instant::now() + PATIENCE;
            }
            let (name, position) = (&self.run.rooms[room].name, self.positions[room]);
            assert!(Instant::now() < deadline, "stuck in {name} at {position:?} before {seq}");
        }
    }

    /// Hears what was published so far on a thread of the library's making.
    fn hear_by_callback(&mut self, room: usize) {
        let until = self.run.rooms[room].acked.get();
        let position = self.positions[room].unwrap_or(0);
        let Some(subscription) = self.subscriptions[room].take().filter(|_| position < until) else { return };
        let (sender, heard) = std::sync::mpsc::channel();
        let callback = move |publication: roomcast::publication::Publication| {
            sender.send((publication.seq, print_of(publication.data.as_bytes()))).is_ok()
                && publication.seq < until
        };
        let thread = subscription.for_each(callback).unwrap();
        let next = |_| heard.recv_timeout(PATIENCE).expect("the callback hears what was published");
        let heard: Vec<_> = (position..until).map(next).collect();
        assert_eq!(thread.join().unwrap(), None);
        assert!(
            heard.iter().map(|(seq, _)| *seq).eq(position + 1..=until),
            "{position}..={until}: {heard:?}"
        );
        self.run.rooms[room].note(position + 1, &heard.iter().map(|(_, print)| *print).collect::<Vec<_>>());
        self.run.deliveries.add(heard.len() as u64);
        self.positions[room] = Some(until);
    }

    /// Goes back to every room it ever was in and hears all there is.
    fn finish(&mut self) {
        let heads = self.run.heads.get().expect("known");
        for room in 0..heads.len() {
            if self.positions[room].is_some() && self.subscriptions[room].is_none() {
                self.resume(room);
            }
        }
        for room in self.held() {
            self.hear_to(room, heads[room]);
            assert!(!self.hear(room), "more than there is in {}", self.run.rooms[room].name);
        }
    }
}

/// The life of a witness: it listens.
fn watch(run: &Run, mut witness: Ears<'_>, room: usize) {
    while run.heads.get().is_none() {
        run.alarm.check();
        if witness.hear(room) {
            run.rooms[room].witnessed.raise(witness.positions[room].unwrap_or(0));
        }
    }
    witness.finish();
}

/// The life of a subscriber, who hears several rooms in turn.
fn live(run: &Run, mut random: Random) {
    let mut ears = Ears::new(run);
    ears.join(0);
    while run.heads.get().is_none() {
        run.alarm.check();
        for room in ears.held() {
            let enough = 1 + random.below(150);
            let mut heard = 0;
            while heard < enough && ears.hear(room) {
                heard += 1;
            }
        }
        act(run, &mut ears, &mut random);
    }
    ears.finish();
}

/// Does something that disturbs.
fn act(run: &Run, ears: &mut Ears<'_>, random: &mut Random) {
    let held = ears.held();
    let here = held[random.below(held.len() as u64) as usize];
    let room = match random.below(3) {
        0 => random.below(BUSY as u64) as usize,
        _ => BUSY + random.below(SHY as u64) as usize,
    };
    match random.below(12) {
        0 => {
            ears.leave(here);
            ears.resume(here);
        }
        1 => {
            ears.leave(here);
            pause(run, random);
            ears.resume(here);
        }
        2 => {
            ears.leave(here);
            ears.join(here);
        }
        3 => pause(run, random),
        4 => {
            ears.hear_by_callback(here);
            ears.leave(here);
            ears.resume(here);
        }
        5 | 6 if held.len() > 1 => ears.leave(here),
        7..10 if ears.subscriptions[room].is_none() => visit(ears, room, random),
        _ => {}
    }
}

/// Comes by: mostly hears what it missed and leaves, sometimes stays.
fn visit(ears: &mut Ears<'_>, room: usize, random: &mut Random) {
    if random.one_in(4) {
        ears.join(room)
    } else {
        ears.resume(room)
    }
    if !random.one_in(4) {
        let so_far = ears.run.rooms[room].acked.get();
        if ears.positions[room].unwrap_or(0) < so_far && random.one_in(2) {
            ears.hear_to(room, so_far);
        }
        ears.leave(room);
    }
}

/// Hears nothing until a number of further messages was published.
fn pause(run: &Run, random: &mut Random) {
    run.pauses.add(1);
    let messages = 1 + random.below(500);
    run.published.wait(run.published.get() + messages, || run.is_over());
}
