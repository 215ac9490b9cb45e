//! A connection with its real outbox: the peer reads slowly, so that the connection waits for capacity, and then
//! everything that may end it comes at once.

use shuttle::rand::{Rng, thread_rng};

use super::*;
use crate::outbox::model::InMemory;
use crate::outbox::{Outbox, Push};

/// Longer than what the wire takes at once; two are beyond the budget.
const ANSWER: &[u8] = b"0123456789";

/// A WebSocket, which answers each message by more than the socket takes.
struct Open {
    outbox: Arc<Outbox>,
    /// A message that waits until the client has read.
    unread: bool,
}

impl Probe for Open {
    fn turn(&mut self, found: Found) -> Next {
        self.unread |= found.bytes;
        if found.due {
            self.outbox.close(3005, "expired");
        }
        if self.outbox.ended().is_some() {
            return if self.outbox.wake_at_flushed() { Next::Wait(Wait::wake(None)) } else { Next::End };
        }
        let deadline = Some(Instant::now());
        if self.outbox.wake_at_capacity() {
            return Next::Wait(Wait::wake(deadline));
        }
        if std::mem::take(&mut self.unread)
            && self.outbox.reply(&ANSWER.into()) == Push::Accepted
            && self.outbox.wake_at_capacity()
        {
            return Next::Wait(Wait::wake(deadline));
        }
        Next::Wait(Wait::bytes(deadline))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.outbox.abort();
    }
}

#[test]
fn whatever_ends_a_connection_it_ends() {
    explore(700, || {
        let mut made = None;
        let pool = Pool::new(|pool| {
            let far = InMemory::new(ID, pool.clone());
            let outbox = far.outbox.clone();
            made = Some(far);
            Open { outbox, unread: false }
        });
        let far = made.expect("the pool makes its connection");
        let outbox = far.outbox.clone();
        let peer = far.read_to_end();
        let mut own = vec![pool.go(Pool::serve), pool.go(Pool::serve)];
        assert_eq!(outbox.uncork(&b"first".as_slice().into()), Push::Accepted);
        // Nothing but the outbox wakes it, whose capacity it needs for the next answer.
        for _ in 0..3 {
            pool.receive();
            pool.settle(|state| !state.bytes && state.interest == Some(Interest::Read) && !state.in_turn);
        }
        // A kick, a logout, a socket that breaks, and a token that expires: some of them, or all.
        let ends: [fn(&Arc<Outbox>); 3] = [
            |outbox| outbox.close(3503, "kicked"),
            |outbox| outbox.close(3501, "out"),
            |outbox| outbox.abort(),
        ];
        let chosen = thread_rng().gen_range(1..16);
        let mut others = vec![pool.go(Pool::receive)];
        for (_, end) in ends.into_iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1) {
            let outbox = outbox.clone();
            others.push(thread::spawn(move || end(&outbox)));
        }
        if chosen >> ends.len() & 1 == 1 {
            own.push(pool.go(Pool::watch_deadlines));
        }
        join(others);
        pool.settle(|state| state.over);
        pool.stop(own);
        drop(outbox);
        join([peer]);
        far.finish();
    });
}
