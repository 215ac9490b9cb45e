//! Loopback connections with a reader at the far end that discards what comes and says when it has
//! read so many bytes.
//!
//! The reader is a process of its own, the bench executed once more: it needs a descriptor per
//! connection just as the sending side does, and one process may not have enough for both. It ends
//! with the control connection, so it never outlives the bench.

use std::env;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};

use super::temp::PATIENCE;

/// Names the address and the number of connections to a process that shall be the reader.
const TASK: &str = "ROOMCAST_BENCH_READER";

/// Descriptors beside the connections.
const SPARE_DESCRIPTORS: u64 = 200;

/// The control connection among the reader's sources.
const CONTROL: Token = Token(usize::MAX);

/// The sending ends of connections, in `ends`, and the way to ask their reader.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) ends: Vec<TcpStream>,
    control: TcpStream,
    reader: Child,
}

impl Sockets {
    /// So many open connections.
    pub(crate) fn open(count: usize) -> Self {
        raise_file_limit(count as u64 + SPARE_DESCRIPTORS);
        let listener = listen();
        let address = listener.local_addr().unwrap();
        let mut reader = Command::new(env::current_exe().unwrap())
            .env(TASK, format!("{address} {count}"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let control = accept(&listener, &mut reader);
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let ends = (0..count).map(|_| accept(&listener, &mut reader)).collect();
        Self { ends, control, reader }
    }

    /// Blocks until the reader has read so many bytes, counted from the beginning and over all
    /// connections.
    pub(crate) fn await_total(&mut self, bytes: u64) {
        self.control.write_all(&bytes.to_le_bytes()).unwrap();
        let mut total = [0; 8];
        self.control.read_exact(&mut total).expect("the reader did not get all bytes in time");
        assert_eq!(u64::from_le_bytes(total), bytes, "somebody else wrote to the connections");
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = self.reader.wait();
    }
}

/// A queue for the connections that is as long as the system allows: a full one would make the
/// reader wait a second before it tries again.
fn listen() -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true).unwrap();
    listener
}

fn accept(listener: &TcpListener, reader: &mut Child) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).unwrap();
                socket.set_nodelay(true).unwrap();
                return socket;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(reader.try_wait().unwrap().is_none(), "the reader has ended");
                assert!(Instant::now() < deadline, "the reader does not connect");
                thread::sleep(Duration::from_micros(100));
            }
            Err(error) => panic!("accept: {error}"),
        }
    }
}

fn raise_file_limit(wanted: u64) {
    let got = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(got >= wanted, "{wanted} open files are needed, the hard limit is {got}: raise it (ulimit -Hn)");
}

/// Is and remains the reader when this process was started as one; true when that is over and the
/// process shall end. Every `main` of a bench with sockets calls this first.
pub(crate) fn serve_as_reader() -> bool {
    let Ok(task) = env::var(TASK) else { return false };
    let (address, count) = task.split_once(' ').unwrap();
    let count = count.parse().unwrap();
    raise_file_limit(count as u64 + SPARE_DESCRIPTORS);
    Reader::connect(address.parse().unwrap(), count).run();
    true
}

struct Reader {
    poll: Poll,
    control: TcpStream,
    sockets: Vec<TcpStream>,
    buffer: Vec<u8>,
    total: u64,
    /// The bench waits for this total.
    wanted: Option<u64>,
}

impl Reader {
    fn connect(address: SocketAddr, count: usize) -> Self {
        let poll = Poll::new().unwrap();
        let connect = |token| {
            let socket = TcpStream::connect(address).unwrap();
            // Nothing of ten thousand connections shall linger in the system after the bench.
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            socket.set_nonblocking(true).unwrap();
            let registry = poll.registry();
            registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE).unwrap();
            socket
        };
        let control = connect(CONTROL);
        let sockets = (0..count).map(|index| connect(Token(index))).collect();
        Self { poll, control, sockets, buffer: vec![0; 256 * 1024], total: 0, wanted: None }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.unwrap(),
            }
            for event in &events {
                if event.token() != CONTROL {
                    self.total += discard(&mut self.sockets[event.token().0], &mut self.buffer);
                } else if !self.listen_to_bench() {
                    return;
                }
            }
            if self.wanted.is_some_and(|wanted| self.total >= wanted) {
                self.wanted = None;
                if self.control.write_all(&self.total.to_le_bytes()).is_err() {
                    return;
                }
            }
        }
    }

    /// False when the bench is over.
    fn listen_to_bench(&mut self) -> bool {
        let mut wanted = [0; 8];
        match self.control.read(&mut wanted) {
            Ok(8) => {
                self.wanted = Some(u64::from_le_bytes(wanted));
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
            Ok(_) => false,
        }
    }
}

/// Reads what is there; a short read shows that there is no more.
fn discard(socket: &mut TcpStream, buffer: &mut [u8]) -> u64 {
    let mut total = 0;
    loop {
        match socket.read(buffer) {
            Ok(count) => {
                total += count as u64;
                if count < buffer.len() {
                    return total;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if would_end(&error) => return total,
            Err(error) => panic!("read: {error}"),
        }
    }
}

fn would_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionReset)
}
