//! Leader and followers: how calling threads share commits without a thread or a timer of their own.
//!
//! A caller puts its rows into the lane. If nobody leads, it becomes the leader: it takes what
//! waits (bounded by the batching rule), commits it, passes the lane on to the caller whose row
//! waits longest, and then answers the rows of its batch. Everybody else sleeps until answered or
//! appointed. Invariants: at most one thread leads at any time; while rows wait, somebody leads or
//! has been appointed; every row is answered exactly once, also when a commit panics.
//!
//! Knows nothing of messages or databases: what committing means is the caller's.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::batch::{BatchLimits, rows_to_take};
use crate::sync::{Arc, Condvar, Mutex, lock, wait};

/// A row that can wait in a lane.
pub(super) trait Row {
    /// Its share of the batch's byte bound.
    fn size_bytes(&self) -> usize;
}

/// What a commit gives back.
pub(super) struct Committed<'a, R> {
    /// One answer per row of the batch, in its order.
    pub(super) answers: Vec<R>,
    /// Run by the leader once it has passed the lane on, before anybody is answered.
    pub(super) after: Option<Box<dyn FnOnce() + 'a>>,
}

/// One lane: the rows that wait, and whether somebody is committing.
pub(super) struct Handover<T, R> {
    queue: Mutex<Queue<T, R>>,
    limits: BatchLimits,
    /// The answer to a row whose commit panicked.
    lost: fn() -> R,
}

struct Queue<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    /// Somebody leads, or has been appointed and will.
    led: bool,
}

struct Waiting<T, R> {
    row: T,
    address: Address<R>,
}

/// Where the answer to a row goes: a place in its caller's ticket.
struct Address<R> {
    ticket: Arc<Ticket<R>>,
    place: usize,
}

/// What one caller waits on.
struct Ticket<R> {
    state: Mutex<TicketState<R>>,
    changed: Condvar,
}

struct TicketState<R> {
    answers: Vec<Option<R>>,
    unanswered: usize,
    appointed: bool,
}

/// Why a caller woke up.
enum Turn<R> {
    Lead,
    Done(Vec<R>),
}

impl<T: Row, R> Handover<T, R> {
    pub(super) fn new(limits: BatchLimits, lost: fn() -> R) -> Self {
        Self { queue: Mutex::new(Queue { waiting: VecDeque::new(), led: false }), limits, lost }
    }

    /// Puts the rows into the lane and returns their answers, in order. The calling thread may
    /// have to run `commit`, several times, also for rows of others.
    pub(super) fn submit<'a>(
        &self,
        rows: Vec<T>,
        mut commit: impl FnMut(Vec<T>) -> Committed<'a, R>,
    ) -> Vec<R> {
        if rows.is_empty() {
            return Vec::new();
        }
        let ticket = Arc::new(Ticket::new(rows.len()));
        if self.enqueue(rows, &ticket) {
            self.lead(&mut commit);
        }
        loop {
            match ticket.wait() {
                Turn::Lead => self.lead(&mut commit),
                Turn::Done(answers) => return answers,
            }
        }
    }

    /// True when nobody leads: the caller has to.
    fn enqueue(&self, rows: Vec<T>, ticket: &Arc<Ticket<R>>) -> bool {
        let mut queue = lock(&self.queue);
        queue.waiting.extend(
            rows.into_iter()
                .enumerate()
                .map(|(place, row)| Waiting { row, address: Address { ticket: Arc::clone(ticket), place } }),
        );
        !std::mem::replace(&mut queue.led, true)
    }

    /// Commits one batch, passes the lane on, answers.
    fn lead<'a>(&self, commit: &mut impl FnMut(Vec<T>) -> Committed<'a, R>) {
        let (rows, addresses) = self.take_batch();
        let committed = catch_unwind(AssertUnwindSafe(|| commit(rows)));
        self.pass_on();
        let (answers, after) = match committed {
            Ok(committed) => (committed.answers, committed.after),
            Err(_) => {
                tracing::error!("a commit panicked; its messages are answered as not stored");
                (Vec::new(), None)
            }
        };
        if let Some(after) = after
            && catch_unwind(AssertUnwindSafe(after)).is_err()
        {
            tracing::error!("the hand-off of committed messages panicked");
        }
        self.answer(addresses, answers);
    }

    fn take_batch(&self) -> (Vec<T>, Vec<Address<R>>) {
        let mut queue = lock(&self.queue);
        let sizes = queue.waiting.iter().map(|waiting| waiting.row.size_bytes());
        let take = rows_to_take(sizes, self.limits).min(queue.waiting.len());
        queue.waiting.drain(..take).map(|waiting| (waiting.row, waiting.address)).unzip()
    }

    /// Ends the leadership: appoints the caller whose row waits longest, if any row waits.
    fn pass_on(&self) {
        let mut queue = lock(&self.queue);
        match queue.waiting.front() {
            Some(waiting) => waiting.address.ticket.appoint(),
            None => queue.led = false,
        }
    }

    /// Gives every address its answer; the rows of one caller are neighbours, so each is woken once.
    fn answer(&self, addresses: Vec<Address<R>>, answers: Vec<R>) {
        let mut answers = answers.into_iter();
        for same in addresses.chunk_by(|a, b| Arc::ptr_eq(&a.ticket, &b.ticket)) {
            let places = same.iter().map(|address| address.place);
            same[0].ticket.answer(places, || answers.next().unwrap_or_else(self.lost));
        }
    }
}

