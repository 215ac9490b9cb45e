//! Order and exactly-once delivery: whatever listeners, writers, strategies and evictions do, each
//! listener's stream is the exact contiguous sequence of its room.
//!
//! `journal` judges, `listener` and `writer` act at random, this file starts them, ends them and
//! compares everything with the database and the metrics.

mod eviction;
pub mod journal;
mod listener;
mod wire;
mod writer;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::form::{Random, count, seed, short_or_long};
use crate::support::server::{Backend, TestServer};
use crate::support::{TempDir, postgres};
use journal::{Alarm, Database, Meter, Room, Sent};
use listener::Listener;
use writer::{API_WRITER, Writer, broadcast_at_random};

/// Thresholds so low that all strategies take turns, rooms that leave memory at once, and outboxes
/// that are full after a few messages. Pings are not what is attacked here.
const CONFIG: &str = r#"
[namespace.loud]
publish = "everyone"
read_presence = "everyone"
read_history = "everyone"
[namespace.passing]
persist = false
join_leave = false
publish = "everyone"
read_presence = "everyone"
[rooms]
idle_timeout = "20ms"
inline_max_listeners = 2
inline_max_cost = "1s"
parallel_min_listeners = 8
parallel_min_cost = "0s"
catch_up_workers = 2
[client]
outbox_bytes_max = "4KiB"
commands_per_second_max = 1000000000
ping_interval = "1h"
stall_timeout = "1h"
"#;

/// What a room is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Half of the listeners are here.
    Big,
    /// A few are here.
    Medium,
    /// A witness, and now and then a visitor.
    Small,
    /// Nobody, and now and then a visitor; in between it leaves memory.
    Shy,
    /// Keeps nothing.
    Passing,
}

/// What happened.
#[derive(Default)]
struct Tally {
    deliveries: Meter,
    joins: Meter,
    resumes: Meter,
    cuts: Meter,
    pauses: Meter,
    glances: Meter,
}

/// What all threads of one attack share.
struct Run {
    address: SocketAddr,
    kinds: Vec<Kind>,
    rooms: Vec<Room>,
    by_name: HashMap<Vec<u8>, usize>,
    /// Messages acknowledged in all rooms.
    published: Meter,
    tally: Tally,
    alarm: Alarm,
    over: AtomicBool,
    /// The last offset of each room, once no writer is left.
    heads: OnceLock<Vec<u64>>,
}

