//! A wire in memory for the model checker: what `outbox/wire.rs` promises, and no more.
//!
//! The peer is a buffer of few bytes that a thread of the scenario reads. Being writable is told as
//! the kernel's edge-triggered poller tells it, in its weakest form: at registration if there is room,
//! and after that once for each time that a send found less room than it wanted. A timeout may be over
//! at once or never, so that whoever must be woken is.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use shuttle::rand::{Rng, thread_rng};

use crate::ids::ConnectionId;
use crate::sync::{Arc, Condvar, Mutex, lock, wait};

/// Most bytes the wire holds: no frame of the scenarios fits it together with another.
const CAPACITY: usize = 7;

#[derive(Clone)]
pub(in crate::outbox) struct Wire(Arc<Buffer>);

#[derive(Default)]
struct Buffer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// A send found less room than it wanted, and nobody was told of room since.
    starved: bool,
    /// No more bytes come; `Both`: and what was not read is gone.
    shut: Option<Shutdown>,
    registered: Option<(ConnectionId, Arc<Events>)>,
}

impl State {
    /// Acts as the kernel does when there is capacity, or when the wire has ended.
    fn tell_if_writable(&mut self) {
        if (self.bytes.len() < CAPACITY || self.shut.is_some())
            && let Some((id, events)) = &self.registered
        {
            self.starved = false;
            events.add(*id);
        }
    }
}

impl Wire {
    /// Sockets have no place in a model.
    pub(in crate::outbox) fn new(_: Arc<TcpStream>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::outbox) fn in_memory() -> Self {
        Self(Arc::default())
    }

    pub(in crate::outbox) fn socket(&self) -> Option<&TcpStream> {
        None
    }

    pub(in crate::outbox) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0.state);
        if state.shut.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(CAPACITY - state.bytes.len());
        state.bytes.extend(&bytes[..count]);
        state.starved |= count < bytes.len();
        drop(state);
        self.0.changed.notify_all();
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    pub(in crate::outbox) fn send_queue(
        &self,
        queue: &VecDeque<Bytes>,
        front_sent: usize,
    ) -> io::Result<usize> {
        let all: Vec<u8> = queue.iter().flatten().copied().skip(front_sent).collect();
        self.send(&all)
    }

    pub(in crate::outbox) fn shutdown(&self, how: Shutdown) {
        let mut state = lock(&self.0.state);
        state.shut = Some(how);
        if how == Shutdown::Both {
            state.bytes.clear();
        }
        state.tell_if_writable();
        drop(state);
        self.0.changed.notify_all();
    }

    /// For the peer: waits for bytes and takes some of them; `None` at the end.
    pub(in crate::outbox) fn read(&self, most: usize) -> Option<Vec<u8>> {
        let mut state = lock(&self.0.state);
        while state.bytes.is_empty() {
            if state.shut.is_some() {
                return None;
            }
            state = wait(&self.0.changed, state);
        }
        let count = most.min(state.bytes.len());
        let taken = state.bytes.drain(..count).collect();
        if state.starved {
            state.tell_if_writable();
        }
        Some(taken)
    }

    pub(in crate::outbox) fn is_registered(&self) -> bool {
        lock(&self.0.state).registered.is_some()
    }
}

/// The events a poller has to tell.
#[derive(Default)]
struct Events {
    state: Mutex<Told>,
    changed: Condvar,
}

#[derive(Default)]
struct Told {
    writable: Vec<ConnectionId>,
    woken: bool,
}

impl Events {
    fn add(&self, id: ConnectionId) {
        let mut told = lock(&self.state);
        if !told.writable.contains(&id) {
            told.writable.push(id);
        }
        drop(told);
        self.changed.notify_all();
    }
}

pub(in crate::outbox) struct Registrar(Arc<Events>);

impl Registrar {
    pub(in crate::outbox) fn register(&self, id: ConnectionId, wire: &Wire) -> io::Result<()> {
        let mut state = lock(&wire.0.state);
        if state.registered.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.registered = Some((id, self.0.clone()));
        state.starved = true;
        state.tell_if_writable();
        Ok(())
    }

    pub(in crate::outbox) fn deregister(&self, wire: &Wire) -> io::Result<()> {
        let mut state = lock(&wire.0.state);
        let Some((id, events)) = state.registered.take() else { return Err(io::ErrorKind::NotFound.into()) };
        lock(&events.state).writable.retain(|writable| *writable != id);
        Ok(())
    }

    pub(in crate::outbox) fn wake(&self) -> io::Result<()> {
        lock(&self.0.state).woken = true;
        self.0.changed.notify_all();
        Ok(())
    }
}

pub(in crate::outbox) struct Poller(Arc<Events>);

impl Poller {
    pub(in crate::outbox) fn new() -> io::Result<(Self, Registrar)> {
        let events = Arc::new(Events::default());
        Ok((Self(events.clone()), Registrar(events)))
    }

    pub(in crate::outbox) fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> impl Iterator<Item = ConnectionId> {
        let over = timeout.is_some() && thread_rng().gen_bool(0.5);
        let mut told = lock(&self.0.state);
        while !over && told.writable.is_empty() && !told.woken {
            told = wait(&self.0.changed, told);
        }
        told.woken = false;
        std::mem::take(&mut told.writable).into_iter()
    }
}
