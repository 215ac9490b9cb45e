//! Group commit: calling threads share commits without a thread or a timer of their own.
//!
//! A caller puts its rows into the lane. If nobody leads, it becomes the leader: it takes what
//! waits (bounded by [`BatchLimits`]), commits it, passes the lane on to the caller whose row
//! waits longest, and then answers the rows of its batch. Everybody else sleeps until answered or
//! appointed, or does something else and has a [`Completion`] told. A thread that leads for such callers
//! goes on while rows wait, unless there is so much to answer that another may begin the next commit.
//! Invariants: at most one thread leads at any time; while rows wait, somebody leads or
//! has been appointed; every row is answered exactly once, also when a commit panics.
//!
//! A large submission of a caller that waits is taken in turns: others never wait behind the whole of it. Its own
//! rows keep their order, and so do all others.
//!
//! Patience belongs to a submission, not to a row or a turn: it is over when none of its rows was committed for too
//! long. So a large one lasts as long as the store works, and no longer than a small one when that is stuck.
//!
//! Knows nothing of messages or databases: what committing means is the caller's.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::sync::{Arc, Condvar, Mutex, lock, wait};

/// A row that can wait in a lane.
pub(super) trait Row {
    /// Its share of the batch's byte bound.
    fn size_bytes(&self) -> usize;
}

/// Bounds of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
    /// Rows of large submissions that one commit takes while rows of others wait; twice as many when none do, so
    /// that whoever comes during that commit does not wait for long either.
    pub(super) turn_rows_max: usize,
}

/// The number of waiting rows, given by their sizes in order of arrival, that the next commit takes:
/// as many as fit both bounds, and at least one, so that a row larger than the bound still moves.
pub(super) fn rows_to_take(sizes: impl Iterator<Item = usize>, limits: BatchLimits) -> usize {
    let mut bytes = 0_usize;
    let fitting = sizes
        .take(limits.rows_max)
        .take_while(|size| {
            bytes = bytes.saturating_add(*size);
            bytes <= limits.bytes_max
        })
        .count();
    let take = fitting.max(1);
    debug_assert!(take <= limits.rows_max.max(1), "a batch exceeds its rows");
    take
}

/// The result of a commit.
pub(super) struct Committed<'a, R> {
    /// One answer per row of the batch, in its order.
    pub(super) answers: Vec<R>,
    /// Run by the leader once it has passed the lane on, before anybody is answered.
    pub(super) after: Option<Box<dyn FnOnce() + 'a>>,
}

/// A caller that does not lead, because it does not wait for its answers or must not wait for ever. Called by the
/// thread that leads, or that answers rows which have waited too long; it must hold neither up.
pub(crate) trait Completion<R>: Send + Sync {
    /// All rows of the submission are answered, in their order. The same thread is about to deliver what was
    /// committed, and then calls [`delivered`](Self::delivered): until then a reply may be held back, to leave
    /// together with what is delivered to the same place.
    fn answered(&self, answers: Vec<R>);

    /// What was committed is on its way.
    fn delivered(&self);

    /// The caller is to have [`lead_on`](GroupCommit::lead_on) called by a thread of its own, soon.
    fn appointed(&self);

    /// True when the thread that leads for this caller never does anything else. It is called in the place of
    /// one that may itself be waiting for the lane.
    fn leads_at_once(&self) -> bool {
        false
    }
}

/// Answers that one thread gives itself, although rows wait that another could commit meanwhile: waking it
/// costs more than giving these.
const ANSWERS_BEFORE_NEXT: usize = 8;

/// The queue of one lane and its leadership.
pub(super) struct GroupCommit<T, R> {
    queue: Mutex<Queue<T, R>>,
    limits: BatchLimits,
    /// The answer to a row whose commit panicked.
    lost: fn() -> R,
}

struct Queue<T, R> {
    waiting: VecDeque<Waiting<T, R>>,
    /// What is left of each submission that is too large for one turn; the first has the next turn. Its caller
    /// waits for all of it, so nothing that the same caller submits can overtake it.
    large: VecDeque<VecDeque<Waiting<T, R>>>,
    /// The rows that the leader has taken.
    taken: Option<Arc<Vec<Slot<R>>>>,
    leadership: Leadership,
}

