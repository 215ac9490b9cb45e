//! Many threads, many rooms.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier, Mutex};

use roomcast::internals::{Appended, Retention};
use roomcast::{AppendError, Metrics, Seq};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("numbers are dense under many threads and rooms", dense),
    ("two stores on one database share the numbers", two_stores),
    ("the same key from many threads stores once", same_key),
];

const THREADS: usize = 8;
const ROOMS: usize = 40;

/// Every thread writes into all rooms, singly and in bursts; the answers together must be exactly
/// 1..=n for each room, and the log must hold the same.
fn dense(backend: &Backend) {
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(Arc::clone(&metrics));
    let answers: Mutex<BTreeMap<String, Vec<Seq>>> = Mutex::default();
    in_threads(THREADS, |thread| {
        for round in 0..10 {
            let burst = 1 + (thread * 31 + round * 17) % 100;
            let rooms: Vec<String> =
                (0..burst).map(|n| format!("r{}", (n * 7 + thread + round) % ROOMS)).collect();
            let sent = rooms.iter().map(|room| message_of(&format!("u{thread}"), room, "1")).collect();
            let results = store.append(sent, &discard());
            let mut answers = answers.lock().unwrap();
            for (room, result) in rooms.into_iter().zip(results) {
                let Ok(Appended::New(seq)) = result else { panic!("{result:?}") };
                answers.entry(room).or_default().push(seq);
            }
        }
    });
    let mut total = 0;
    for (room, mut answered) in answers.into_inner().unwrap() {
        answered.sort_unstable();
        let head = answered.len() as Seq;
        total += head;
        assert_eq!(answered, (1..=head).collect::<Vec<_>>(), "{room}");
        assert_eq!(store.head(&channel(&room)), Ok(head));
        let mut stored = Vec::new();
        while (stored.len() as Seq) < head {
            let after = stored.len() as Seq;
            stored.extend(seqs(&store.page(&channel(&room), after, head, Retention::default()).unwrap()));
        }
        assert_eq!(stored, answered);
    }
    assert_eq!(metrics.commit_batch_rows.get_sample_sum() as u64, total);
    assert_eq!(metrics.commit_failures_total.get(), 0);
}

/// As two servers on one database do it, where there may be two.
fn two_stores(backend: &Backend) {
    let stores = backend.open_twice();
    let answers: Mutex<Vec<Seq>> = Mutex::default();
    in_threads(4, |thread| {
        for round in 0..20 {
            let rooms = ["x", "y", "z", "x"];
            let sent = rooms.iter().map(|room| message_of(&format!("u{round}"), room, "1")).collect();
            let results = stores[thread % 2].append(sent, &discard());
            let mut answers = answers.lock().unwrap();
            answers.extend([0, 3].map(|place: usize| results[place].clone().unwrap().seq()));
        }
    });
    let mut answers = answers.into_inner().unwrap();
    answers.sort_unstable();
    assert_eq!(answers, (1..=160).collect::<Vec<_>>());
    assert_eq!(stores[1].head(&channel("y")), Ok(80));
}

/// In a room that comes into being by it and in one that exists, always all threads at once.
fn same_key(backend: &Backend) {
    let stores = backend.open_twice();
    let at_once = Barrier::new(THREADS);
    let answers: Mutex<BTreeMap<usize, Vec<Result<Appended, AppendError>>>> = Mutex::default();
    in_threads(THREADS, |thread| {
        for round in 0..30 {
            let room = format!("r{}", round / 3);
            at_once.wait();
            let sent = keyed(message_of("ann", &room, "1"), &format!("k{round}"));
            let answer = append(&stores[thread % 2], sent);
            answers.lock().unwrap().entry(round).or_default().push(answer);
        }
    });
    for (round, answers) in answers.into_inner().unwrap() {
        let seq = round as Seq % 3 + 1;
        assert_eq!(answers.iter().filter(|answer| **answer == Ok(Appended::New(seq))).count(), 1);
        let repeats = answers.iter().filter(|answer| **answer == Ok(Appended::Duplicate(seq))).count();
        assert_eq!(repeats, THREADS - 1, "{answers:?}");
    }
}
