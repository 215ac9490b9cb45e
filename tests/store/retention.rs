//! Retention: invisible at once, deleted step by step.

use std::sync::Arc;
use std::time::Duration;

use roomcast::internals::{Appended, HistoryLimit, HistoryQuery, PruneWalk, Retention, Store};
use roomcast::{Channel, Metrics};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const CHECKS: &[Check] = &[
    ("what is outside by count is invisible at once", invisible_by_count),
    ("what is outside by age is invisible at once", invisible_by_age),
    ("pruning takes bounded steps and keeps heads", pruned_in_steps),
    ("a step takes from all rooms at once", pruned_across_rooms),
    ("what goes by number and by age goes in one walk more", pruned_by_both),
    ("pruning is not stopped by rows of the future", pruned_behind_the_future),
    ("pruning goes by each room's own rule", pruned_by_rule),
];

fn newest(size: u64) -> Retention {
    Retention { size, ttl: None }
}

fn younger(seconds: u64) -> Retention {
    Retention { size: 0, ttl: Some(Duration::from_secs(seconds)) }
}

fn invisible_by_count(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 5);
    let ask = |query| history(&store, "a", query, newest(2));
    assert_eq!(ask(all()), [4, 5]);
    assert_eq!(ask(HistoryQuery { reverse: true, ..all() }), [5, 4]);
    assert_eq!(ask(HistoryQuery { since: Some(1), ..all() }), [4, 5]);
    assert_eq!(ask(HistoryQuery { since: Some(5), reverse: true, limit: HistoryLimit::All }), [4]);
    assert_eq!(seqs(&store.page(&channel("a"), 0, 5, newest(2)).unwrap()), [4, 5]);
    assert_eq!(history(&store, "a", all(), newest(9)), [1, 2, 3, 4, 5]);
}

fn invisible_by_age(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 4);
    backend.execute("UPDATE messages SET created_at = created_at - 60000 WHERE seq <= 3");
    assert_eq!(history(&store, "a", all(), younger(30)), [4]);
    assert_eq!(history(&store, "a", all(), younger(90)), [1, 2, 3, 4]);
    assert_eq!(seqs(&store.page(&channel("a"), 0, 4, younger(30)).unwrap()), [4]);
    assert_eq!(history(&store, "a", all(), Retention { ttl: Some(Duration::MAX), size: 0 }), [1, 2, 3, 4]);
    assert_eq!(history(&store, "a", all(), younger(0)), [0; 0]);
    assert_eq!(store.head(&channel("a")), Ok(4));
}

/// Rows of the steps below.
const STEP: usize = 500;

/// Prunes until nothing is left; returns the rows of each step.
fn prune_all(store: &Store, rule: &dyn Fn(&Channel) -> Retention) -> Vec<usize> {
    let mut walk = PruneWalk::default();
    let mut steps = Vec::new();
    loop {
        let step = store.prune(&mut walk, STEP, rule).unwrap();
        steps.push(step.rows);
        assert!(steps.len() < 100, "it comes to an end");
        if step.finished {
            assert_eq!(walk, PruneWalk::default());
            return steps;
        }
    }
}

fn pruned_in_steps(backend: &Backend) {
    let metrics = Arc::new(Metrics::new());
    let store = backend.open_measured(Arc::clone(&metrics));
    let count = STEP * 2 + 100;
    fill(&store, "a", count);
    fill(&store, "b", 3);
    let steps = prune_all(&store, &|_| newest(2));
    assert_eq!(steps.iter().sum::<usize>(), count - 2 + 1);
    assert!(steps.iter().all(|rows| *rows <= STEP) && steps.len() >= 3);
    assert_eq!(metrics.pruned_messages_total.get() as usize, count - 1);
    assert_eq!(backend.number("SELECT count(*) FROM messages"), 4);
    assert_eq!(store.head(&channel("a")), Ok(count as u64));
    assert_eq!(append(&store, message("a", "1")), Ok(Appended::New(count as u64 + 1)));
    assert_eq!(history(&store, "b", all(), KEEP_ALL), [2, 3]);
    assert_eq!(prune_all(&store, &|_| newest(3)), [0]);
    // Everything may go; the numbers go on.
    backend.execute("UPDATE messages SET created_at = created_at - 60000");
    prune_all(&store, &|_| younger(30));
    assert_eq!(backend.number("SELECT count(*) FROM messages"), 0);
    assert_eq!(append(&store, message("b", "1")), Ok(Appended::New(4)));
}

