//! Long resumes: a week of messages, read while the room goes on; and resumes that come too late.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::form::{Random, seed, short_or_long};
use crate::support::server::{Backend, TestServer};
use crate::swarm::{Pace, StopOnDrop, Swarm, Writer, resident_bytes};

/// The writer of these tests is a whole town.
const FAST_WRITER: &str = "[client]\ncommands_per_second_max = 10_000_000\n";

const WEEK: &str = "[namespace.week]\nhistory_size = 1000\njoin_leave = false\n";

/// Code of the push that takes a subscription away because messages it is owed are gone.
const INSUFFICIENT_STATE: u64 = 2500;

#[test]
fn a_week_is_resumed_while_the_room_is_live_on_sqlite() {
    resume_a_week(Backend::Sqlite);
}

#[test]
fn a_week_is_resumed_while_the_room_is_live_on_postgres() {
    resume_a_week(Backend::Postgres);
}

fn resume_a_week(backend: Backend) {
    let missed = short_or_long(20_000, 200_000);
    let mut dice = Random::new(seed(), backend as u64);
    let server = TestServer::on(backend, FAST_WRITER);
    let mut writer = Writer::new(&server, &["room"], 20);
    writer.publish(missed);
    let epoch = server.epoch();
    let mut swarm = Swarm::new(&server);
    // More of them than there are threads that read the log.
    for pace in [Pace::BytesPerSecond(64 * 1024), Pace::Stopped, Pace::Stopped] {
        swarm.add_resuming(pace, "room", 0, &epoch);
    }
    let slow = 0..swarm.listeners.len();
    swarm.run_until("the slow ones began", |swarm| swarm.all_joined(slow.clone()));
    for client in 0..8 {
        let from = if client == 0 { 0 } else { dice.below(missed as u64) };
        swarm.add_resuming(Pace::Free, "room", from, &epoch);
    }
    let left = swarm.listeners.iter().map(|one| missed as u64 - one.rooms[0].last);
    let owed = swarm.deliveries() + left.sum::<u64>();
    let quick = slow.end..swarm.listeners.len();
    let started = Instant::now();
    let stop = AtomicBool::new(false);
    let head = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                writer.publish(5);
            }
            writer.head()
        });
        let stopping = StopOnDrop(&stop);
        // They are done with the past when they are beyond it; the room is live all the time.
        swarm.run_until("the quick ones are beyond what they missed", |swarm| {
            swarm.listeners[quick.clone()].iter().all(|one| one.rooms[0].last > missed as u64)
        });
        drop(stopping);
        publishing.join().unwrap()
    });
    let seconds = started.elapsed().as_secs_f64();
    swarm.run_until("the quick ones are complete", |swarm| swarm.all_at(quick.clone(), head));
    let behind: Vec<_> = swarm.listeners[slow.clone()].iter().map(|one| head - one.rooms[0].last).collect();
    slow.for_each(|index| swarm.set_pace(index, Pace::Free));
    swarm.run_until("the slow ones are complete", |swarm| swarm.all_at(0..quick.end, head));
    assert!(swarm.listeners.iter().all(|one| one.rooms[0].recovered == Some(true)));
    let live = (head - missed as u64) * swarm.listeners.len() as u64;
    assert_eq!(swarm.deliveries(), owed + live);
    writer.publish(1);
    swarm.run_until("all are live", |swarm| swarm.all_at(0..quick.end, head + 1));
    eprintln!(
        "resume, {backend:?}: clients={} missed={missed} resumed={owed} live_meanwhile={} \
         seconds={seconds:.2} slow_were_behind={behind:?} pages={} hits={} rss_mib={} lost=0",
        quick.end,
        head - missed as u64,
        server.metric("catch_up_pages_total"),
        server.metric("catch_up_page_hits_total"),
        resident_bytes(&server) >> 20,
    );
}

/// Of a room that keeps its newest 1,000 messages, the last 900 are resumed; who asks for more is told
/// that it is too late, and goes on with what is published from then on.
#[test]
fn messages_outside_retention_are_not_resumed() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::on(backend, &format!("{FAST_WRITER}{WEEK}"));
        let mut writer = Writer::new(&server, &["week:room"], 1_000);
        writer.publish(short_or_long(2_000, 20_000));
        let (head, epoch) = (writer.head(), server.epoch());
        let mut swarm = Swarm::new(&server);
        swarm.add_resuming(Pace::Free, "week:room", head - 900, &epoch);
        swarm.add_resuming(Pace::Free, "week:room", head - 1000, &epoch);
        swarm.add_resuming(Pace::Free, "week:room", head - 1001, &epoch);
        swarm.add_resuming(Pace::Free, "week:room", 0, &epoch);
        swarm.add_resuming(Pace::Free, "week:room", head - 900, "anotherepoch");
        swarm.run_until("all answered", |swarm| swarm.all_at(0..5, head));
        let recovered: Vec<_> = swarm.listeners.iter().map(|one| one.rooms[0].recovered.unwrap()).collect();
        assert_eq!(recovered, [true, true, false, false, false]);
        assert_eq!(swarm.deliveries(), 1_900);
        // One that resumes and then stands still, until what it is owed is gone.
        let late = swarm.add_resuming(Pace::Stopped, "week:room", head - 900, &epoch);
        swarm.run_until("it is recovering", |swarm| swarm.all_joined(late..late + 1));
        // In steps, or the others would fall so far behind that retention overtakes them as well.
        for step in 1..=10 {
            writer.publish(200);
            swarm.run_until("live messages", |swarm| swarm.all_at(0..5, head + step * 200));
        }
        swarm.set_pace(late, Pace::Free);
        swarm.run_until("it is told", |swarm| swarm.listeners[late].rooms[0].unsubscribed.is_some());
        let room = &swarm.listeners[late].rooms[0];
        assert_eq!(room.unsubscribed, Some(INSUFFICIENT_STATE), "at {}", room.last);
        assert!(room.last <= head + 1_000, "it was given {}", room.last);
    }
}
