//! Thousands of raw sockets on one thread, for peers that do not keep to the protocol: they send what they are
//! told, byte by byte if need be, read or do not, and never hang up by themselves.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use crate::support::PATIENCE;
use crate::support::frames::{CLOSE, Received, TEXT, frame, upgrade_request};
use crate::support::server::TestServer;
use crate::support::websocket::PATH;

/// Source addresses in turn, so that the ports of one do not run out.
const SOURCE_ADDRESSES: usize = 16;

/// Receive buffer of a peer that does not read, which the kernel doubles.
const SMALL_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes read from one socket before others have their turn.
const READ_BYTES: usize = 64 * 1024;

/// A socket and what came of it.
pub struct Peer {
    socket: TcpStream,
    pub received: Received,
    /// Bytes that are to be sent and were not taken yet.
    out: Vec<u8>,
    /// False: it takes nothing, as if it had hung.
    pub reads: bool,
    /// The server has closed its side, or reset the connection.
    pub ended: bool,
    /// The server takes nothing more.
    refused: bool,
    /// Code of the close frame that came.
    pub closed: Option<u16>,
}

/// Many of them.
#[derive(Default)]
pub struct Crowd {
    pub peers: Vec<Peer>,
    longest_wait: Duration,
}

impl Peer {
    fn open(address: SocketAddr, number: usize, reads: bool) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        if !reads {
            socket.set_recv_buffer_size(SMALL_BUFFER_BYTES).unwrap();
        }
        let source = Ipv4Addr::new(127, 0, 2, 1 + (number % SOURCE_ADDRESSES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect_timeout(&address.into(), PATIENCE).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket: socket.into(),
            received: Received::default(),
            out: Vec::new(),
            reads: true,
            ended: false,
            refused: false,
            closed: None,
        }
    }

    /// Sends what the socket takes now; the rest follows when the crowd has its turns.
    pub fn send(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.flush();
    }

    pub fn send_text(&mut self, text: &str) {
        self.send(&frame(TEXT, true, true, text.as_bytes()));
    }

    fn flush(&mut self) {
        while !self.out.is_empty() && !self.refused {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.refused = true,
            }
        }
    }

    /// Reads what is there, up to a bound.
    pub fn fill(&mut self) {
        let mut chunk = [0; READ_BYTES];
        if self.ended || !self.reads {
            return;
        }
        match self.socket.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(count) => self.received.add(&chunk[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.ended = true,
        }
    }

    /// Reads over the frames that came: the lines of texts, and the code of the close frame.
    pub fn take_frames(&mut self, mut on_line: impl FnMut(&str)) {
        while let Some((opcode, payload)) = self.received.next_frame() {
            match opcode {
                TEXT => std::str::from_utf8(payload).unwrap().lines().for_each(&mut on_line),
                CLOSE => self.closed = Some(u16::from_be_bytes(payload[..2].try_into().unwrap())),
                _ => {}
            }
        }
    }
}

impl Crowd {
    /// Opens so many sockets more; those that do not read begin with it behind the upgrade.
    pub fn open(&mut self, server: &TestServer, count: usize, reads: bool) {
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        for _ in 0..count {
            self.peers.push(Peer::open(server.address, self.peers.len(), reads));
        }
    }

    /// Makes all of them WebSockets.
    #[track_caller]
    pub fn upgrade(&mut self, server: &TestServer) {
        let request = upgrade_request(server.address, PATH, "");
        self.peers.iter_mut().for_each(|peer| peer.send(request.as_bytes()));
        let mut upgraded = vec![false; self.peers.len()];
        self.run_until("all are WebSockets", |crowd| {
            for (peer, upgraded) in crowd.peers.iter_mut().zip(&mut upgraded) {
                if !*upgraded && let Some(head) = peer.received.next_head() {
                    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                    *upgraded = true;
                }
            }
            upgraded.iter().all(|upgraded| *upgraded)
        });
    }