/// Every room loses some in each step, in proportion to what it has to lose.
fn pruned_across_rooms(backend: &Backend) {
    let store = backend.open();
    fill(&store, "a", 901);
    fill(&store, "b", 301);
    let mut walk = PruneWalk::default();
    let step = store.prune(&mut walk, 400, &|_| newest(1)).unwrap();
    assert_eq!((step.rows, step.finished), (400, false));
    let left =
        |room| history(&store, room, HistoryQuery { limit: HistoryLimit::Count(1), ..all() }, KEEP_ALL);
    assert_eq!((left("a"), left("b")), (vec![301], vec![101]));
    assert_eq!(prune_all(&store, &|_| newest(1)).iter().sum::<usize>(), 800);
    assert_eq!((left("a"), left("b")), (vec![901], vec![301]));
}

/// A room that always has some to lose by number must not keep the pruner at work without a pause.
fn pruned_by_both(backend: &Backend) {
    let store = backend.open();
    let both = |_: &Channel| Retention { size: 5, ttl: Some(Duration::from_secs(30)) };
    fill(&store, "a", 10);
    assert_eq!(prune_all(&store, &both), [5]);
    fill(&store, "a", 5);
    backend.execute("UPDATE messages SET created_at = created_at - 60000 WHERE seq <= 12");
    assert_eq!(prune_all(&store, &both), [5, 2]);
    assert_eq!(history(&store, "a", all(), KEEP_ALL), [13, 14, 15]);
}

/// A clock that was an hour ahead has left rows at the beginning, in the middle, and everywhere.
fn pruned_behind_the_future(backend: &Backend) {
    let store = backend.open();
    for room in ["first", "middle", "all"] {
        fill(&store, room, 1200);
    }
    backend.execute("UPDATE messages SET created_at = created_at - 60000 WHERE seq <= 1100");
    let future = "UPDATE messages SET created_at = created_at + 3660000 WHERE room_id = \
                  (SELECT id FROM rooms WHERE name = ";
    backend.execute(&format!("{future} 'first') AND seq <= 700"));
    backend.execute(&format!("{future} 'middle') AND seq BETWEEN 10 AND 20"));
    backend.execute(&format!("{future} 'all')"));
    prune_all(&store, &|_| younger(30));
    let rows = |room| {
        backend.number(&format!(
            "SELECT count(*) FROM messages WHERE room_id = (SELECT id FROM rooms WHERE name = '{room}')"
        ))
    };
    assert_eq!((rows("first"), rows("middle"), rows("all")), (800, 111, 1200));
    // By count they go like all others.
    prune_all(&store, &|_| Retention { size: 5, ttl: Some(Duration::from_secs(30)) });
    assert_eq!((rows("first"), rows("middle"), rows("all")), (5, 5, 5));
}

fn pruned_by_rule(backend: &Backend) {
    let store = backend.open();
    // More rooms than one step looks at.
    let rooms: Vec<String> =
        (0..450).map(|n| format!("{}:{n}", if n % 2 == 0 { "short" } else { "long" })).collect();
    for _ in 0..2 {
        let messages = rooms.iter().map(|room| message(room, "1")).collect();
        assert!(store.append(messages, &discard()).iter().all(Result::is_ok));
    }
    let rule = |channel: &Channel| if channel.namespace() == "short" { newest(1) } else { KEEP_ALL };
    assert_eq!(prune_all(&store, &rule).iter().sum::<usize>(), 225);
    assert_eq!(history(&store, "short:0", all(), KEEP_ALL), [2]);
    assert_eq!(history(&store, "long:449", all(), KEEP_ALL), [1, 2]);
}
