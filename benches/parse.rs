//! What it costs to read commands: from the text of a frame to checked values.
//!
//! Pure functions: the clock stops when the last command of the frame is decoded.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench that cannot measure fails by panic")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roomcast::internals::decode_frame;

fn publish(id: usize, payload: usize) -> String {
    let text = "x".repeat(payload - 2);
    format!(r#"{{"id":{id},"publish":{{"channel":"room","data":"{text}"}}}}"#)
}

fn parse(criterion: &mut Criterion) {
    let many: Vec<String> = (1..=32).map(|id| publish(id, 128)).collect();
    let subscribe = r#"{"id":2,"subscribe":{"channel":"room","recoverable":true,"recover":true,"offset":123456,"epoch":"abcdefghijklmnop","flag":1}}"#;
    let object = r#"{"id":7,"publish":{"channel":"room","data":{"text":"Shall we meet at eight?","reply_to":123456,"tags":["a","b"],"urgent":false}}}"#;
    let frames = [
        ("publish/128", 1, publish(7, 128)),
        ("publish/2048", 1, publish(7, 2048)),
        ("publish/object", 1, object.to_owned()),
        ("subscribe", 1, subscribe.to_owned()),
        ("publish/128/lines=32", 32, many.join("\n")),
    ];
    let mut group = criterion.benchmark_group("parse");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (name, commands, frame) in &frames {
        assert_eq!(decode_frame(frame).filter(Result::is_ok).count(), *commands, "{name} is legal");
        group.throughput(Throughput::Elements(*commands as u64));
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                for command in decode_frame(black_box(frame)) {
                    black_box(command).unwrap();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
