//! One connection of the load generator: a non-blocking WebSocket and where it stands.

#[cfg(not(target_os = "linux"))]
use std::io::Read;
use std::io::{self, Write};
#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::time::SystemTime;
#[cfg(target_os = "linux")]
use std::{io::IoSliceMut, os::fd::AsRawFd};

use mio::net::TcpStream;
#[cfg(target_os = "linux")]
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections made from one loopback address before the next one is taken: an address has about
/// 28,000 ports.
#[cfg(target_os = "linux")]
const CONNECTIONS_PER_ADDRESS: usize = 8000;

/// Bytes that wait to be sent, about; what is due beyond waits for the server, and counts from when it
/// was due all the same.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// Offsets that one listener may miss at once.
const GAP_MAX: u64 = 1_000_000;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Waits for the answer to the handshake.
    Shaking,
    /// Waits for the reply to `connect`.
    Greeting,
    /// Waits for the reply to `subscribe`.
    Joining,
    Ready,
    /// Cut off; it will be back.
    Disconnected,
    Closed,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Listener {
        group: usize,
        room: usize,
    },
    /// Its place among the publishers of its thread.
    Publisher(usize),
}

/// A client of the server: its socket, how far it has come, and what it got.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) role: Role,
    pub(crate) stage: Stage,
    /// Bytes read that are no whole frame yet.
    pub(crate) input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` the kernel already took.
    written: usize,
    /// Epoch of the room, once it was told; a server may not tell positions.
    pub(crate) epoch: Option<String>,
    /// Offset of the last publication, or of the room at the subscription.
    pub(crate) last: u64,
    /// Offsets before `last` that did not arrive.
    pub(crate) missing: Vec<u64>,
    /// Publications that arrived, but for repeated ones.
    pub(crate) arrived: u64,
    /// The begin of a message that comes in several frames.
    pub(crate) partial: Vec<u8>,
}

impl Connection {
    /// Begins to connect the `number`th connection.
    pub(crate) fn open(address: SocketAddr, number: usize, role: Role) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // One thread plays the machines of thousands of listeners. A message was there when it reached
        // the socket, not when this thread got round to it.
        #[cfg(target_os = "linux")]
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        #[cfg(target_os = "linux")]
        if let SocketAddr::V4(v4) = address
            && v4.ip().is_loopback()
        {
            socket.bind(&SocketAddr::from((source(number), 0)).into())?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            // The kernel connects while we go on.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            socket: TcpStream::from_std(socket.into()),
            role,
            stage: Stage::Shaking,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            epoch: None,
            last: 0,
            missing: Vec::new(),
            arrived: 0,
            partial: Vec::new(),
        })
    }

    /// Ends the socket and keeps the position.
    pub(crate) fn cut_off(&mut self) {
        self.stage = Stage::Disconnected;
        // An error only says that it had ended already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Goes on where the connection before this one was.
    pub(crate) fn take_over(&mut self, before: Self) {
        (self.epoch, self.last, self.missing) = (before.epoch, before.last, before.missing);
        self.arrived = before.arrived;
    }

    /// Where to append what is to be sent; [`flush`](Self::flush) sends it.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends as much as the kernel takes; the rest waits for the socket to be writable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_pending(&error) => {
                    self.output.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// True while the server takes so little that nothing more should be appended.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() - self.written >= OUTPUT_BYTES_MAX
    }

    /// Reads once; `None` when there is nothing now. With the count comes the time at which the last
    /// of the bytes reached the socket.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<(usize, SystemTime)>> {
        loop {
            match self.receive(buffer) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => return Ok(Some(received)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_pending(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SystemTime)> {
        let mut stamps = [0; 64];
        let mut buffers = [IoSliceMut::new(buffer)];
        let fd = self.socket.as_raw_fd();
        let received = recvmsg::<()>(fd, &mut buffers, Some(&mut stamps), MsgFlags::empty())?;
        let stamp = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(SystemTime::UNIX_EPOCH + stamp.into()),
            _ => None,
        });
        Ok((received.bytes, stamp.unwrap_or_else(SystemTime::now)))
    }

    #[cfg(not(target_os = "linux"))]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SystemTime)> {
        Ok((self.socket.read(buffer)?, SystemTime::now()))
    }

    /// Notes a publication and says whether it came as it should.
    pub(crate) fn note(&mut self, offset: u64) -> Arrival {
        let expected = self.last + 1;
        let is_first = self.last == 0 && self.epoch.is_none();
        if is_first || offset == expected {
            self.last = offset;
            return Arrival::Next;
        }
        if offset > expected {
            if offset - expected > GAP_MAX {
                return Arrival::Absurd;
            }
            self.missing.extend(expected..offset);
            self.last = offset;
            return Arrival::Next;
        }
        match self.missing.iter().position(|missing| *missing == offset) {
            Some(place) => {
                self.missing.swap_remove(place);
                Arrival::Late
            }
            None => Arrival::Again,
        }
    }
}

/// How a publication came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Behind the last one, with or without a gap.
    Next,
    /// Behind a later one.
    Late,
    /// Not for the first time.
    Again,
    /// So far ahead that it cannot be true.
    Absurd,
}

/// Where the `number`th connection comes from. All of 127/8 is the loopback there. Each process takes
/// addresses of its own: the ports that a run before it used are taken for another minute.
#[cfg(target_os = "linux")]
fn source(number: usize) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = 1 + (number / CONNECTIONS_PER_ADDRESS) % 250;
    Ipv4Addr::new(127, high, low, host as u8)
}

fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn connection() -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Connection::open(listener.local_addr().unwrap(), 0, Role::Publisher(0)).unwrap()
    }

    #[test]
    fn without_a_position_the_first_offset_is_as_good_as_any() {
        let mut connection = connection();
        assert_eq!([57, 58, 60, 59, 58].map(|offset| connection.note(offset)), {
            use Arrival::{Again, Late, Next};
            [Next, Next, Next, Late, Again]
        });
        assert!(connection.missing.is_empty());
    }

    #[test]
    fn with_a_position_a_gap_before_the_first_offset_is_one_and_outlives_the_socket() {
        let mut before = connection();
        (before.epoch, before.last) = (Some("e".into()), 3);
        assert_eq!(before.note(6), Arrival::Next);
        before.cut_off();
        let mut after = connection();
        after.take_over(before);
        assert_eq!(after.missing, [4, 5]);
        assert_eq!([5, 6].map(|offset| after.note(offset)), [Arrival::Late, Arrival::Again]);
    }
}
