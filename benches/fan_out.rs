//! What one publication costs on its way to the listeners of a room, by strategy, members and payload.
//!
//! Listeners are outboxes of this process, so the system call is left out and what remains is our
//! own work. A round ends when every member's outbox holds the message.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_channel::{bounded, unbounded};
use roomcast::config::Config;
use roomcast::engine::{Answer, Engine, Extra, JoinRequest, Listener, Log, LogUnavailable, Parts};
use roomcast::ids::{Channel, ConnectionId, Seq};
use roomcast::metrics::Metrics;
use roomcast::outbox::{Drainer, Outbox};
use roomcast::publication::{ClientInfo, Publication, Retention};
use roomcast::store::CommitSink;

/// A log without messages: nobody here resumes.
struct Empty;

impl Log for Empty {
    fn head(&self, _: &Channel) -> Result<Seq, LogUnavailable> {
        Ok(0)
    }

    fn page(&self, _: &Channel, _: Seq, _: Seq, _: Retention) -> Result<Vec<Publication>, LogUnavailable> {
        Ok(Vec::new())
    }
}

fn listen(engine: &Engine, drainer: &Drainer, channel: &Channel) -> Arc<Listener> {
    let outbox = Outbox::for_consumer(ConnectionId::next(), 1 << 20, drainer.handle());
    let client = outbox.id().0.to_string().into();
    let info = Arc::new(ClientInfo { user: "".into(), client, conn_info: None, chan_info: None });
    let listener = Listener::new(info.clone(), outbox);
    let (sender, answer) = bounded(1);
    let request = JoinRequest {
        channel: channel.clone(),
        info,
        recover: None,
        extra: Extra::default(),
        answer: Answer::Collect(sender),
        server_side: false,
    };
    engine.join(&listener, request, 1).expect("a new listener is in no room");
    answer.recv().expect("a join is answered").1.expect("an empty room can be joined");
    listener
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fan_out");
    group.measurement_time(Duration::from_secs(3)).sample_size(20);
    for (strategy, members) in [("inline", 10), ("worker", 10), ("worker", 1000), ("parallel", 10_000)] {
        for payload in [128, 2048] {
            group.throughput(Throughput::Elements(members as u64));
            let id = BenchmarkId::new(strategy, format!("members={members}/payload={payload}"));
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| run(strategy, members, payload, rounds));
            });
        }
    }
    group.finish();
}

fn run(strategy: &str, members: usize, payload: usize, rounds: u64) -> Duration {
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
    let drainer = Drainer::start(Duration::from_secs(60), notices, metrics.clone()).expect("a thread");
    let parts = Parts { log: Arc::new(Empty), epoch: "bench".into(), drained, metrics: metrics.clone() };
    let engine = Engine::start(1, &config.rooms, config.namespaces, parts).expect("threads");
    let channel = Channel::new("room").expect("a legal name");
    let listeners: Vec<_> = (0..members).map(|_| listen(&engine, &drainer, &channel)).collect();
    let data: Arc<str> = format!(r#""{}""#, "x".repeat(payload - 2)).into();
    let mut elapsed = Duration::ZERO;
    for seq in 1..=rounds {
        let publication = Publication {
            channel: channel.clone(),
            seq,
            data: data.clone(),
            info: None,
            tags: None,
            created_at_ms: 0,
        };
        let started = Instant::now();
        if let Some(deliver) = engine.committed(vec![publication]) {
            deliver();
        }
        while metrics.deliveries_total.get() < seq * members as u64 {
            std::hint::spin_loop();
        }
        elapsed += started.elapsed();
        for listener in &listeners {
            black_box(listener.outbox.take(Some(started)));
        }
    }
    engine.stop();
    drainer.stop();
    elapsed
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
