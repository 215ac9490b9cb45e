//! The end of a connection: what is queued leaves, then the client has time to close its side.
//!
//! What the client still sends is read and dropped, for the kernel answers unread bytes with a reset that
//! could take the last frames from the client.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use super::readers::{Next, Wait};
use crate::limits::TURN_BYTES_MAX;
use crate::outbox::Outbox;

/// Time a client has to close its side after the server closed.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

/// Bytes dropped at a time.
const CHUNK_BYTES: usize = 4096;

/// A connection that says nothing new and hears nothing any more.
#[derive(Debug)]
pub(super) struct Ending {
    /// That of a WebSocket, which shuts its socket when all has left.
    outbox: Option<Arc<Outbox>>,
    /// Until then queued frames may leave; `None`: nothing is queued any more.
    flush_by: Option<Instant>,
    drain_by: Instant,
    /// The client has closed its side.
    heard_all: bool,
}

impl Ending {
    /// Of a socket on which the last answer was sent.
    pub(super) fn of_http(socket: &TcpStream) -> Self {
        // An error only says that the peer was faster.
        let _ = socket.shutdown(Shutdown::Write);
        Self { outbox: None, flush_by: None, drain_by: Instant::now() + GOODBYE, heard_all: false }
    }

    /// Of a WebSocket whose outbox has ended, or takes nothing any more; its frames have `flush_grace`.
    pub(super) fn of_websocket(outbox: Arc<Outbox>, flush_grace: Duration) -> Self {
        debug_assert!(outbox.ended().is_some(), "it would take more frames");
        let flush_by = Instant::now() + flush_grace;
        Self { outbox: Some(outbox), flush_by: Some(flush_by), drain_by: flush_by, heard_all: false }
    }

    /// Goes on as far as the socket allows now.
    pub(super) fn turn(&mut self, socket: &TcpStream) -> Next {
        let now = Instant::now();
        if let Some(by) = self.flush_by
            && (by <= now || !self.is_flushing())
        {
            self.flush_by = None;
            self.drain_by = now + GOODBYE;
        }
        if self.flush_by.is_none() && self.drain_by <= now {
            return Next::End;
        }
        if !self.heard_all {
            match discard(socket) {
                Discarded::All => {}
                Discarded::Some => return Next::Again,
                Discarded::End => self.heard_all = true,
            }
        }
        match (self.flush_by, self.heard_all) {
            (None, true) => Next::End,
            (Some(by), true) => Next::Wait(Wait::wake(Some(by))),
            (flush_by, false) => Next::Wait(Wait::bytes(Some(flush_by.unwrap_or(self.drain_by)))),
        }
    }

    /// True while frames wait for the socket; then the outbox wakes the connection.
    fn is_flushing(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.wake_at_flushed())
    }

    /// The moment of the next step if nothing comes before.
    pub(super) fn deadline(&self) -> Instant {
        self.flush_by.unwrap_or(self.drain_by)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(outbox) = &self.outbox {
            outbox.abort();
        }
    }
}

/// What the socket held.
enum Discarded {
    /// Everything was read that is there now.
    All,
    /// As much as one turn may take.
    Some,
    /// The client has closed its side, or is gone.
    End,
}

fn discard(socket: &TcpStream) -> Discarded {
    let mut scrap = [0; CHUNK_BYTES];
    let mut taken = 0;
    while taken < TURN_BYTES_MAX {
        match recv(socket, &mut scrap, RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((0, _)) => return Discarded::End,
            Ok((count, _)) => taken += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Discarded::All,
            Err(_) => return Discarded::End,
        }
    }
    Discarded::Some
}
