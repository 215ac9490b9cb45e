//! Group commit in every order of its callers' steps.
//!
//! What a commit sees is written down and judged at the end, because a failing assertion inside a
//! commit would be caught by the lane itself, as a commit that panicked.

use std::collections::BTreeSet;
use std::sync::{Mutex as Plain, MutexGuard as PlainGuard};

use shuttle::thread;

use super::*;
use crate::sync::model::explore;

type Number = u32;

/// The commit that takes this row panics.
const POISON: Number = 666;

impl Row for Number {
    fn size_bytes(&self) -> usize {
        1
    }
}

/// A caller that goes on.
struct Told {
    rig: Arc<Rig>,
    rows: Vec<Number>,
    stage: Plain<&'static str>,
}

impl Completion<Option<Number>> for Told {
    fn answered(&self, answers: Vec<Option<Number>>) {
        let mut notes = self.rig.notes();
        if notes.impatient {
            // Nothing is known about a row that was answered too late.
            let right =
                answers.iter().zip(&self.rows).all(|(answer, row)| answer.is_none_or(|is| is == *row));
            notes.wrong |= !right || answers.len() != self.rows.len() || !self.stage().is_empty();
            *self.stage() = "answered";
            return;
        }
        let expected = |row: &Number| {
            let batch = notes.batches.iter().find(|(batch, _)| batch.contains(row));
            batch.filter(|(batch, _)| !batch.contains(&POISON)).map(|_| *row)
        };
        let expected: Vec<_> = self.rows.iter().map(expected).collect();
        notes.wrong |= answers != expected || !self.stage().is_empty();
        *self.stage() = "answered";
    }

    fn delivered(&self) {
        let mut notes = self.rig.notes();
        let poisoned = |row: &Number| {
            notes.batches.iter().any(|(batch, _)| batch.contains(&POISON) && batch.contains(row))
        };
        let handed_off = self.rows.iter().all(|row| notes.handed_off.contains(row) || poisoned(row));
        notes.wrong |= !(handed_off || notes.impatient) || *self.stage() != "answered";
        *self.stage() = "delivered";
        notes.told += self.rows.len();
    }

    fn appointed(&self) {
        let rig = self.rig.clone();
        let leader = thread::spawn(move || rig.lead_on());
        self.rig.notes().leaders.push(leader);
    }
}

impl Told {
    fn stage(&self) -> PlainGuard<'_, &'static str> {
        self.stage.lock().expect("nobody panics with the stage in hand")
    }
}

/// The record of the commits of one run.
#[derive(Default)]
struct Notes {
    committing: bool,
    /// Two commits ran at once.
    overlapped: bool,
    /// Every batch in the order of their commits, with what waited when its commit began.
    batches: Vec<(Vec<Number>, Vec<Number>)>,
    /// Rows whose hand-off has run.
    handed_off: BTreeSet<Number>,
    /// A caller that goes on was told something wrong, or in the wrong order.
    wrong: bool,
    /// Rows whose callers were told all.
    told: usize,
    /// Somebody answers rows that have waited, at any time.
    impatient: bool,
    /// Threads that lead because their caller was appointed.
    leaders: Vec<thread::JoinHandle<()>>,
}

struct Rig {
    lane: GroupCommit<Number, Option<Number>>,
    /// Behind a lock that the checker does not see, for the lane has no part in it.
    notes: Plain<Notes>,
}

impl Rig {
    fn new(rows_max: usize) -> Arc<Self> {
        Self::in_turns(rows_max, usize::MAX)
    }

    fn in_turns(rows_max: usize, turn_rows_max: usize) -> Arc<Self> {
        let lane = GroupCommit::new(BatchLimits { rows_max, bytes_max: usize::MAX, turn_rows_max }, || None);
        Arc::new(Self { lane, notes: Plain::default() })
    }

    /// Submits rows as a caller does, and judges the answers.
    fn submit(&self, rows: &[Number]) {
        let answers = self.lane.submit(rows.to_vec(), |batch, _| self.commit(batch));
        assert_eq!(answers.len(), rows.len(), "each row is answered once");
        let notes = self.notes();
        for (row, answer) in rows.iter().zip(answers) {
            let batch = notes.batches.iter().find(|(batch, _)| batch.contains(row));
            let (batch, _) = batch.expect("an answered row was committed");
            let expected = (!batch.contains(&POISON)).then_some(*row);
            assert_eq!(answer, expected, "a row got the answer of another");
            assert_eq!(notes.handed_off.contains(row), answer.is_some(), "answered before the hand-off");
        }
    }