impl Run {
    fn new(address: SocketAddr, rooms: Vec<(String, Kind)>) -> Self {
        let by_name = rooms.iter().enumerate().map(|(room, (name, _))| (name.clone().into_bytes(), room));
        Self {
            address,
            by_name: by_name.collect(),
            kinds: rooms.iter().map(|(_, kind)| *kind).collect(),
            rooms: rooms.into_iter().map(|(name, _)| Room::new(name)).collect(),
            published: Meter::default(),
            tally: Tally::default(),
            alarm: Alarm::default(),
            over: AtomicBool::new(false),
            heads: OnceLock::new(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) || self.alarm.rang()
    }

    fn keeps(&self, room: usize) -> bool {
        self.kinds[room] != Kind::Passing
    }

    fn has_witness(&self, room: usize) -> bool {
        matches!(self.kinds[room], Kind::Big | Kind::Medium | Kind::Small)
    }

    fn one_of(&self, kind: Kind, random: &mut Random) -> usize {
        let rooms: Vec<_> = (0..self.kinds.len()).filter(|room| self.kinds[*room] == kind).collect();
        rooms[random.below(rooms.len() as u64) as usize]
    }

    /// Compares every room with the database.
    fn compare(&self, database: &Database, sent: &Sent) {
        for (number, room) in self.rooms.iter().enumerate().filter(|(number, _)| self.keeps(*number)) {
            room.compare(number, database, sent, self.has_witness(number));
        }
    }
}

/// A server on a database that the test can read by itself.
fn server_on(backend: Backend, extras: &str) -> (TestServer, Database) {
    let folder = TempDir::new();
    let (url, database) = match backend {
        Backend::Sqlite => {
            let file = folder.0.join("chat.db").display().to_string();
            (format!("sqlite:{file}"), Database::Sqlite(file))
        }
        Backend::Postgres => {
            let url = postgres::shared().database();
            (url.clone(), Database::Postgres(url))
        }
    };
    (TestServer::at(url, folder, extras), database)
}

#[test]
fn every_stream_is_the_exact_sequence_of_its_room_on_sqlite() {
    every_stream_is_exact(Backend::Sqlite);
}

#[test]
fn every_stream_is_the_exact_sequence_of_its_room_on_postgres() {
    every_stream_is_exact(Backend::Postgres);
}

fn every_stream_is_exact(backend: Backend) {
    let seed = seed();
    let target = count("ROOMCAST_TORTURE_DELIVERIES", 40_000, 5_500_000);
    let listeners = short_or_long(16, 64);
    let (mut server, database) = server_on(backend, CONFIG);
    let run = Run::new(server.address, rooms());
    let began = Instant::now();
    let sent = attack(&run, &server, seed, target, listeners);
    run.compare(&database, &sent);
    let counts = Counts::of(&server);
    assert_eq!((counts.holes, counts.panics, counts.failed_recoveries), (0, 0, 0), "{counts:?}");
    assert!(run.tally.deliveries.get() >= target);
    eprintln!(
        "order, {backend:?}: {} deliveries of {} messages, {} fresh joins, {} resumes, {} connections cut, {} pauses, \
         {} glances, {counts:?}, lost = 0, repeated = 0, out of order = 0, {:.0} s, seed {seed}",
        run.tally.deliveries.get(),
        run.published.get(),
        run.tally.joins.get(),
        run.tally.resumes.get(),
        run.tally.cuts.get(),
        run.tally.pauses.get(),
        run.tally.glances.get(),
        began.elapsed().as_secs_f64(),
    );
    assert_eq!(server.stop(), Some(0));
}

fn rooms() -> Vec<(String, Kind)> {
    let named =
        |prefix: &'static str, count: u32, kind| (0..count).map(move |n| (format!("{prefix}{n}"), kind));
    named("big", 1, Kind::Big)
        .chain(named("medium", 3, Kind::Medium))
        .chain(named("loud:", 1, Kind::Medium))
        .chain(named("small", 4, Kind::Small))
        .chain(named("shy", 24, Kind::Shy))
        .chain(named("passing:", 2, Kind::Passing))
        .collect()
}

/// Runs everybody until enough was heard and everything happened; what the writers sent.
fn attack(run: &Run, server: &TestServer, seed: u64, target: u64, listeners: u64) -> Sent {
    let witnesses: Vec<_> = (0..run.rooms.len()).filter(|room| run.has_witness(*room)).collect();
    // Before the first message, so that they hear all of them.
    let witnesses = witnesses.into_iter().map(|room| {
        let mut witness = Listener::new(run, format!("witness{room}"), true);
        witness.join(room);
        witness
    });
    let witnesses: Vec<_> = witnesses.collect();
    thread::scope(|scope| {
        for witness in witnesses {
            scope.spawn(|| guarded(run, || watch(run, witness)));
        }
        for number in 0..listeners {
            let random = Random::new(seed, number);
            scope.spawn(move || guarded(run, || live(run, number, random)));
        }
        let writers: Vec<_> = (1..=4)
            .map(|number| {
                let random = Random::new(seed, 1000 + number);
                scope.spawn(move || guarded(run, || Writer::new(run, number).write_at_random(random)))
            })
            .collect();
        let random = Random::new(seed, 2000);
        let backend = scope.spawn(move || guarded(run, || broadcast_at_random(run, API_WRITER, random)));
        guarded(run, || {
            await_enough(run, server, target);
            run.over.store(true, Ordering::Release);
            let mut sent = Sent::new();
            for writer in writers.into_iter().chain([backend]) {
                sent.extend(writer.join().expect("a writer has failed"));
            }
            end(run, &mut sent);
            sent
        })
    })
}

fn guarded<T>(run: &Run, work: impl FnOnce() -> T) -> T {
    let _guard = run.alarm.guard();
    work()
}

/// Waits until the deliveries are enough and everything that can happen has happened.
fn await_enough(run: &Run, server: &TestServer, target: u64) {
    let heard = &run.tally.deliveries;
    loop {
        let before = heard.get();
        let (deadline, step) = (Instant::now() + crate::support::PATIENCE, 1 + target / 20);
        heard.wait(before + step, || run.alarm.rang() || Instant::now() > deadline);
        run.alarm.check();
        assert!(heard.get() > before, "nobody hears anything any more");
        let counts = Counts::of(server);
        if heard.get() >= target && counts.all_happened() {
            return;
        }
        let enough = target * 3 + 1_000_000;
        assert!(heard.get() < enough, "something never happened: {counts:?}");
    }
}

/// One last message in each room, whose offset is known, wakes every listener.
fn end(run: &Run, sent: &mut Sent) {
    let heads = run.rooms.iter().map(|room| room.acked.get() + 1).collect::<Vec<_>>();
    run.heads.set(heads.clone()).unwrap();
    let mut writer = Writer::new(run, 99);
    for room in (0..heads.len()).filter(|room| run.keeps(*room)) {
        assert_eq!(writer.publish_at(room), heads[room], "the number of the last message");
    }
    sent.extend(writer.sent);
}

/// The life of a witness: it listens.
fn watch(run: &Run, mut witness: Listener<'_>) {
    while run.heads.get().is_none() {
        witness.read();
    }
    witness.finish(run.heads.get().expect("known"));
}

/// The life of a listener.
fn live(run: &Run, number: u64, mut random: Random) {
    let mut listener = Listener::new(run, format!("listener{number}"), false);
    listener.join(run.one_of(if number.is_multiple_of(2) { Kind::Big } else { Kind::Medium }, &mut random));
    let mut act_at = random.below(200);
    while run.heads.get().is_none() {
        listener.read();
        if listener.heard >= act_at {
            act(run, &mut listener, &mut random);
            let patience = if random.one_in(4) { 800 } else { 100 };
            act_at = listener.heard + random.below(patience);
        }
    }
    listener.finish(run.heads.get().expect("known"));
}

/// Does something that disturbs.
fn act(run: &Run, listener: &mut Listener<'_>, random: &mut Random) {
    let inside: Vec<_> =
        (0..run.rooms.len()).filter(|room| listener.is_inside(*room) && run.keeps(*room)).collect();
    let here = inside[random.below(inside.len() as u64) as usize];
    let busy = if random.one_in(2) { Kind::Big } else { Kind::Medium };
    let visited = run.one_of(if random.one_in(3) { Kind::Small } else { Kind::Shy }, random);
    match random.below(16) {
        0 | 1 => {
            listener.leave(here);
            listener.resume(&[here]);
        }
        2 => {
            listener.leave(here);
            pause(run, random);
            listener.resume(&[here]);
        }
        3 => {
            listener.leave(here);
            listener.join(here);
        }
        4 | 5 => pause(run, random),
        6 => listener.cut(),
        7 => {
            pause(run, random);
            listener.cut();
        }
        8 => {
            let passing = run.one_of(Kind::Passing, random);
            if listener.is_inside(passing) { listener.leave(passing) } else { listener.join(passing) }
        }
        9 | 10 => move_to(listener, run.one_of(busy, random), here, inside.len() as u64, random),
        11 if !listener.is_inside(visited) => listener.look_in(visited),
        12 => {
            listener.leave(here);
            (0..random.below(4)).for_each(|_| listener.look_in(here));
            listener.resume(&[here]);
        }
        _ if listener.is_inside(visited) => listener.leave(visited),
        _ => visit(listener, visited, random),
    }
}

/// Goes to another room as well, or instead.
fn move_to(listener: &mut Listener<'_>, room: usize, here: usize, held: u64, random: &mut Random) {
    if !listener.is_inside(room) {
        if listener.was_inside(room) && !random.one_in(3) {
            listener.resume(&[room])
        } else {
            listener.join(room)
        }
    }
    if room != here && random.below(4) < held {
        listener.leave(here);
    }
}

/// Comes by: mostly hears what it missed and leaves, sometimes stays for a while.
fn visit(listener: &mut Listener<'_>, room: usize, random: &mut Random) {
    if random.one_in(8) {
        listener.join(room)
    } else {
        listener.resume(&[room])
    }
    if !random.one_in(10) {
        listener.leave(room);
    }
}

/// Reads nothing until a number of further messages was published.
fn pause(run: &Run, random: &mut Random) {
    run.tally.pauses.add(1);
    let most = if random.one_in(3) { 3000 } else { 300 };
    let messages = 1 + random.below(most);
    run.published.wait(run.published.get() + messages, || run.is_over());
}

/// What the server counted.
#[derive(Debug)]
#[allow(dead_code, reason = "printed")]
struct Counts {
    inline: u64,
    worker: u64,
    parallel: u64,
    catch_ups: u64,
    tail_recoveries: u64,
    log_recoveries: u64,
    failed_recoveries: u64,
    evictions: u64,
    dropped_ephemeral: u64,
    holes: u64,
    panics: u64,
}

impl Counts {
    fn of(server: &TestServer) -> Self {
        let fanouts = |strategy, reason| {
            server.metric(&format!("fanouts_total{{reason=\"{reason}\",strategy=\"{strategy}\"}}"))
        };
        let recoveries = |outcome| server.metric(&format!("recoveries_total{{outcome=\"{outcome}\"}}"));
        Self {
            inline: fanouts("inline", "small"),
            worker: fanouts("worker", "queued") + fanouts("worker", "moderate"),
            parallel: fanouts("parallel", "costly"),
            catch_ups: server.metric("catch_ups_total"),
            tail_recoveries: recoveries("tail"),
            log_recoveries: recoveries("log"),
            failed_recoveries: recoveries("failed"),
            evictions: server.metric("evictions_total"),
            dropped_ephemeral: server.metric("dropped_ephemeral_total"),
            holes: server.metric("handoff_holes_total"),
            panics: server.metric("shard_panics_total"),
        }
    }

    fn all_happened(&self) -> bool {
        let live = [self.inline, self.worker, self.parallel];
        let other = [self.catch_ups, self.tail_recoveries, self.log_recoveries, self.evictions];
        live.into_iter().chain(other).all(|count| count > 0)
    }
}