/// The state of a lane: `Free` → `Appointed` or `Called` → `Leading` → `Appointed`, `Called` or `Free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leadership {
    /// No row waits.
    Free,
    /// One thread is about to lead.
    Appointed,
    /// A caller that does not wait was told to have it led; whoever comes first and would wait leads in its place,
    /// for the thread that is to come may be waiting itself. So no caller waits in this state.
    Called,
    /// One caller is committing.
    Leading,
}

impl<T, R> Queue<T, R> {
    fn has_leader(&self) -> bool {
        self.leadership != Leadership::Free
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.large.is_empty()
    }

    /// The row that is next, or would be if it were not large.
    fn front(&self) -> Option<&Waiting<T, R>> {
        self.waiting.front().or_else(|| self.large.front()?.front())
    }

    /// Lets large submissions have their turns: together a turn's rows behind those of others, or two turns' when
    /// there are none.
    fn give_turns(&mut self, limits: BatchLimits) {
        let turn = limits.turn_rows_max.clamp(1, limits.rows_max.max(1));
        let mut rows = if self.waiting.is_empty() { turn.saturating_mul(2) } else { turn };
        while rows > 0
            && let Some(mut large) = self.large.pop_front()
        {
            let count = large.len().min(turn).min(rows);
            self.waiting.extend(large.drain(..count));
            rows -= count;
            if !large.is_empty() {
                self.large.push_back(large);
            }
        }
    }
}

struct Waiting<T, R> {
    row: T,
    slot: Slot<R>,
}

/// The rows a leader has taken, and the slots of their answers.
struct Batch<T, R> {
    rows: Vec<T>,
    slots: Arc<Vec<Slot<R>>>,
    /// Time that the most impatient of their callers has waited, see [`WaiterState::moved_at`].
    waited: Duration,
}

/// The destination of the answer to a row.
struct Slot<R> {
    waiter: Arc<Waiter<R>>,
    /// Index among the caller's rows.
    index: usize,
}

/// One caller: it sleeps until its rows are answered, or has its completion told.
struct Waiter<R> {
    state: Mutex<WaiterState<R>>,
    changed: Condvar,
    completion: Option<Arc<dyn Completion<R>>>,
}

/// The answers of a batch to one caller.
struct Answered<R> {
    waiter: Arc<Waiter<R>>,
    answers: Vec<(usize, R)>,
    /// The store has done something for it.
    moved: bool,
}

struct WaiterState<R> {
    answers: Vec<Option<R>>,
    /// 0 from the moment on at which the caller is answered.
    unanswered: usize,
    /// All answers, for a caller that sleeps.
    done: Option<Vec<R>>,
    appointed: bool,
    /// When the store last did something for this caller; before, when its wait began.
    moved_at: Instant,
    /// That was too long ago: it is about to be answered, and its rows wait no more.
    is_overdue: bool,
}

/// The reason for which a caller woke up.
enum Turn<R> {
    Lead,
    Done(Vec<R>),
}

