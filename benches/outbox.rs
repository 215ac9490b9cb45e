//! What it costs to hand a push to a connection's outbox, by what happens to it there: the kernel
//! takes it at once, it is queued behind others, it is refused, or a consumer of this process gets it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot measure fails by panic")]

mod common;

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group};
use crossbeam_channel::unbounded;
use roomcast::Metrics;
use roomcast::internals::{ConnectionId, Drainer, Format, Outbox, Packet, PerFormat, Push, frame};

use common::sockets::Sockets;
use common::{PAYLOAD_BYTES, payload, publication, publisher, pushes};

/// Connections that take turns, so that each is empty again when its turn comes.
const SOCKETS: usize = 64;

/// Pushes to each connection before the reader has to have read them: they fit the kernel's bound
/// of unsent bytes.
const BURST: u64 = 16;

/// Pushes into one blocked queue before a fresh one is made; bounds the memory.
const QUEUED_MAX: u64 = 100_000;

/// A budget that is never used up.
const ENDLESS: usize = usize::MAX / 2;

fn drainer() -> Drainer {
    let (notices, _) = unbounded();
    Drainer::start(Duration::from_secs(600), notices, Arc::new(Metrics::new())).unwrap()
}

/// The first frame of a connection, before which an outbox sends nothing.
fn greeting() -> Bytes {
    frame::text(b"{}")
}

fn open(socket: TcpStream, budget: usize, drainer: &Drainer) -> Arc<Outbox> {
    let outbox = Outbox::for_socket(
        ConnectionId::next(),
        Format::Json,
        Arc::new(socket),
        budget,
        drainer.handle(),
        None,
    )
    .unwrap();
    assert_eq!(outbox.uncork(&greeting()), Push::Accepted);
    outbox
}

/// Outboxes whose peers read everything, and how much that has been.
struct Flowing {
    sockets: Sockets,
    outboxes: Vec<Arc<Outbox>>,
    sent: u64,
}

impl Flowing {
    fn open(drainer: &Drainer) -> Self {
        let mut sockets = Sockets::open(SOCKETS);
        let ends = std::mem::take(&mut sockets.ends);
        let outboxes = ends.into_iter().map(|end| open(end, ENDLESS, drainer)).collect();
        Self { sockets, outboxes, sent: (SOCKETS * greeting().len()) as u64 }
    }

    /// Time for so many pushes, until the reader has them all.
    fn push(&mut self, frame: &Bytes, count: u64) -> Duration {
        let started = Instant::now();
        let mut left = count;
        while left > 0 {
            let burst = left.min(BURST * SOCKETS as u64);
            for turn in 0..burst as usize {
                assert_eq!(self.outboxes[turn % SOCKETS].push(frame), Push::Accepted);
            }
            self.sent += burst * frame.len() as u64;
            self.sockets.await_total(self.sent);
            left -= burst;
        }
        started.elapsed()
    }
}

/// An outbox whose peer reads nothing, filled until it has something in its queue, and that peer.
fn blocked(budget: usize, drainer: &Drainer) -> (Arc<Outbox>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let outbox = open(listener.accept().unwrap().0, budget, drainer);
    let filling = Bytes::from(vec![0; 64 * 1024]);
    while outbox.queued_bytes() == 0 {
        assert_eq!(outbox.push(&filling), Push::Accepted);
    }
    (outbox, peer)
}

/// Time for so many pushes into blocked queues, each answered like this.
fn push_blocked(drainer: &Drainer, budget: usize, expected: Push, frame: &Bytes, mut count: u64) -> Duration {
    let mut elapsed = Duration::ZERO;
    while count > 0 {
        let share = count.min(QUEUED_MAX);
        let (outbox, _peer) = blocked(budget, drainer);
        while expected == Push::Full && outbox.push(frame) == Push::Accepted {}
        let started = Instant::now();
        for _ in 0..share {
            assert_eq!(outbox.push(frame), expected);
        }
        elapsed += started.elapsed();
        outbox.abort();
        count -= share;
    }
    elapsed
}

fn outbox(criterion: &mut Criterion) {
    let frame = pushes(1, PAYLOAD_BYTES);
    let drainer = drainer();
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));

    let mut flowing = None;
    group.bench_function("empty_socket", |bencher| {
        let flowing = flowing.get_or_insert_with(|| Flowing::open(&drainer));
        bencher.iter_custom(|count| flowing.push(&frame, count));
    });
    group.bench_function("blocked_socket/queued", |bencher| {
        bencher.iter_custom(|count| push_blocked(&drainer, ENDLESS, Push::Accepted, &frame, count));
    });
    group.bench_function("blocked_socket/refused", |bencher| {
        bencher.iter_custom(|count| push_blocked(&drainer, 4096, Push::Full, &frame, count));
    });
    group.bench_function("local_consumer", |bencher| {
        let outbox = Outbox::for_consumer(ConnectionId::next(), 1 << 20, drainer.handle());
        let message = publication(100_000, &payload(PAYLOAD_BYTES), &publisher());
        let packet = Packet::new(PerFormat::default(), Some([message].into()));
        let now = Instant::now();
        bencher.iter(|| {
            assert_eq!(outbox.deliver(black_box(&packet)), Push::Accepted);
            black_box(outbox.take(Some(now)).is_ok())
        });
    });
    group.finish();
    drop(flowing);
    drainer.stop();
}

criterion_group!(benches, outbox);

fn main() {
    if common::sockets::serve_as_reader() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