    /// Submits rows as a caller does that goes on, and judges the answers when they are told.
    fn submit_and_go(self: &Arc<Self>, rows: &[Number]) {
        let told = Arc::new(Told { rig: self.clone(), rows: rows.to_vec(), stage: Plain::default() });
        if self.lane.submit_and_go(rows.to_vec(), told, Instant::now()) {
            self.lead_on();
        }
    }

    fn lead_on(&self) {
        self.lane.lead_on(|batch, _| self.commit(batch));
    }

    fn commit(&self, batch: Vec<Number>) -> Committed<'_, Option<Number>> {
        let overlaps = std::mem::replace(&mut self.notes().committing, true);
        // Here others go on.
        let waiting = lock(&self.lane.queue).waiting.iter().map(|waiting| waiting.row).collect();
        let mut notes = self.notes();
        notes.overlapped |= overlaps;
        notes.batches.push((batch.clone(), waiting));
        notes.committing = false;
        drop(notes);
        if batch.contains(&POISON) {
            // Like a panic, without the message.
            std::panic::resume_unwind(Box::new("the commit fails"));
        }
        let rows = batch.clone();
        let after = move || self.notes().handed_off.extend(rows);
        Committed { answers: batch.into_iter().map(Some).collect(), after: Some(Box::new(after)) }
    }

    fn notes(&self) -> PlainGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics with the notes in hand")
    }

    /// After all callers are gone; `rows` were submitted, none of them in turns.
    fn judge(&self, rows: usize) {
        self.judge_commits(rows);
        let notes = self.notes();
        let committed: Vec<Number> = notes.batches.iter().flat_map(|(batch, _)| batch.clone()).collect();
        let mut done = 0;
        for (batch, waiting) in &notes.batches {
            done += batch.len();
            // Whatever comes later comes behind what waits now.
            assert!(
                committed[done..].starts_with(waiting),
                "{:?} is not the order of arrival",
                notes.batches
            );
        }
    }

    /// The same without the order.
    fn judge_commits(&self, rows: usize) {
        let notes = self.notes();
        assert!(!notes.overlapped, "two commits ran at once");
        assert!(!notes.wrong, "a caller that goes on was told something wrong");
        let committed: Vec<Number> = notes.batches.iter().flat_map(|(batch, _)| batch.clone()).collect();
        let different: BTreeSet<Number> = committed.iter().copied().collect();
        assert_eq!((committed.len(), different.len()), (rows, rows), "each row is committed once");
        let queue = lock(&self.lane.queue);
        assert!(queue.is_empty() && !queue.has_leader(), "the lane is left with a leader");
    }
}

/// Each caller is a list of submissions.
fn callers(rows_max: usize, callers: &[&[&[Number]]]) {
    let rig = Rig::new(rows_max);
    let spawn = |submissions: &&[&[Number]]| {
        let rig = rig.clone();
        let submissions: Vec<Vec<Number>> = submissions.iter().map(|rows| rows.to_vec()).collect();
        thread::spawn(move || submissions.iter().for_each(|rows| rig.submit(rows)))
    };
    let threads: Vec<_> = callers.iter().map(spawn).collect();
    for thread in threads {
        thread.join().expect("a caller failed");
    }
    rig.judge(callers.iter().flat_map(|submissions| submissions.iter()).map(|rows| rows.len()).sum());
}

/// Waits for the callers, and for the threads that lead because of them.
fn finish(rig: &Rig, callers: Vec<thread::JoinHandle<()>>) {
    for thread in callers {
        thread.join().expect("a caller failed");
    }
    loop {
        let leader = rig.notes().leaders.pop();
        let Some(leader) = leader else { break };
        leader.join().expect("a leader failed");
    }
}

/// Some callers wait, some go on.
fn mixed(rows_max: usize, sleep: &'static [&'static [Number]], go_on: &'static [&'static [Number]]) {
    let rig = Rig::new(rows_max);
    let mut threads = Vec::new();
    for rows in sleep {
        let rig = rig.clone();
        threads.push(thread::spawn(move || rig.submit(rows)));
    }
    for rows in go_on {
        let rig = rig.clone();
        threads.push(thread::spawn(move || rig.submit_and_go(rows)));
    }
    finish(&rig, threads);
    let count = |rows: &[&[Number]]| rows.iter().map(|rows| rows.len()).sum::<usize>();
    assert_eq!(rig.notes().told, count(go_on), "each caller that goes on is told once");
    rig.judge(count(sleep) + count(go_on));
}