impl<T: Row, R: PartialEq> GroupCommit<T, R> {
    pub(super) fn new(limits: BatchLimits, lost: fn() -> R) -> Self {
        Self {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                large: VecDeque::new(),
                taken: None,
                leadership: Leadership::Free,
            }),
            limits,
            lost,
        }
    }

    /// Puts the rows into the lane and returns their answers, in order. The calling thread may
    /// have to run `commit`, several times, also for rows of others; it is told for how long nothing was done for
    /// the most impatient caller of the batch.
    pub(super) fn submit<'a>(
        &self,
        rows: Vec<T>,
        mut commit: impl FnMut(Vec<T>, Duration) -> Committed<'a, R>,
    ) -> Vec<R> {
        if rows.is_empty() {
            return Vec::new();
        }
        let waiter = Arc::new(Waiter::new(rows.len(), None, Instant::now()));
        if self.enqueue(rows, &waiter) {
            let _ = self.lead(&mut commit, false);
        }
        loop {
            match waiter.wait() {
                // Whoever was answered meanwhile, because the store is stuck, waits for no commit of others.
                Turn::Lead if waiter.is_answered() => self.decline(),
                Turn::Lead => {
                    let _ = self.lead(&mut commit, false);
                }
                Turn::Done(answers) => return answers,
            }
        }
    }

    /// Puts the rows into the lane and returns at once; `completion` is told of their answers. The caller waits `since`
    /// then. True when nobody led: then the caller is appointed, and has [`lead_on`](Self::lead_on) called.
    #[must_use]
    pub(super) fn submit_and_go(
        &self,
        rows: Vec<T>,
        completion: Arc<dyn Completion<R>>,
        since: Instant,
    ) -> bool {
        debug_assert!(!rows.is_empty(), "nobody would be told");
        let waiter = Arc::new(Waiter::new(rows.len(), Some(completion), since));
        self.enqueue(rows, &waiter)
    }

    /// Leads the lane for a caller that does not wait and was told to have it led, unless somebody did so
    /// meanwhile: as long as rows wait, or until somebody else is to lead.
    pub(super) fn lead_on<'a>(&self, mut commit: impl FnMut(Vec<T>, Duration) -> Committed<'a, R>) {
        if self.answer_call() {
            while self.lead(&mut commit, true) {}
        }
    }

    /// True when the lane is to be led and nobody has begun: then the caller is appointed.
    fn answer_call(&self) -> bool {
        let mut queue = lock(&self.queue);
        let called = queue.leadership == Leadership::Called;
        if called {
            queue.leadership = Leadership::Appointed;
        }
        called
    }

    /// True when nobody led: the caller is appointed, or called if it does not wait.
    fn enqueue(&self, rows: Vec<T>, waiter: &Arc<Waiter<R>>) -> bool {
        let mut queue = lock(&self.queue);
        debug_assert!(queue.has_leader() || queue.is_empty(), "rows wait without a leader");
        let waits = waiter.completion.is_none();
        let at_once = waiter.leads_at_once();
        let is_large = at_once && rows.len() > self.limits.turn_rows_max;
        let rows = rows
            .into_iter()
            .enumerate()
            .map(|(index, row)| Waiting { row, slot: Slot { waiter: waiter.clone(), index } });
        if is_large {
            queue.large.push_back(rows.collect());
        } else {
            queue.waiting.extend(rows);
        }
        let must_lead = !queue.has_leader() || (at_once && queue.leadership == Leadership::Called);
        if must_lead {
            queue.leadership = if waits { Leadership::Appointed } else { Leadership::Called };
        }
        must_lead
    }

    /// Commits one batch, passes the lane on, answers. True when this thread is appointed again, which only
    /// one that `stays` is.
    fn lead<'a>(&self, commit: &mut impl FnMut(Vec<T>, Duration) -> Committed<'a, R>, stays: bool) -> bool {
        let Some(Batch { rows, slots, waited }) = self.take_batch() else { return false };
        let committed = catch_unwind(AssertUnwindSafe(|| commit(rows, waited)));
        let goes_on = self.pass_on(stays && slots.len() <= ANSWERS_BEFORE_NEXT);
        let (answers, after) = match committed {
            Ok(committed) => {
                debug_assert_eq!(committed.answers.len(), slots.len(), "one answer a row");
                (committed.answers, committed.after)
            }
            Err(_) => {
                tracing::error!("a commit panicked; its messages are answered as not stored");
                (Vec::new(), None)
            }
        };
        let answered = self.sort_by_caller(&slots, answers);
        let (told, slept): (Vec<_>, Vec<_>) =
            answered.into_iter().partition(|answered| answered.waiter.completion.is_some());
        let told: Vec<_> = told.into_iter().filter_map(Answered::tell).collect();
        if let Some(after) = after
            && catch_unwind(AssertUnwindSafe(after)).is_err()
        {
            tracing::error!("passing committed messages on panicked");
        }
        slept.into_iter().for_each(Answered::wake);
        for completion in told {
            guarded(|| completion.delivered());
        }
        goes_on
    }

    /// Begins the leadership with the rows that have waited longest; `None` when all were answered meanwhile.
    fn take_batch(&self) -> Option<Batch<T, R>> {
        let mut queue = lock(&self.queue);
        debug_assert_eq!(queue.leadership, Leadership::Appointed, "at most one leader a lane");
        if queue.is_empty() {
            queue.leadership = Leadership::Free;
            return None;
        }
        queue.leadership = Leadership::Leading;
        queue.give_turns(self.limits);
        let sizes = queue.waiting.iter().map(|waiting| waiting.row.size_bytes());
        let take = rows_to_take(sizes, self.limits).min(queue.waiting.len());
        let (rows, slots): (_, Vec<_>) =
            queue.waiting.drain(..take).map(|waiting| (waiting.row, waiting.slot)).unzip();
        let callers = slots.chunk_by(|a, b| Arc::ptr_eq(&a.waiter, &b.waiter));
        let waited = callers.map(|same| same[0].waiter.waited()).max().unwrap_or_default();
        let slots = Arc::new(slots);
        queue.taken = Some(slots.clone());
        Some(Batch { rows, slots, waited })
    }

    /// Answers the callers for whom nothing was done for so long, as if their commits had panicked. Rows that nobody
    /// has taken are never committed; the outcome of the others is unknown.
    pub(super) fn answer_overdue(&self, longest: Duration) {
        let overdue = self.take_overdue(longest);
        let told: Vec<_> = overdue.into_iter().filter_map(|waiter| waiter.give_up(self.lost)).collect();
        for completion in told {
            guarded(|| completion.delivered());
        }
    }

    /// The callers for whom nothing was done for so long; their rows wait no more.
    fn take_overdue(&self, longest: Duration) -> Vec<Arc<Waiter<R>>> {
        let mut queue = lock(&self.queue);
        let mut overdue: Vec<Arc<Waiter<R>>> = Vec::new();
        let taken = queue.taken.iter().flat_map(|taken| taken.iter());
        let waiting = queue.waiting.iter().map(|waiting| &waiting.slot);
        let large = queue.large.iter().filter_map(VecDeque::front).map(|waiting| &waiting.slot);
        let mut last = None;
        for waiter in taken.chain(waiting).chain(large).map(|slot| &slot.waiter) {
            // The rows of a caller are mostly beside each other.
            if last.replace(waiter).is_none_or(|last| !Arc::ptr_eq(last, waiter))
                && waiter.becomes_overdue(longest)
            {
                overdue.push(waiter.clone());
            }
        }
        if !overdue.is_empty() {
            queue.waiting.retain(|row| !row.slot.waiter.is_overdue());
            queue.large.retain(|large| large.front().is_some_and(|row| !row.slot.waiter.is_overdue()));
        }
        if queue.is_empty() && queue.leadership == Leadership::Called {
            queue.leadership = Leadership::Free;
        }
        overdue
    }

    /// Passes on a leadership that this thread was appointed to.
    fn decline(&self) {
        {
            let mut queue = lock(&self.queue);
            debug_assert_eq!(queue.leadership, Leadership::Appointed, "only who is to lead declines");
            queue.leadership = Leadership::Leading;
        }
        let _ = self.pass_on(false);
    }

    /// Ends the leadership: appoints this thread again if it `stays` and rows wait; or else the caller that waits
    /// longest, or calls the one whose row does if none waits. True when it is this thread.
    fn pass_on(&self, stays: bool) -> bool {
        let mut queue = lock(&self.queue);
        debug_assert_eq!(queue.leadership, Leadership::Leading, "only the leader passes the lane on");
        queue.taken = None;
        let Some(longest) = queue.front().map(|waiting| waiting.slot.waiter.clone()) else {
            queue.leadership = Leadership::Free;
            return false;
        };
        if stays {
            queue.leadership = Leadership::Appointed;
            return true;
        }
        let waits = |waiting: &&Waiting<T, R>| waiting.slot.waiter.completion.is_none();
        let large = queue.large.front().and_then(VecDeque::front).filter(waits);
        if let Some(waiting) = queue.waiting.iter().find(waits).or(large) {
            waiting.slot.waiter.appoint();
            queue.leadership = Leadership::Appointed;
            return false;
        }
        queue.leadership = Leadership::Called;
        let large = queue.large.iter().filter_map(|large| large.front());
        let mut all = queue.waiting.iter().chain(large).map(|waiting| &waiting.slot.waiter);
        let at_once = all.find(|waiter| waiter.leads_at_once());
        let called = at_once.cloned().unwrap_or(longest);
        drop(queue);
        if let Some(completion) = &called.completion {
            guarded(|| completion.appointed());
        }
        false
    }

    /// Gives each caller its answers.
    fn sort_by_caller(&self, slots: &[Slot<R>], answers: Vec<R>) -> Vec<Answered<R>> {
        let mut answers = answers.into_iter();
        let of_caller = |same: &[Slot<R>]| {
            let answer = |slot: &Slot<R>| (slot.index, answers.next().unwrap_or_else(self.lost));
            let answers: Vec<_> = same.iter().map(answer).collect();
            let lost = (self.lost)();
            let moved = answers.iter().any(|(_, answer)| *answer != lost);
            Answered { waiter: same[0].waiter.clone(), answers, moved }
        };
        let sorted = slots.chunk_by(|a, b| Arc::ptr_eq(&a.waiter, &b.waiter)).map(of_caller).collect();
        debug_assert!(answers.next().is_none(), "an answer is left over");
        sorted
    }
}

