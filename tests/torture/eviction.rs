//! The eviction race: rooms that leave memory after two milliseconds, under publishes, joins and leaves
//! that come at just that time. Not one message is lost or stuck.
//!
//! Each thread is the only one to publish in its rooms, so it knows at any moment what their heads are:
//! a join must say exactly that, and a message must come to exactly those who are there.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::durable::ear::{connect, lines};
use crate::form::{Random, seed, short_or_long};
use crate::support::server::{Backend, TestServer};

const THREADS: u64 = 6;
const ROOMS_PER_THREAD: usize = 3;

/// Longest pause before an operation: around the timeout of 2 ms, before and after it.
const PAUSE_MAX_US: u64 = 5_000;

type Socket = WebSocket<TcpStream>;

struct Rounds<'a> {
    server: SocketAddr,
    dice: Random,
    writer: Socket,
    /// Name, head and listener of each room.
    rooms: Vec<(String, u64, Option<Ear>)>,
    next_id: u64,
    deliveries: &'a AtomicU64,
}

struct Ear {
    socket: Socket,
    position: u64,
}

impl Rounds<'_> {
    fn step(&mut self) {
        // The pause varies what meets what; no verdict depends on it.
        let until = Instant::now() + Duration::from_micros(self.dice.below(PAUSE_MAX_US));
        while Instant::now() < until {
            thread::yield_now();
        }
        let room = self.dice.below(self.rooms.len() as u64) as usize;
        match (self.dice.below(4), self.rooms[room].2.is_some()) {
            (0, true) => self.leave(room),
            (0 | 1, false) => self.join(room),
            _ => self.publish(room),
        }
    }

    fn publish(&mut self, room: usize) {
        let (name, head, ear) = &mut self.rooms[room];
        let count = 1 + self.dice.below(3);
        let first = self.next_id;
        self.next_id += count;
        let publish = |id: u64| {
            let data = *head + 1 + (id - first);
            json!({"id": id, "publish": {"channel": *name, "data": data}}).to_string()
        };
        let frame: Vec<_> = (first..self.next_id).map(publish).collect();
        self.writer.send(Message::text(frame.join("\n"))).unwrap();
        let mut answered = 0;
        while answered < count {
            for line in lines(&mut self.writer).expect("the server stays") {
                if line["id"].is_u64() {
                    assert!(line["publish"].is_object(), "{line}");
                    answered += 1;
                }
            }
        }
        *head += count;
        if let Some(ear) = ear {
            ear.hear_until(*head);
            self.deliveries.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// At the head, or from somewhere before it.
    fn join(&mut self, room: usize) {
        let (name, head, ear) = &mut self.rooms[room];
        let after = self.dice.one_in(2).then(|| self.dice.below(*head + 1).max(head.saturating_sub(50)));
        let mut socket = connect(self.server).expect("the server stays");
        let subscribe = json!({"id": 2, "subscribe": {
            "channel": *name, "recover": after.is_some(), "offset": after.unwrap_or(0)}});
        socket.send(Message::text(subscribe.to_string())).unwrap();
        let reply = lines(&mut socket).expect("an answer").remove(0);
        let result = &reply["subscribe"];
        let mut joined = Ear { socket, position: after.unwrap_or(*head) };
        match after {
            None => assert_eq!(result["offset"].as_u64().unwrap_or(0), *head, "the head of {name}: {reply}"),
            Some(_) => {
                assert_eq!(result["recovered"], true, "{reply}");
                for publication in result["publications"].as_array().into_iter().flatten() {
                    joined.hear(publication);
                }
            }
        }
        joined.hear_until(*head);
        *ear = Some(joined);
    }

    /// By unsubscribing, or by being cut off.
    fn leave(&mut self, room: usize) {
        let Some(mut ear) = self.rooms[room].2.take() else { return };
        if self.dice.one_in(2) {
            let _ = ear.socket.get_ref().shutdown(Shutdown::Both);
            return;
        }
        let unsubscribe = json!({"id": 3, "unsubscribe": {"channel": self.rooms[room].0}});
        ear.socket.send(Message::text(unsubscribe.to_string())).unwrap();
        let answer = lines(&mut ear.socket).expect("an answer").remove(0);
        assert!(answer["unsubscribe"].is_object(), "nothing more of the room comes: {answer}");
    }
}

impl Ear {
    fn hear(&mut self, publication: &Value) {
        self.position += 1;
        assert_eq!(publication["offset"], self.position, "lost, repeated or reordered: {publication}");
        assert_eq!(publication["data"], self.position, "another message: {publication}");
    }

    fn hear_until(&mut self, head: u64) {
        while self.position < head {
            for line in lines(&mut self.socket).expect("the server stays") {
                if line["push"]["pub"].is_object() {
                    self.hear(&line["push"]["pub"]);
                }
            }
        }
        assert_eq!(self.position, head, "more than was published");
    }
}

fn race(backend: Backend) {
    let (seed, started) = (seed(), Instant::now());
    let server = TestServer::on(backend, "[rooms]\nidle_timeout = \"2ms\"\n");
    let deliveries = AtomicU64::new(0);
    let steps = short_or_long(300, 12_000);
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (deliveries, address) = (&deliveries, server.address);
            scope.spawn(move || {
                let room = |place| (format!("room-{number}-{place}"), 0, None);
                let mut rounds = Rounds {
                    server: address,
                    dice: Random::new(seed, number),
                    writer: connect(address).expect("a healthy server"),
                    rooms: (0..ROOMS_PER_THREAD).map(room).collect(),
                    next_id: 2,
                    deliveries,
                };
                for _ in 0..steps {
                    rounds.step();
                }
            });
        }
    });
    let evictions = server.metric("evictions_total");
    eprintln!(
        "eviction race, {backend:?}: steps {}, evictions {evictions}, deliveries {}, lost 0, stuck 0, {:.0?}, seed {seed}",
        THREADS * steps,
        deliveries.load(Ordering::Relaxed),
        started.elapsed()
    );
    assert!(evictions > THREADS * steps / 20, "hardly any room left memory: {evictions}");
    assert_eq!(server.metric("handoff_holes_total"), 0, "publications were handed over out of order");
}

#[test]
fn rooms_that_leave_memory_at_the_wrong_moment_on_sqlite() {
    race(Backend::Sqlite);
}

#[test]
fn rooms_that_leave_memory_at_the_wrong_moment_on_postgres() {
    race(Backend::Postgres);
}
