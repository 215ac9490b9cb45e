//! Thousands of listeners on one thread: connections that read as fast as they can, slowly, or not
//! at all, and that check every message they get.
//!
//! A [`Swarm`] does nothing by itself: [`Swarm::run_until`] turns its loop on the calling thread until
//! a condition holds. A [`Writer`] may publish on another thread meanwhile.

mod listener;
mod writer;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::PATIENCE;
use crate::support::server::TestServer;

use listener::Tally;
pub use listener::{Listener, Pace};
pub use writer::Writer;

/// Handshakes under way at once; more would only overflow the server's backlog.
const HANDSHAKES_MAX: usize = 512;

/// Source addresses in turn, so that the ports of one do not run out.
const SOURCE_ADDRESSES: usize = 16;

/// Receive buffer of a listener that does not read as fast as it can.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;

/// How long a turn may wait for a socket, because conditions may depend on other threads.
const TURN: Duration = Duration::from_millis(2);

/// See the module.
pub struct Swarm {
    pub address: SocketAddr,
    pub listeners: Vec<Listener>,
    poll: Poll,
    /// Listeners that are to open their socket.
    to_open: VecDeque<usize>,
    /// Listeners whose socket may have something to read.
    ready: Vec<usize>,
    scratch: Box<[u8]>,
    tally: Tally,
}

impl Swarm {
    pub fn new(server: &TestServer) -> Self {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        Self {
            address: server.address,
            listeners: Vec::new(),
            poll: Poll::new().unwrap(),
            to_open: VecDeque::new(),
            ready: Vec::new(),
            scratch: vec![0; 64 * 1024].into(),
            tally: Tally::default(),
        }
    }

    /// Adds a listener to these rooms, from now on; its number.
    pub fn add(&mut self, pace: Pace, channels: &[&str]) -> usize {
        let rooms = channels.iter().map(|channel| listener::Room::new(channel, None)).collect();
        self.add_listener(Listener::new(pace, rooms))
    }

    /// Adds a listener that resumes a room behind `offset`.
    pub fn add_resuming(&mut self, pace: Pace, channel: &str, offset: u64, epoch: &str) -> usize {
        let room = listener::Room::new(channel, Some((offset, epoch)));
        self.add_listener(Listener::new(pace, vec![room]))
    }

    fn add_listener(&mut self, listener: Listener) -> usize {
        self.listeners.push(listener);
        self.to_open.push_back(self.listeners.len() - 1);
        self.listeners.len() - 1
    }

    /// Cuts the connections of these listeners without a word, all at once.
    pub fn drop_all(&mut self, range: Range<usize>) {
        for listener in &mut self.listeners[range] {
            drop(listener.disconnect());
        }
    }

    /// Opens them again; they resume their rooms where they were cut off.
    pub fn reopen(&mut self, range: Range<usize>) {
        for listener in &mut self.listeners[range.clone()] {
            listener.resume_later();
        }
        self.to_open.extend(range);
    }

    /// Changes how fast a listener reads.
    pub fn set_pace(&mut self, index: usize, pace: Pace) {
        let listener = &mut self.listeners[index];
        listener.set_pace(pace);
        if let Some(socket) = listener.socket() {
            SockRef::from(socket).set_recv_buffer_size(buffer_of(pace)).unwrap();
        }
        self.mark_ready(index);
    }