impl<R> Answered<R> {
    /// Tells a completion, which is returned, when it has all its answers.
    fn tell(self) -> Option<Arc<dyn Completion<R>>> {
        let all = self.waiter.take_in(self.answers, self.moved)?;
        self.waiter.hand_over(all)
    }

    /// Wakes a caller that sleeps when it has all its answers.
    fn wake(self) {
        if let Some(all) = self.waiter.take_in(self.answers, self.moved) {
            self.waiter.hand_over(all);
        }
    }
}

/// Runs what a caller wants to be told; its panic is not the lane's.
fn guarded(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!("a caller of a commit lane panicked");
    }
}

impl<R> Waiter<R> {
    fn new(rows: usize, completion: Option<Arc<dyn Completion<R>>>, moved_at: Instant) -> Self {
        let answers = std::iter::repeat_with(|| None).take(rows).collect();
        let (done, appointed, is_overdue) = (None, false, false);
        let state = WaiterState { answers, unanswered: rows, done, appointed, moved_at, is_overdue };
        Self { state: Mutex::new(state), changed: Condvar::new(), completion }
    }

    fn appoint(&self) {
        let mut state = lock(&self.state);
        debug_assert!(state.unanswered > 0, "an appointed caller has a row that waits");
        debug_assert!(!state.appointed, "a caller is appointed once");
        state.appointed = true;
        drop(state);
        self.changed.notify_one();
    }

