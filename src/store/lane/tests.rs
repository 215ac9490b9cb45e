//! The hand-over protocol alone, with a commit that only counts.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;

impl Item for usize {
    fn bytes(&self) -> usize {
        1
    }
}

const LIMITS: BatchLimits = BatchLimits { rows_max: 8, bytes_max: 100 };

fn plain(results: Vec<Option<usize>>) -> Committed<'static, Option<usize>> {
    Committed { results, afterwards: None }
}

#[test]
fn every_submission_gets_its_own_results_in_order() {
    let lane: Lane<usize, Option<usize>> = Lane::new(LIMITS, || None);
    let (busy, batches) = (AtomicBool::new(false), AtomicUsize::new(0));
    let commit = |items: Vec<usize>| {
        assert!(!busy.swap(true, Ordering::AcqRel), "two threads commit at once");
        assert!(items.len() <= 8);
        batches.fetch_add(1, Ordering::Relaxed);
        thread::yield_now();
        busy.store(false, Ordering::Release);
        plain(items.into_iter().map(|item| Some(item * 2)).collect())
    };
    thread::scope(|scope| {
        for thread in 0..8 {
            let (lane, commit) = (&lane, &commit);
            scope.spawn(move || {
                for round in 0..500 {
                    let items: Vec<usize> =
                        (0..round % 20).map(|item| thread * 100_000 + round * 20 + item).collect();
                    let expected: Vec<_> = items.iter().map(|item| Some(item * 2)).collect();
                    assert_eq!(lane.submit(items, commit), expected);
                }
            });
        }
    });
    assert!(!lane.lock().led && lane.lock().queue.is_empty());
    assert!(batches.load(Ordering::Relaxed) > 0);
}

#[test]
fn waiters_share_the_next_commit() {
    let lane: Lane<usize, Option<usize>> = Lane::new(LIMITS, || None);
    let (first_commits, all_wait) = (Barrier::new(2), Barrier::new(2));
    let sizes = Mutex::new(Vec::new());
    let commit = |items: Vec<usize>| {
        if items == [100] {
            first_commits.wait();
            all_wait.wait();
        }
        sizes.lock().unwrap().push(items.len());
        plain(items.into_iter().map(Some).collect())
    };
    thread::scope(|scope| {
        scope.spawn(|| lane.submit(vec![100], commit));
        first_commits.wait();
        for item in 0..5 {
            let (lane, commit) = (&lane, &commit);
            scope.spawn(move || assert_eq!(lane.submit(vec![item], commit), [Some(item)]));
        }
        while lane.lock().queue.len() < 5 {
            thread::yield_now();
        }
        all_wait.wait();
    });
    assert_eq!(*sizes.lock().unwrap(), [1, 5]);
}

#[test]
fn a_panic_refuses_its_batch_and_the_lane_goes_on() {
    let lane: Lane<usize, Option<usize>> = Lane::new(LIMITS, || None);
    let commit = |items: Vec<usize>| {
        assert!(!items.contains(&13), "told to panic");
        plain(items.into_iter().map(Some).collect())
    };
    assert_eq!(lane.submit(vec![1, 13, 2], commit), [None, None, None]);
    assert_eq!(lane.submit(vec![4], commit), [Some(4)]);
}

#[test]
fn what_comes_afterwards_runs_when_the_lane_is_free() {
    let lane: Lane<usize, Option<usize>> = Lane::new(LIMITS, || None);
    let (ran, seen) = (AtomicBool::new(false), &lane);
    let commit = |items: Vec<usize>| Committed {
        results: items.into_iter().map(Some).collect(),
        afterwards: Some(Box::new(|| {
            assert!(!seen.lock().led);
            ran.store(true, Ordering::Relaxed);
        }) as Box<dyn FnOnce()>),
    };
    lane.submit(vec![1], commit);
    assert!(ran.load(Ordering::Relaxed));
}
