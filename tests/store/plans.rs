//! How PostgreSQL finds the rows that a commit asks for.

use std::thread;
use std::time::{Duration, Instant};

use crate::Check;
use crate::vocabulary::*;

pub(crate) const POSTGRES_CHECKS: &[Check] =
    &[("a commit reads no table as a whole, however its statements were planned", commits_keep_to_indexes)];

/// Statements are planned while the tables are empty, and kept. What a connection has read is told when it ends.
fn commits_keep_to_indexes(backend: &Backend) {
    let read = "SELECT sum(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname IN ('rooms', 'messages', 'users')";
    let store = backend.open();
    for round in 0..2 {
        for user in 0..20 {
            let message = |room| {
                let key = format!("{round} {user}");
                keyed(message_of(&format!("u{user}"), &format!("r{user}-{room}"), "1"), &key)
            };
            let results = store.append((0..100).map(message).collect(), &discard());
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    }
    drop(store);
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let deadline = Instant::now() + Duration::from_secs(60);
    while backend.number(others) > 0 {
        assert!(Instant::now() < deadline, "connections stay");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(backend.number(read), 0, "rows that were read without an index");
}