    fn is_answered(&self) -> bool {
        lock(&self.state).unanswered == 0
    }

    /// Time since the store did something for this caller, or since it came.
    fn waited(&self) -> Duration {
        lock(&self.state).moved_at.elapsed()
    }

    /// True when its patience ends now.
    fn becomes_overdue(&self, longest: Duration) -> bool {
        let mut state = lock(&self.state);
        let is_overdue = state.unanswered > 0 && state.moved_at.elapsed() >= longest;
        is_overdue && !std::mem::replace(&mut state.is_overdue, true)
    }

    fn is_overdue(&self) -> bool {
        lock(&self.state).is_overdue
    }

    /// True when whoever leads for this caller does nothing else: itself while it sleeps, or a thread of the lane.
    fn leads_at_once(&self) -> bool {
        self.completion.as_ref().is_none_or(|completion| completion.leads_at_once())
    }

    /// Answers what is unanswered with `lost`, if anything is. A completion is returned when it was told.
    fn give_up(self: Arc<Self>, lost: fn() -> R) -> Option<Arc<dyn Completion<R>>> {
        let all = {
            let mut state = lock(&self.state);
            if state.unanswered == 0 {
                return None;
            }
            state.unanswered = 0;
            std::mem::take(&mut state.answers).into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
        };
        self.hand_over(all)
    }

    /// Gives the caller all its answers. A completion is returned when it was told.
    fn hand_over(&self, all: Vec<R>) -> Option<Arc<dyn Completion<R>>> {
        if let Some(completion) = &self.completion {
            guarded(|| completion.answered(all));
            return Some(completion.clone());
        }
        lock(&self.state).done = Some(all);
        self.changed.notify_one();
        None
    }

