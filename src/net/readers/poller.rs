//! Waits for sockets: every thread of the pool waits in the same epoll instance, each for one event.
//!
//! `EPOLLONESHOT` disarms a socket with the event it tells, so one thread gets it; arming is level-triggered,
//! so bytes that came before are told at once. A queue between one waiting thread and the others would wake
//! twice for each event. `portable` has the same contract for systems without epoll.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, write};

use super::wait::{Interest, Told};
use crate::ids::ConnectionId;

/// What events of the queue are named; connection ids begin at 1.
const QUEUE: u64 = 0;

/// The sockets that are waited for, and a bell for a queue of other work.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    /// Edge-triggered and never read: each write wakes one waiting thread.
    bell: OwnedFd,
}

impl Poller {
    /// # Errors
    /// When the system has no file left.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &bell, EventData::new_u64(QUEUE), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, bell })
    }

    /// Makes a socket known and arms it. It is forgotten when its file is closed.
    ///
    /// # Errors
    /// When the system has no memory for it (`epoll_ctl(2)`: `fs.epoll.max_user_watches`).
    pub(super) fn add(&self, id: ConnectionId, socket: &TcpStream, interest: Interest) -> io::Result<()> {
        debug_assert!(id.0 != QUEUE, "the token of the queue");
        Ok(epoll::add(&self.epoll, socket.as_fd(), EventData::new_u64(id.0), flags(interest))?)
    }

    /// Has one more event of a known socket told; one that was armed before is told once all the same.
    pub(super) fn arm(&self, id: ConnectionId, socket: &TcpStream, interest: Interest) {
        let armed = epoll::modify(&self.epoll, socket.as_fd(), EventData::new_u64(id.0), flags(interest));
        if let Err(error) = armed {
            tracing::error!(%error, "a socket is not waited for any more");
        }
    }

    /// Makes one thread see to the queue.
    pub(super) fn ring(&self) {
        // Fails only when 2^64 - 2 rings were never read (`eventfd(2)`).
        let _ = write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// The next event; `None` when there was none for so long.
    pub(super) fn wait(&self, patience: Duration) -> Option<Told> {
        let timeout = Timespec::try_from(patience).ok();
        let mut event = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(QUEUE) }];
        match epoll::wait(&self.epoll, &mut event, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => None,
            Ok(_) => Some(match event[0].data.u64() {
                QUEUE => Told::Queue,
                id => Told::Socket(ConnectionId(id)),
            }),
            Err(error) => {
                tracing::error!(%error, "waiting for sockets failed");
                None
            }
        }
    }
}

fn flags(interest: Interest) -> EventFlags {
    match interest {
        Interest::Read => EventFlags::IN | EventFlags::ONESHOT,
        Interest::Write => EventFlags::OUT | EventFlags::ONESHOT,
    }
}