impl<R> Ticket<R> {
    fn new(rows: usize) -> Self {
        let answers = std::iter::repeat_with(|| None).take(rows).collect();
        let state = TicketState { answers, unanswered: rows, appointed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn appoint(&self) {
        lock(&self.state).appointed = true;
        self.changed.notify_one();
    }

    fn answer(&self, places: impl Iterator<Item = usize>, mut next: impl FnMut() -> R) {
        let mut state = lock(&self.state);
        for place in places {
            state.answers[place] = Some(next());
            state.unanswered -= 1;
        }
        let done = state.unanswered == 0;
        drop(state);
        if done {
            self.changed.notify_one();
        }
    }

    fn wait(&self) -> Turn<R> {
        let mut state = lock(&self.state);
        loop {
            if std::mem::take(&mut state.appointed) {
                return Turn::Lead;
            }
            if state.unanswered == 0 {
                return Turn::Done(state.answers.drain(..).flatten().collect());
            }
            state = wait(&self.changed, state);
        }
    }
}

impl<T, R> fmt::Debug for Handover<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "model"))]
mod model;

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    impl Row for u64 {
        fn size_bytes(&self) -> usize {
            1
        }
    }

    fn lane(rows_max: usize) -> Handover<u64, Option<u64>> {
        Handover::new(BatchLimits { rows_max, bytes_max: usize::MAX }, || None)
    }

    fn echo(rows: Vec<u64>) -> Committed<'static, Option<u64>> {
        Committed { answers: rows.into_iter().map(Some).collect(), after: None }
    }

    #[test]
    fn a_submission_larger_than_a_batch_is_answered_in_order() {
        let mut batches = Vec::new();
        let answers = lane(4).submit((0..10).collect(), |rows| {
            batches.push(rows.len());
            echo(rows)
        });
        assert_eq!(answers, (0..10).map(Some).collect::<Vec<_>>());
        assert_eq!(batches, [4, 4, 2]);
    }

    #[test]
    fn what_arrives_during_a_commit_goes_into_the_next_one() {
        let lane = lane(100);
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = &lane;
            scope.spawn(move || {
                first.submit(vec![0], |rows| {
                    entered.send(()).unwrap();
                    released.recv().unwrap();
                    echo(rows)
                })
            });
            has_entered.recv().unwrap();
            let (commits, committed) = mpsc::channel();
            for row in 1..=8 {
                let (commits, lane) = (commits.clone(), &lane);
                scope.spawn(move || {
                    let answers = lane.submit(vec![row], |rows| {
                        commits.send(rows.len()).unwrap();
                        echo(rows)
                    });
                    assert_eq!(answers, [Some(row)]);
                });
            }
            while lock(&lane.queue).waiting.len() < 8 {
                thread::yield_now();
            }
            release.send(()).unwrap();
            drop(commits);
            assert_eq!(committed.iter().collect::<Vec<_>>(), [8]);
        });
    }

    #[test]
    fn a_panicking_leader_answers_its_batch_and_passes_the_lane_on() {
        let lane = lane(2);
        let mut first = true;
        let answers = lane.submit((0..4).collect(), |rows| {
            assert!(!std::mem::take(&mut first), "the first commit fails");
            echo(rows)
        });
        assert_eq!(answers, [None, None, Some(2), Some(3)]);
        assert_eq!(lane.submit(vec![9], echo), [Some(9)]);
        assert!(!lock(&lane.queue).led);
    }

    #[test]
    fn the_hand_off_runs_after_the_lane_is_free_and_before_the_answer() {
        let lane = lane(2);
        let answers = lane.submit(vec![1], |rows| Committed {
            answers: rows.into_iter().map(Some).collect(),
            after: Some(Box::new(|| assert!(!lock(&lane.queue).led))),
        });
        assert_eq!(answers, [Some(1)]);
    }
}