    /// Takes answers in; gives all of them when none is missing any more, once. Later ones come too late.
    fn take_in(&self, answers: Vec<(usize, R)>, moved: bool) -> Option<Vec<R>> {
        let mut state = lock(&self.state);
        if state.unanswered == 0 {
            return None;
        }
        if moved {
            state.moved_at = Instant::now();
        }
        for (index, answer) in answers {
            debug_assert!(state.answers[index].is_none(), "a row is answered once");
            debug_assert!(state.unanswered > 0, "more answers than rows");
            state.answers[index] = Some(answer);
            state.unanswered -= 1;
        }
        if state.unanswered > 0 {
            return None;
        }
        debug_assert!(state.answers.iter().all(Option::is_some), "every row has its answer");
        Some(std::mem::take(&mut state.answers).into_iter().flatten().collect())
    }

    fn wait(&self) -> Turn<R> {
        let mut state = lock(&self.state);
        loop {
            if std::mem::take(&mut state.appointed) {
                return Turn::Lead;
            }
            if let Some(answers) = state.done.take() {
                return Turn::Done(answers);
            }
            state = wait(&self.changed, state);
        }
    }
}

impl<T, R> fmt::Debug for GroupCommit<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").field("limits", &self.limits).finish_non_exhaustive()
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

    fn lane(rows_max: usize) -> GroupCommit<u64, Option<u64>> {
        in_turns(rows_max, usize::MAX)
    }

    fn in_turns(rows_max: usize, turn_rows_max: usize) -> GroupCommit<u64, Option<u64>> {
        GroupCommit::new(BatchLimits { rows_max, bytes_max: usize::MAX, turn_rows_max }, || None)
    }

    fn echo(rows: Vec<u64>, _: Duration) -> Committed<'static, Option<u64>> {
        Committed { answers: rows.into_iter().map(Some).collect(), after: None }
    }

    #[test]
    fn a_submission_larger_than_a_batch_is_answered_in_order() {
        let mut batches = Vec::new();
        let answers = lane(4).submit((0..10).collect(), |rows, _| {
            batches.push(rows.len());
            echo(rows, Duration::ZERO)
        });
        assert_eq!(answers, (0..10).map(Some).collect::<Vec<_>>());
        assert_eq!(batches, [4, 4, 2]);
    }

    #[test]
    fn rows_that_arrive_during_a_commit_go_into_the_next() {
        let lane = lane(100);
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let first = &lane;
            scope.spawn(move || {
                first.submit(vec![0], |rows, _| {
                    entered.send(()).unwrap();
                    released.recv().unwrap();
                    echo(rows, Duration::ZERO)
                })
            });
            has_entered.recv().unwrap();
            let (commits, committed) = mpsc::channel();
            for row in 1..=8 {
                let (commits, lane) = (commits.clone(), &lane);
                scope.spawn(move || {
                    let answers = lane.submit(vec![row], |rows, _| {
                        commits.send(rows.len()).unwrap();
                        echo(rows, Duration::ZERO)
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
    fn a_large_submission_is_taken_in_turns_while_others_wait() {
        let lane = in_turns(10, 3);
        let mut batches = Vec::new();
        let answers = thread::scope(|scope| {
            lane.submit((0..30).collect(), |rows, _| {
                let number = batches.len() as u64;
                if number < 2 {
                    // Somebody comes while this is committed.
                    let others = (100 * (number + 1)..).take(2).collect();
                    assert!(!lane.submit_and_go(others, Arc::new(Told::default()), Instant::now()));
                }
                if number == 3 {
                    let lane = &lane;
                    scope.spawn(move || lane.submit((900..908).collect(), echo));
                    while lock(&lane.queue).large.len() < 2 {
                        thread::yield_now();
                    }
                }
                batches.push(rows.clone());
                echo(rows, Duration::ZERO)
            })
        });
        assert_eq!(answers, (0..30).map(Some).collect::<Vec<_>>());
        let expected: [&[u64]; 5] = [
            &[0, 1, 2, 3, 4, 5],
            &[100, 101, 6, 7, 8],
            &[200, 201, 9, 10, 11],
            &[12, 13, 14, 15, 16, 17],
            // Two large ones share a commit.
            &[18, 19, 20, 900, 901, 902],
        ];
        assert_eq!(batches[..5], expected);
        assert!(lock(&lane.queue).is_empty() && !lock(&lane.queue).has_leader());
    }

    #[test]
    fn rows_behind_a_commit_that_hangs_are_answered() {
        let lane = lane(1);
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let mut committed = Vec::new();
        thread::scope(|scope| {
            let first = &lane;
            let committed = &mut committed;
            let hanging = scope.spawn(move || {
                first.submit(vec![1], |rows, _| {
                    committed.extend(rows.clone());
                    entered.send(()).unwrap();
                    released.recv().unwrap();
                    echo(rows, Duration::ZERO)
                })
            });
            has_entered.recv().unwrap();
            let behind =
                scope.spawn(|| lane.submit(vec![2, 3], |_, _| unreachable!("nobody leads for them")));
            while lock(&lane.queue).waiting.len() < 2 {
                thread::yield_now();
            }
            lane.answer_overdue(Duration::from_secs(3600));
            assert_eq!(lock(&lane.queue).waiting.len(), 2, "they have just come");
            lane.answer_overdue(Duration::ZERO);
            assert_eq!(behind.join().unwrap(), [None, None]);
            release.send(()).unwrap();
            assert_eq!(hanging.join().unwrap(), [None], "its outcome was not known in time");
        });
        assert_eq!(committed, [1]);
        assert_eq!(lane.submit(vec![4], echo), [Some(4)]);
    }

    #[test]
    fn a_large_submission_lasts_while_the_store_works() {
        let lane = in_turns(10, 3);
        let long_ago = || Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let mut batches = Vec::new();
        let answers = lane.submit((0..30).collect(), |rows, waited| {
            if batches.len() < 3 {
                assert!(waited < Duration::from_secs(60), "it is patient anew after each commit");
                lane.answer_overdue(Duration::from_secs(60));
                lock(&lane.queue).taken.iter().flat_map(|taken| taken.iter()).for_each(|slot| {
                    lock(&slot.waiter.state).moved_at = long_ago();
                });
                batches.push(rows.clone());
                return echo(rows, Duration::ZERO);
            }
            batches.push(rows.clone());
            if batches.len() == 4 {
                assert!(waited < Duration::from_secs(60));
                lock(&lane.queue).large.iter().flatten().for_each(|row| {
                    lock(&row.slot.waiter.state).moved_at = long_ago();
                });
            } else {
                assert!(waited >= Duration::from_secs(60), "a commit that failed renews nobody's patience");
                lane.answer_overdue(Duration::from_secs(60));
                assert!(lock(&lane.queue).is_empty(), "no further turn is tried");
            }
            Committed { answers: vec![None; rows.len()], after: None }
        });
        assert_eq!(batches.len(), 5, "{batches:?}");
        let expected: Vec<_> = (0..30).map(|row| (row < 18).then_some(row)).collect();
        assert_eq!(answers, expected, "what was stored is said");
        assert!(!lock(&lane.queue).has_leader());
    }

    /// Somebody who sleeps has been appointed when he is answered, and another row waits.
    #[test]
    fn who_was_answered_leads_for_nobody_else() {
        let lane = lane(1);
        let waiter = Arc::new(Waiter::new(1, None, Instant::now()));
        assert!(lane.enqueue(vec![1], &waiter));
        lane.answer_overdue(Duration::ZERO);
        assert!(waiter.is_answered());
        let told = Arc::new(Told::default());
        assert!(!lane.submit_and_go(vec![2], told.clone(), Instant::now()), "the first is still to lead");
        lane.decline();
        assert_eq!(*lock(&told.events), ["appointed"]);
        lane.lead_on(echo);
        assert_eq!(lock(&told.events).len(), 3);
        assert!(!lock(&lane.queue).has_leader());
    }

    #[test]
    fn a_panicking_leader_answers_its_batch_and_passes_the_lane_on() {
        let lane = lane(2);
        let mut first = true;
        let answers = lane.submit((0..4).collect(), |rows, _| {
            assert!(!std::mem::take(&mut first), "the first commit fails");
            echo(rows, Duration::ZERO)
        });
        assert_eq!(answers, [None, None, Some(2), Some(3)]);
        assert_eq!(lane.submit(vec![9], echo), [Some(9)]);
        assert!(!lock(&lane.queue).has_leader());
    }

    #[test]
    fn a_caller_that_goes_on_is_told_before_and_behind_the_delivery() {
        let lane = lane(2);
        let told = Arc::new(Told::default());
        assert!(lane.submit_and_go(vec![1, 2, 3], told.clone(), Instant::now()), "nobody leads");
        assert!(!lane.submit_and_go(vec![4], told.clone(), Instant::now()), "somebody is to lead");
        let mut batches = Vec::new();
        lane.lead_on(|rows, _| {
            batches.push(rows.clone());
            let told = told.clone();
            let after = move || lock(&told.events).push("after".to_owned());
            Committed { answers: rows.into_iter().map(Some).collect(), after: Some(Box::new(after)) }
        });
        assert_eq!(batches, [vec![1, 2], vec![3, 4]]);
        let expected =
            ["after", "[Some(1), Some(2), Some(3)]", "[Some(4)]", "after", "delivered", "delivered"];
        assert_eq!(*lock(&told.events), expected);
        assert!(!lock(&lane.queue).has_leader());
    }

    #[test]
    fn a_caller_that_waits_leads_when_the_one_called_is_late() {
        let lane = lane(4);
        let told = Arc::new(Told::default());
        assert!(lane.submit_and_go(vec![1], told.clone(), Instant::now()));
        assert_eq!(lane.submit(vec![2], echo), [Some(2)], "the thread that was called never comes");
        assert_eq!(*lock(&told.events), ["[Some(1)]", "delivered"]);
        lane.lead_on(|_, _| panic!("it comes too late"));
        assert!(!lock(&lane.queue).has_leader());
    }

    #[test]
    fn a_large_batch_is_answered_while_the_next_is_led() {
        let lane = lane(2 * ANSWERS_BEFORE_NEXT);
        let told = Arc::new(Told::default());
        let rows = 2 * ANSWERS_BEFORE_NEXT as u64 + 1;
        assert!(lane.submit_and_go((0..rows).collect(), told.clone(), Instant::now()));
        lane.lead_on(echo);
        assert_eq!(*lock(&told.events), ["appointed"], "a row waits for another thread");
        lane.lead_on(echo);
        assert_eq!(lock(&told.events).len(), 3);
    }

    #[derive(Default)]
    struct Told {
        events: Mutex<Vec<String>>,
    }

    impl Completion<Option<u64>> for Told {
        fn answered(&self, answers: Vec<Option<u64>>) {
            lock(&self.events).push(format!("{answers:?}"));
        }

        fn delivered(&self) {
            lock(&self.events).push("delivered".to_owned());
        }

        fn appointed(&self) {
            lock(&self.events).push("appointed".to_owned());
        }
    }

    #[test]
    fn the_sink_finishes_after_the_lane_is_free() {
        let lane = lane(2);
        let answers = lane.submit(vec![1], |rows, _| Committed {
            answers: rows.into_iter().map(Some).collect(),
            after: Some(Box::new(|| assert!(!lock(&lane.queue).has_leader()))),
        });
        assert_eq!(answers, [Some(1)]);
    }

    #[test]
    fn a_batch_keeps_both_bounds_but_takes_one_row() {
        let take = |sizes: &[usize], rows_max, bytes_max| {
            rows_to_take(sizes.iter().copied(), BatchLimits { rows_max, bytes_max, turn_rows_max: 1 })
        };
        assert_eq!(take(&[1, 1, 1], 512, 100), 3);
        assert_eq!(take(&[1, 1, 1], 2, 100), 2);
        assert_eq!(take(&[60, 40, 1], 512, 100), 2);
        assert_eq!(take(&[60, 41, 1], 512, 100), 1);
        assert_eq!(take(&[500, 1], 512, 100), 1);
        assert_eq!(take(&[usize::MAX, usize::MAX], 512, usize::MAX), 2);
        assert_eq!(take(&[5, 5], 0, 0), 1);
    }
}