/// A large submission, taken in turns of one row, among small ones and another large one.
#[test]
fn a_large_submission_lets_others_pass() {
    const LARGE: &[&[Number]] = &[&[1, 2, 3, 4], &[11, 12, 13]];
    const SMALL: &[&[Number]] = &[&[21], &[31], &[41]];
    explore(3000, || {
        let rig = Rig::in_turns(2, 1);
        let mut threads = Vec::new();
        for rows in LARGE {
            let rig = rig.clone();
            threads.push(thread::spawn(move || rig.submit(rows)));
        }
        for (index, rows) in SMALL.iter().enumerate() {
            let rig = rig.clone();
            let waits = index == 0;
            threads
                .push(thread::spawn(move || if waits { rig.submit(rows) } else { rig.submit_and_go(rows) }));
        }
        finish(&rig, threads);
        rig.judge_commits(10);
        let notes = rig.notes();
        for rows in LARGE {
            let all = notes.batches.iter().flat_map(|(batch, _)| batch);
            let order: Vec<_> = all.filter(|row| rows.contains(row)).collect();
            assert!(order.is_sorted(), "a caller's rows keep their order: {order:?}");
        }
        for (at, (_, waiting)) in notes.batches.iter().enumerate() {
            // At most one row of the large ones is taken from now on before a small one that waits.
            for small in waiting.iter().filter(|row| **row > 20) {
                let later = notes.batches[at + 1..].iter().position(|(batch, _)| batch.contains(small));
                assert!(later.is_some_and(|batches| batches <= 3), "{small} waits: {:?}", notes.batches);
            }
        }
    });
}

/// Rows are answered while they wait, while they are committed, and in between.
fn overdue(rows_max: usize, sleep: &'static [Number], go_on: &'static [&'static [Number]]) {
    let rig = Rig::new(rows_max);
    rig.notes().impatient = true;
    let mut threads = Vec::new();
    let sleeper = rig.clone();
    threads.push(thread::spawn(move || {
        let answers = sleeper.lane.submit(sleep.to_vec(), |batch, _| sleeper.commit(batch));
        assert!(answers.iter().zip(sleep).all(|(answer, row)| answer.is_none_or(|is| is == *row)));
        assert_eq!(answers.len(), sleep.len(), "each row is answered once");
    }));
    for rows in go_on {
        let rig = rig.clone();
        threads.push(thread::spawn(move || rig.submit_and_go(rows)));
    }
    let watch = rig.clone();
    threads.push(thread::spawn(move || (0..2).for_each(|_| watch.lane.answer_overdue(Duration::ZERO))));
    for thread in threads {
        thread.join().expect("a caller failed");
    }
    loop {
        let leader = rig.notes().leaders.pop();
        let Some(leader) = leader else { break };
        leader.join().expect("a leader failed");
    }
    let notes = rig.notes();
    assert!(!notes.overlapped && !notes.wrong, "two commits at once, or a wrong answer");
    assert_eq!(notes.told, go_on.iter().map(|rows| rows.len()).sum::<usize>(), "each is told once");
    let committed: Vec<Number> = notes.batches.iter().flat_map(|(batch, _)| batch.clone()).collect();
    let different: BTreeSet<Number> = committed.iter().copied().collect();
    assert_eq!(committed.len(), different.len(), "no row is committed twice");
    let queue = lock(&rig.lane.queue);
    assert!(queue.is_empty() && !queue.has_leader(), "the lane is left with a leader");
}

#[test]
fn rows_that_have_waited_too_long() {
    explore(3000, || overdue(2, &[1, 2, 3], &[&[21, 22, 23], &[31]]));
}

#[test]
fn callers_that_wait_and_callers_that_go_on() {
    explore(3000, || mixed(2, &[&[1, 2, 3], &[11]], &[&[21, 22, 23], &[31]]));
}

#[test]
fn a_commit_that_panics_among_callers_that_go_on() {
    explore(3000, || mixed(2, &[&[1]], &[&[POISON], &[21, 22, 23], &[31]]));
}

#[test]
fn two_callers_with_a_row_each() {
    explore(3000, || callers(1, &[&[&[1]], &[&[2]]]));
}

#[test]
fn callers_with_batches_of_two() {
    explore(3000, || callers(2, &[&[&[1, 2], &[3]], &[&[11], &[12, 13]], &[&[21], &[22]], &[&[31, 32, 33]]]));
}

#[test]
fn a_commit_that_panics_among_others() {
    explore(3000, || callers(2, &[&[&[1, 2]], &[&[POISON], &[12]], &[&[21, 22, 23]], &[&[31]]]));
}
