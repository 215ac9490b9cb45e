//! A non-blocking TCP socket of the load generator: writes are kept until the kernel takes them, reads
//! come with the time at which they were there to be read.

#[cfg(not(target_os = "linux"))]
use std::io::Read;
use std::io::{self, Write};
#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;
use std::net::{Shutdown, SocketAddr};
use std::time::SystemTime;
#[cfg(target_os = "linux")]
use std::{io::IoSliceMut, os::fd::AsRawFd};

use mio::net::TcpStream;
#[cfg(target_os = "linux")]
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns};
use socket2::{Domain, Protocol, Type};

/// Connections made from one loopback address before the next one is taken: an address has about
/// 28,000 ports.
#[cfg(target_os = "linux")]
const CONNECTIONS_PER_ADDRESS: usize = 8000;

/// Bytes that wait to be sent, about; what is due beyond waits for the server, and counts from when it
/// was due all the same.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// A socket, and what it has still to send.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    output: Vec<u8>,
    /// Bytes of `output` the kernel already took.
    written: usize,
}

impl Socket {
    /// Begins to connect the `number`th socket.
    pub(crate) fn open(address: SocketAddr, number: usize) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
        Ok(Self { stream: TcpStream::from_std(socket.into()), output: Vec::new(), written: 0 })
    }

    /// For the poller.
    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Ends both directions.
    pub(crate) fn shut_down(&mut self) {
        // An error only says that they had ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Where to append what is to be sent; [`flush`](Self::flush) sends it.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends as much as the kernel takes; the rest waits for the socket to be writable.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
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
        let fd = self.stream.as_raw_fd();
        let received = recvmsg::<()>(fd, &mut buffers, Some(&mut stamps), MsgFlags::empty())?;
        let stamp = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(SystemTime::UNIX_EPOCH + stamp.into()),
            _ => None,
        });
        Ok((received.bytes, stamp.unwrap_or_else(SystemTime::now)))
    }

    #[cfg(not(target_os = "linux"))]
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SystemTime)> {
        Ok((self.stream.read(buffer)?, SystemTime::now()))
    }
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
