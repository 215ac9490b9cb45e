//! What one publication costs on its way to the listeners of a room, by strategy, members and payload.
//!
//! `fan_out/local`: listeners are outboxes of this process, so the system call is left out and what
//! remains is our own work; a round ends when every member's outbox holds the message.
//! `fan_out/sockets`: listeners are loopback connections; a round ends when the reader at their far
//! end has read the message from every one of them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot measure fails by panic")]

mod common;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use crossbeam_channel::{bounded, unbounded};
use roomcast::internals::{
    Answer, CommitSink, ConnectionId, Drainer, Engine, EngineParts, Extra, Format, JoinRequest, Listener,
    Log, LogUnavailable, Outbox, Push, PushMessage, Retention, frame,
};
use roomcast::{Channel, ClientInfo, Config, Metrics, Publication, Seq};

use common::sockets::Sockets;
use common::{payload, publication, publisher};

const STRATEGIES: [&str; 3] = ["inline", "worker", "parallel"];
const MEMBERS: [usize; 4] = [1, 10, 100, 1000];
const PAYLOADS: [usize; 2] = [128, 2048];
const BUDGET: usize = 1 << 20;
const FORMAT: Format = Format::Json;

/// A log without messages: nobody here resumes.
struct Empty;

impl Log for Empty {
    fn head(&self, _: &Channel) -> Result<Seq, LogUnavailable> {
        Ok(0)
    }

    fn page(&self, _: &Channel, _: Seq, _: Seq, _: Retention) -> Result<Vec<Publication>, LogUnavailable> {
        Ok(Vec::new())
    }

    fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, LogUnavailable> {
        Ok(epoch.into())
    }
}

/// An engine with one shard that uses this strategy for a room of so many members.
struct Rig {
    engine: Arc<Engine>,
    drainer: Drainer,
    metrics: Arc<Metrics>,
    channel: Channel,
    listeners: Vec<Arc<Listener>>,
}

impl Rig {
    fn start(strategy: &str, members: usize) -> Self {
        let mut config = Config::default();
        let mut quiet = (*config.namespaces.default).clone();
        quiet.join_leave = false;
        config.namespaces.default = Arc::new(quiet);
        config.rooms.inline_max_listeners = if strategy == "inline" { members } else { 0 };
        config.rooms.inline_max_cost = Duration::from_secs(1);
        config.rooms.parallel_min_cost = Duration::ZERO;
        config.rooms.parallel_min_listeners = if strategy == "parallel" { members } else { usize::MAX };
        let metrics = Arc::new(Metrics::new());
        let (notices, drained) = unbounded();
        let drainer = Drainer::start(Duration::from_secs(60), notices, metrics.clone()).unwrap();
        let parts =
            EngineParts { log: Arc::new(Empty), epoch: "bench".into(), drained, metrics: metrics.clone() };
        let engine = Engine::start(1, &config.rooms, config.namespaces, parts).unwrap();
        let channel = Channel::new("room").unwrap();
        Self { engine, drainer, metrics, channel, listeners: Vec::new() }
    }

    /// Lets the owner of an outbox listen to the room.
    fn join(&mut self, outbox: Arc<Outbox>) {
        let client = outbox.id().0.to_string().into();
        let info = Arc::new(ClientInfo { user: "".into(), client, conn_info: None, chan_info: None });
        let listener = Listener::new(info.clone(), outbox);
        let (sender, answer) = bounded(1);
        let request = JoinRequest {
            channel: self.channel.clone(),
            info,
            recover: None,
            extra: Extra::default(),
            answer: Answer::Collect(sender),
            server_side: false,
        };
        self.engine.join(&listener, request, 1).expect("a new listener is in no room");
        answer.recv().unwrap().1.expect("an empty room can be joined");
        self.listeners.push(listener);
    }

    fn publish(&self, publication: Publication) {
        if let Some(deliver) = self.engine.committed(vec![publication], Instant::now()) {
            deliver();
        }
    }

    fn stop(self) {
        self.engine.stop();
        self.drainer.stop();
    }
}

