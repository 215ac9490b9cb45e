//! A connection that waits for bytes, and then for its socket to take the answer, while it is woken all the time.

use super::*;

/// An HTTP connection, say.
struct Answering {
    /// A part of the answer has not left.
    writing: bool,
}

impl Probe for Answering {
    fn turn(&mut self, found: Found) -> Next {
        self.writing |= found.bytes;
        self.writing &= !found.space;
        let interest = if self.writing { Interest::Write } else { Interest::Read };
        let deadline = (!found.due).then(Instant::now);
        Next::Wait(Wait { interest: Some(interest), deadline })
    }
}

#[test]
fn no_wake_up_and_no_event_is_lost() {
    explore(1500, || {
        let pool = Pool::new(|_| Answering { writing: false });
        let own = [pool.go(Pool::serve), pool.go(Pool::serve), pool.go(Pool::watch_deadlines)];
        let others = [
            pool.go(Pool::wake_up),
            pool.go(Pool::wake_up),
            pool.go(Pool::receive),
            pool.go(Pool::make_space),
        ];
        join(others);
        pool.settle(|state| {
            let has_answered = !state.bytes && state.interest == Some(Interest::Read);
            has_answered && state.due_seen && state.seen == state.asked
        });
        pool.stop(own);
    });
}
