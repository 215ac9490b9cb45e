//! A message to as many channels as one request may name, beside people who chat: nobody waits long for it.
//!
//! Each kind of bystander does one thing again and again and notes how long it takes: at rest, then while the API
//! broadcasts to rooms that are new, then to the same rooms again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::form::short_or_long;
use crate::support::client::Client;
use crate::support::server::{Backend, TestServer};
use crate::swarm::{StopOnDrop, percentile};

/// Rooms other than those of the broadcast, so that every commit lane has publishers.
const WRITERS: usize = 4;

/// Between two acts of one bystander: they chat, and do not fill the machine.
const PAUSE: Duration = Duration::from_millis(5);

/// What a bystander does, and how long each time took, in microseconds.
type Taken = Mutex<Vec<(&'static str, u32)>>;

#[test]
fn a_large_broadcast_delays_nobody_on_sqlite() {
    broadcast_beside_others(Backend::Sqlite);
}

#[test]
fn a_large_broadcast_delays_nobody_on_postgres() {
    broadcast_beside_others(Backend::Postgres);
}

fn broadcast_beside_others(backend: Backend) {
    let channels = short_or_long(10_000, 100_000);
    let server = TestServer::on(backend, "");
    let names: Vec<_> = (0..channels).map(|number| format!(r#""room{number}""#)).collect();
    let body = format!(r#"{{"channels":[{}],"data":"to everybody"}}"#, names.join(","));
    measure(&server, "at rest", || {
        thread::sleep(short_or_long(Duration::from_millis(500), Duration::from_secs(5)))
    });
    for rooms in ["new rooms", "known rooms"] {
        measure(&server, rooms, || {
            let answer = server.post("/api/broadcast", "", &body).body;
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(published(&answer), channels as u64);
        });
    }
    assert_eq!(server.metric("handoff_holes_total"), 0);
}

/// In how many channels a broadcast is: an answer that would be too long has the number alone.
fn published(answer: &Value) -> u64 {
    let result = &answer["result"];
    let count = |each: &Vec<Value>| each.iter().filter(|one| one["result"]["offset"].is_u64()).count() as u64;
    result["published"].as_u64().or_else(|| result["responses"].as_array().map(count)).unwrap_or_default()
}

/// Everybody does what they do while `load` is on, which is longer than any of them waits.
fn measure(server: &TestServer, load_name: &str, load: impl FnOnce()) {
    let (taken, stop) = (Taken::default(), AtomicBool::new(false));
    let took = thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        for act in acts(server) {
            scope.spawn(|| repeat(act, &stop, &taken));
        }
        let began = Instant::now();
        load();
        drop(stopping);
        began.elapsed()
    });
    let taken = taken.into_inner().unwrap();
    let mut names: Vec<_> = taken.iter().map(|(name, _)| *name).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut of_name: Vec<_> = taken.iter().filter(|(of, _)| *of == name).map(|(_, us)| *us).collect();
        let [p50, p99, most] = [50, 99, 100].map(|part| f64::from(percentile(&mut of_name, part)) / 1e3);
        eprintln!(
            "broadcast, {:?}, {load_name} ({took:.1?}): {name}: times={} p50_ms={p50:.1} p99_ms={p99:.1} most_ms={most:.1}",
            server.backend(),
            of_name.len(),
        );
        let is_bystander = load_name == "at rest" || Duration::from_secs_f64(most / 1e3) < took / 4;
        assert!(is_bystander, "{name} took {most} ms of {took:?}");
    }
}

type Act<'a> = (&'static str, Box<dyn FnMut() + Send + 'a>);

fn acts(server: &TestServer) -> Vec<Act<'_>> {
    let mut acts: Vec<Act<'_>> = (0..WRITERS)
        .map(|writer| -> Act<'_> {
            let mut client = server.connect(&format!("writer {writer}"));
            let room = format!("other{writer}");
            ("publish", Box::new(move || client.publish(&room, "1")))
        })
        .collect();
    let mut hearer = server.connect("hearer");
    hearer.join("heard");
    acts.push(("publish, own push", Box::new(move || publish_and_hear(&mut hearer, "heard"))));
    let mut typist = server.connect("typist");
    typist.join("typing:room");
    acts.push(("not stored, own push", Box::new(move || publish_and_hear(&mut typist, "typing:room"))));
    let mut reader = server.connect("reader");
    let question = r#"{"history":{"channel":"other0","limit":10}}"#;
    acts.push(("history", Box::new(move || drop(reader.ask(question)))));
    let mut comer = server.connect("comer");
    acts.push((
        "subscribe",
        Box::new(move || {
            comer.join("other1");
            comer.ask(r#"{"unsubscribe":{"channel":"other1"}}"#);
        }),
    ));
    acts.push(("health", Box::new(|| assert_eq!(server.get("/health").status, 200))));
    acts
}

fn publish_and_hear(client: &mut Client, room: &str) {
    client.publish(room, "1");
    client.next_push();
}

fn repeat((name, mut act): Act<'_>, stop: &AtomicBool, taken: &Taken) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        act();
        taken.lock().unwrap().push((name, began.elapsed().as_micros() as u32));
        thread::sleep(PAUSE);
    }
}
