//! The eviction race: rooms that leave memory just while somebody comes, writes or goes. Not one
//! message may be lost or stuck, and no number given twice.
//!
//! The waits spread what happens around the idle timeout; no verdict depends on them.

use std::thread;
use std::time::{Duration, Instant};

use super::journal::Sent;
use super::listener::Listener;
use super::writer::Writer;
use super::{Kind, Run, guarded, server_on};
use crate::form::{Random, seed, short_or_long};
use crate::support::server::Backend;

/// The idle timeout, as the configuration below has it.
const IDLE: Duration = Duration::from_millis(2);

const CONFIG: &str = r#"
[rooms]
idle_timeout = "2ms"
inline_max_listeners = 2
[client]
outbox_bytes_max = "4KiB"
commands_per_second_max = 1000000000
ping_interval = "1h"
"#;

const THREADS: u64 = 6;

/// Rooms of each thread alone, and rooms of all.
const OWN_ROOMS: u64 = 8;

#[test]
fn rooms_that_are_evicted_lose_nothing_on_sqlite() {
    rooms_that_are_evicted_lose_nothing(Backend::Sqlite);
}

#[test]
fn rooms_that_are_evicted_lose_nothing_on_postgres() {
    rooms_that_are_evicted_lose_nothing(Backend::Postgres);
}

fn rooms_that_are_evicted_lose_nothing(backend: Backend) {
    let seed = seed();
    let (turns, evictions_least) = short_or_long((120, 50), (10_000, 5_000));
    let (mut server, database) = server_on(backend, CONFIG);
    let rooms =
        (0..=THREADS).flat_map(|owner| (0..OWN_ROOMS).map(move |n| (format!("room{owner}-{n}"), Kind::Shy)));
    let run = Run::new(server.address, rooms.collect());
    let began = Instant::now();
    let mut sent = Sent::new();
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let random = Random::new(seed, thread);
                scope.spawn(move || guarded(run, || come_and_go(run, thread, turns, random)))
            })
            .collect();
        for thread in threads {
            sent.extend(thread.join().expect("a thread has failed"));
        }
    });
    run.compare(&database, &sent);
    let evictions = server.metric("evictions_total");
    assert!(evictions >= evictions_least, "only {evictions} evictions");
    assert_eq!(server.metric("handoff_holes_total"), 0);
    assert_eq!(server.metric("shard_panics_total"), 0);
    eprintln!(
        "eviction race, {backend:?}: {} messages, {} deliveries, {} resumes, {} fresh joins, {evictions} evictions, \
         lost = 0, stuck = 0, {:.0} s, seed {seed}",
        run.published.get(),
        run.tally.deliveries.get(),
        run.tally.resumes.get(),
        run.tally.joins.get(),
        began.elapsed().as_secs_f64(),
    );
    assert_eq!(server.stop(), Some(0));
}

/// A writer and a listener that meet in rooms that are about to be forgotten; what the writer sent.
fn come_and_go(run: &Run, thread: u64, turns: u64, mut random: Random) -> Sent {
    let mut listener = Listener::new(run, format!("listener{thread}"), false);
    let mut writer = Writer::new(run, thread + 1);
    for _ in 0..turns {
        let owner = if random.one_in(4) { THREADS } else { thread };
        let room = (owner * OWN_ROOMS + random.below(OWN_ROOMS)) as usize;
        let begin = Instant::now();
        writer.publish_at(room);
        wait_near_the_timeout(begin, &mut random);
        meet(&mut listener, &mut writer, room, &mut random);
    }
    for room in 0..run.rooms.len() {
        if listener.is_inside(room) {
            listener.leave(room);
        }
    }
    writer.sent
}

/// Comes and goes in one of the orders that matter, and hears everything up to the last message.
fn meet(listener: &mut Listener<'_>, writer: &mut Writer<'_>, room: usize, random: &mut Random) {
    let burst = vec![room; 1 + random.below(4) as usize];
    match random.below(6) {
        // The message and the listener come at the same time.
        0 => {
            writer.publish(&burst);
            enter(listener, room, random);
            writer.await_acks();
        }
        1 => {
            enter(listener, room, random);
            writer.publish(&burst);
            writer.await_acks();
        }
        // It leaves while a message is under way.
        2 => {
            enter(listener, room, random);
            writer.publish(&burst);
            listener.leave(room);
            writer.await_acks();
        }
        3 => {
            writer.publish(&burst);
            listener.leave_if_inside(room);
            listener.look_in(room);
            writer.await_acks();
        }
        4 => {
            listener.leave_if_inside(room);
            writer.publish(&burst);
            writer.await_acks();
        }
        _ => enter(listener, room, random),
    }
    enter(listener, room, random);
    let last = writer.publish_at(room);
    listener.read_to(room, last);
    if !random.one_in(8) {
        listener.leave(room);
    }
}

fn enter(listener: &mut Listener<'_>, room: usize, random: &mut Random) {
    match listener.is_inside(room) {
        true => {}
        false if random.one_in(5) => listener.join(room),
        false => listener.resume(&[room]),
    }
}

/// Lets the room be idle for about as long as it may be: sometimes a little less, sometimes more.
fn wait_near_the_timeout(begin: Instant, random: &mut Random) {
    let until = begin + IDLE * (70 + random.below(80) as u32) / 100;
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        if left > Duration::from_millis(1) {
            thread::sleep(left - Duration::from_millis(1))
        } else {
            thread::yield_now()
        }
    }
}
