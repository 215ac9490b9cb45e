//! What it costs to write pushes and replies into a buffer that is used again and again.
//!
//! Pure functions: the clock stops when the last byte is in the buffer.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot measure fails by panic")]

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use roomcast::internals::{
    ConnectResult, ErrorCode, Format, Message, PushMessage, Reply, SubscribeResult,
    frame::{self, Frames},
};

use common::{payload, publication, publisher};

/// Lines that share a frame in the benches of many lines.
const LINES: u64 = 32;

const FORMAT: Format = Format::Json;

const EPOCH: &str = "abcdefghijklmnop";

fn pushes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode/push");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for bytes in [128, 2048] {
        let publication = publication(123_456, &payload(bytes), &publisher());
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("publication", bytes), |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                FORMAT.write(&mut out, &PushMessage::Publication(black_box(&publication)).into());
                black_box(out.len())
            });
        });
        group.bench_function(BenchmarkId::new("publication_frame", bytes), |bencher| {
            bencher
                .iter(|| frame::message(FORMAT, &PushMessage::Publication(black_box(&publication)).into()));
        });
        group.throughput(Throughput::Elements(LINES));
        group.bench_function(BenchmarkId::new(format!("publication_lines={LINES}"), bytes), |bencher| {
            let mut frames = Frames::new(FORMAT);
            bencher.iter(|| {
                for _ in 0..LINES {
                    frames.add(&PushMessage::Publication(black_box(&publication)).into());
                }
                black_box(frames.take())
            });
        });
    }
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode/reply");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    let subscribed = SubscribeResult {
        recoverable: true,
        positioned: true,
        epoch: EPOCH,
        offset: 123_456,
        ..SubscribeResult::default()
    };
    let publisher = publisher();
    let connected = ConnectResult {
        client: &publisher.client,
        version: "roomcast 0.1.0",
        ttl_seconds: None,
        data: None,
        subs: &[],
        ping_seconds: 25,
        pong: true,
    };
    let mut bench = |name: &str, reply: Reply<'_>| {
        group.bench_function(name, |bencher| {
            let mut out = Vec::new();
            bencher.iter(|| {
                out.clear();
                FORMAT.write(&mut out, &Message::Reply(black_box(4242), black_box(reply)));
                black_box(out.len())
            });
        });
    };
    bench("publish", Reply::Publish);
    bench("subscribe", Reply::Subscribe(&subscribed));
    bench("connect", Reply::Connect(&connected));
    bench("error", Reply::Error(ErrorCode::PermissionDenied));
    group.finish();
}

criterion_group!(benches, pushes, replies);
criterion_main!(benches);