/// Members of this process: the time until each outbox holds the message.
struct Local {
    rig: Rig,
    seq: u64,
}

impl Local {
    fn start(strategy: &str, members: usize) -> Self {
        let mut rig = Rig::start(strategy, members);
        for _ in 0..members {
            rig.join(Outbox::for_consumer(ConnectionId::next(), BUDGET, rig.drainer.handle()));
        }
        Self { rig, seq: 0 }
    }

    fn run(&mut self, data: &Arc<str>, info: &Arc<ClientInfo>, rounds: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        for _ in 0..rounds {
            self.seq += 1;
            let publication = publication(self.seq, data, info);
            let started = Instant::now();
            self.rig.publish(publication);
            while self.rig.metrics.deliveries_total.get() < self.seq * self.rig.listeners.len() as u64 {
                // Spinning would take the core that the worker needs.
                std::thread::yield_now();
            }
            elapsed += started.elapsed();
            for listener in &self.rig.listeners {
                black_box(listener.outbox.take(Some(started)).is_ok());
            }
        }
        elapsed
    }
}

/// Members behind sockets: the time until the reader has read the message from each.
struct Connected {
    rig: Rig,
    sockets: Sockets,
    seq: u64,
    sent: u64,
}

impl Connected {
    fn start(strategy: &str, members: usize) -> Self {
        let mut rig = Rig::start(strategy, members);
        let mut sockets = Sockets::open(members);
        let greeting = frame::text(b"{}");
        for end in std::mem::take(&mut sockets.ends) {
            let outbox = Outbox::for_socket(
                ConnectionId::next(),
                FORMAT,
                Arc::new(end),
                BUDGET,
                rig.drainer.handle(),
                None,
            );
            let outbox = outbox.unwrap();
            assert_eq!(outbox.uncork(&greeting), Push::Accepted);
            rig.join(outbox);
        }
        let sent = (members * greeting.len()) as u64;
        sockets.await_total(sent);
        Self { rig, sockets, seq: 0, sent }
    }

    fn run(&mut self, data: &Arc<str>, info: &Arc<ClientInfo>, rounds: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        for _ in 0..rounds {
            self.seq += 1;
            let publication = publication(self.seq, data, info);
            let frame = frame::message(FORMAT, &PushMessage::Publication(&publication).into());
            self.sent += (self.rig.listeners.len() * frame.len()) as u64;
            let started = Instant::now();
            self.rig.publish(publication);
            self.sockets.await_total(self.sent);
            elapsed += started.elapsed();
        }
        elapsed
    }
}

/// A bench for every strategy, number of members and payload. `start` is called once for all
/// payloads, and only for what is asked for.
fn matrix<T>(
    criterion: &mut Criterion,
    name: &str,
    start: fn(&str, usize) -> T,
    run: fn(&mut T, &Arc<str>, &Arc<ClientInfo>, u64) -> Duration,
    stop: fn(T),
) {
    let info = publisher();
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(10);
    for strategy in STRATEGIES {
        for members in MEMBERS {
            let mut started = None;
            group.throughput(Throughput::Elements(members as u64));
            for bytes in PAYLOADS {
                let data = payload(bytes);
                let id = BenchmarkId::new(strategy, format!("members={members}/payload={bytes}"));
                group.bench_function(id, |bencher| {
                    let started = started.get_or_insert_with(|| start(strategy, members));
                    bencher.iter_custom(|rounds| run(started, &data, &info, rounds));
                });
            }
            started.map(stop);
        }
    }
    group.finish();
}

fn local(criterion: &mut Criterion) {
    matrix(criterion, "fan_out/local", Local::start, Local::run, |local| local.rig.stop());
}

fn sockets(criterion: &mut Criterion) {
    let stop = |connected: Connected| connected.rig.stop();
    matrix(criterion, "fan_out/sockets", Connected::start, Connected::run, stop);
}

criterion_group!(benches, local, sockets);

fn main() {
    if common::sockets::serve_as_reader() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