    /// Opens sockets, reads and answers until `done`. What counts against a hang is the time in which
    /// no listener that reads freely got anything.
    #[track_caller]
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let mut events = Events::with_capacity(4096);
        let mut seen = 0;
        let mut deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if self.tally.progress != seen {
                seen = self.tally.progress;
                deadline = Instant::now() + PATIENCE;
            }
            assert!(Instant::now() < deadline, "it never came to this: {what}; {}", self.state());
            self.turn(&mut events);
        }
    }

    /// All listeners of the range are in all their rooms.
    pub fn all_joined(&self, range: Range<usize>) -> bool {
        self.listeners[range].iter().all(|listener| listener.rooms.iter().all(|room| room.joined))
    }

    /// All listeners of the range have everything up to `head`, in all their rooms.
    pub fn all_at(&self, range: Range<usize>, head: u64) -> bool {
        self.listeners[range].iter().all(|listener| listener.is_at(head))
    }

    /// Messages that listeners got so far, all of them in order and without a gap.
    pub fn deliveries(&self) -> u64 {
        self.tally.deliveries
    }

    /// Messages that those who read freely from their beginning got by pushes so far.
    pub fn prompt_deliveries(&self) -> u64 {
        self.tally.prompt
    }

    /// How long those took, in microseconds; begins anew.
    pub fn take_lags(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.tally.lags)
    }

    fn state(&self) -> String {
        let open = self.listeners.iter().filter(|listener| listener.socket().is_some()).count();
        let joined = (0..self.listeners.len()).filter(|index| self.all_joined(*index..index + 1)).count();
        let heads = self.listeners.iter().flat_map(|listener| listener.rooms.iter().map(|room| room.last));
        format!(
            "{open} of {} open, {joined} joined, {} waiting, offsets {:?}..={:?}",
            self.listeners.len(),
            self.to_open.len(),
            heads.clone().min(),
            heads.max(),
        )
    }

    fn turn(&mut self, events: &mut Events) {
        self.open_some();
        let busy = self.ready.iter().any(|index| self.listeners[*index].allowance() == usize::MAX);
        let timeout = if busy { Duration::ZERO } else { TURN };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            polled => polled.unwrap(),
        }
        for event in events.iter() {
            let Token(index) = event.token();
            if event.is_writable() {
                self.flush(index);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.mark_ready(index);
            }
        }
        for index in std::mem::take(&mut self.ready) {
            self.listeners[index].ready = false;
            if self.read(index) {
                self.mark_ready(index);
            }
        }
    }

    fn mark_ready(&mut self, index: usize) {
        if !std::mem::replace(&mut self.listeners[index].ready, true) {
            self.ready.push(index);
        }
    }

    fn open_some(&mut self) {
        while self.tally.handshakes < HANDSHAKES_MAX {
            let Some(index) = self.to_open.pop_front() else { return };
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(buffer_of(self.listeners[index].pace)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let source = Ipv4Addr::new(127, 0, 1, 1 + (index % SOURCE_ADDRESSES) as u8);
            socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
            match socket.connect(&self.address.into()) {
                Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                    panic!("listener {index} does not reach the server: {error}")
                }
                _ => {}
            }
            let socket = TcpStream::from(socket);
            let fd = socket.as_raw_fd();
            // Closing a socket takes it out of the poll as well.
            let mut source = SourceFd(&fd);
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut source, Token(index), interest).unwrap();
            self.listeners[index].connect(socket, self.address);
            self.tally.handshakes += 1;
        }
    }

    /// Writes what waits to be written.
    fn flush(&mut self, index: usize) {
        let (socket, out) = self.listeners[index].output();
        let Some(socket) = socket else { return };
        while !out.is_empty() {
            match socket.write(out) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The next read tells what happened.
                Err(_) => return,
            }
        }
    }

    /// Reads once, as much as the pace allows; true if there may be more.
    fn read(&mut self, index: usize) -> bool {
        let listener = &mut self.listeners[index];
        let most = listener.allowance().min(self.scratch.len());
        let Some(socket) = listener.socket() else { return false };
        if most == 0 {
            return true;
        }
        let count = match (&mut &*socket).read(&mut self.scratch[..most]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("listener {index}: {error}"),
        };
        let goes_on = listener.feed(index, &self.scratch[..count], &mut self.tally);
        if !goes_on {
            drop(listener.disconnect());
        }
        self.flush(index);
        goes_on
    }
}

/// Tells a thread that publishes without an end to stop; also when the test fails, which would wait
/// for the thread for ever otherwise.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn buffer_of(pace: Pace) -> usize {
    if pace == Pace::Free { 256 * 1024 } else { SMALL_BUFFER_BYTES }
}

/// Memory of the server, in bytes.
pub fn resident_bytes(server: &TestServer) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The value below which `percent` of all are.
pub fn percentile(values: &mut [u32], percent: usize) -> u32 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