    /// Sends each a text and waits until each has got so many lines of answers.
    #[track_caller]
    pub fn ask(&mut self, lines: usize, text: impl Fn(usize) -> String) {
        self.peers.iter_mut().enumerate().for_each(|(number, peer)| peer.send_text(&text(number)));
        let mut came = vec![0; self.peers.len()];
        self.run_until("all are answered", |crowd| {
            for (peer, came) in crowd.peers.iter_mut().zip(&mut came) {
                peer.take_frames(|line| {
                    assert!(!line.contains(r#""error""#), "{line}");
                    *came += usize::from(line.starts_with(r#"{"id":"#));
                });
                assert_eq!((peer.ended, peer.closed), (false, None), "the server hung up");
            }
            came.iter().all(|came| *came >= lines)
        });
    }

    /// Reads and writes wherever that is possible.
    pub fn turn(&mut self) {
        let began = Instant::now();
        for peer in &mut self.peers {
            peer.flush();
            peer.fill();
        }
        self.note(began.elapsed());
    }

    /// The same until a condition holds.
    #[track_caller]
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "it never came to this: {what}; {} ended", self.ended());
            self.turn();
            let began = Instant::now();
            thread::sleep(Duration::from_millis(2));
            self.note(began.elapsed());
        }
    }

    /// The longest of the turns so far, and of the questions between those of a drip: how long anything may have to
    /// wait for its processor, here or at the server.
    pub fn longest_wait(&self) -> Duration {
        self.longest_wait
    }

    fn note(&mut self, wait: Duration) {
        self.longest_wait = self.longest_wait.max(wait);
    }

    /// How many the server has hung up on, as far as they have read.
    pub fn ended(&self) -> usize {
        self.peers.iter().filter(|peer| peer.ended).count()
    }

    /// Sends one byte after the other of `message(peer)`, over and over, one each `pause`, until the server
    /// has given back every place but the one of him who asks; the time that took, to within a pause.
    #[track_caller]
    pub fn drip(
        &mut self,
        server: &TestServer,
        pause: Duration,
        message: impl Fn(usize, usize) -> u8,
    ) -> Duration {
        let began = Instant::now();
        for place in 0.. {
            let next = began + pause * (place as u32 + 1);
            for (number, peer) in self.peers.iter_mut().enumerate() {
                // Whoever is told to go drips on until the server gives him up.
                if peer.out.is_empty() {
                    peer.send(&[message(number, place)]);
                }
            }
            self.turn();
            let asked = Instant::now();
            let left = server.metric("sockets");
            self.note(asked.elapsed());
            if left == 1 {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{left} sockets are left");
            thread::sleep(next.saturating_duration_since(Instant::now()));
            self.note(next.elapsed());
        }
        began.elapsed()
    }
}

/// Tells which peers got something, in one wait for all.
pub struct Alarms {
    poll: Poll,
    events: Events,
}

impl Alarms {
    pub fn of(crowd: &Crowd) -> Self {
        let poll = Poll::new().unwrap();
        for (number, peer) in crowd.peers.iter().enumerate() {
            let fd = peer.socket.as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE).unwrap();
        }
        Self { poll, events: Events::with_capacity(1024) }
    }

    /// The numbers of those that got something, waiting for it so long at most. Each is told once.
    pub fn wait(&mut self, patience: Duration) -> Vec<usize> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Vec::new(),
            polled => polled.unwrap(),
        }
        self.events.iter().map(|event| event.token().0).collect()
    }
}

/// Looks at a server's threads and memory all the time and keeps the most of each.
pub struct Watch {
    most: Arc<Most>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Most {
    threads: AtomicU64,
    resident_bytes: AtomicU64,
    stopped: AtomicBool,
}

impl Watch {
    pub fn new(server: &TestServer) -> Self {
        let (most, pid) = (Arc::new(Most::default()), server.pid());
        let shared = most.clone();
        let watching = move || {
            while !shared.stopped.load(Ordering::Relaxed) {
                // It is gone when it was told to stop.
                let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
                let number = |name: &str| {
                    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
                    line.split_whitespace().next()?.parse::<u64>().ok()
                };
                shared.threads.fetch_max(number("Threads:").unwrap_or(0), Ordering::Relaxed);
                let resident = number("VmRSS:").unwrap_or(0) * 1024;
                shared.resident_bytes.fetch_max(resident, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        };
        Self { most, thread: Some(thread::spawn(watching)) }
    }

    /// Most threads it had at a moment.
    pub fn threads(&self) -> u64 {
        self.most.threads.load(Ordering::Relaxed)
    }

    /// Most memory it had.
    pub fn resident_bytes(&self) -> u64 {
        self.most.resident_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.most.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
