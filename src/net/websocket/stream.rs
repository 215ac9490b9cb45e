//! The stream that tungstenite is given: it reads from the socket and writes into the outbox.
//!
//! So the only writer of the socket is the outbox, and frames of the reader and of workers cannot
//! interleave. With a write buffer of 0 tungstenite hands over each pong and close as one whole
//! frame.
//!
//! tungstenite reads until a message is whole, however long its bytes take. So a deadline is looked at
//! before every read of the socket: reading ends in time whatever the client sends.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::net::RecvFlags;

use super::progress::Progress;
use crate::limits::MESSAGE_DEADLINE;
use crate::outbox::{Outbox, Push, frame as frames};

/// Code noted for a connection that the client closed.
const CLOSED_BY_CLIENT: u16 = 1000;

/// Lateness of a read timeout up to which the socket's timeout is left as it is; saves a system call
/// on most reads of a busy connection.
const TIMEOUT_SLACK: Duration = Duration::from_millis(20);

/// Both directions of one WebSocket: reads from the socket, writes into its outbox.
#[derive(Debug)]
pub(super) struct SocketStream {
    outbox: Arc<Outbox>,
    /// Reads wait for bytes, until `deadline`.
    pub(super) blocking: bool,
    /// The moment from which a read fails with `TimedOut`, whatever the socket holds.
    pub(super) deadline: Option<Instant>,
    /// The socket's read timeout.
    timeout: Option<Duration>,
    progress: Progress,
    /// Arrival of the first byte of a message that is not whole yet.
    message_since: Option<Instant>,
}

impl SocketStream {
    /// A stream whose reader already has the bytes `early`.
    pub(super) fn new(outbox: Arc<Outbox>, early: &[u8]) -> Self {
        let mut stream = Self {
            outbox,
            blocking: true,
            deadline: None,
            timeout: None,
            progress: Progress::default(),
            message_since: None,
        };
        stream.pass(early, Instant::now());
        stream
    }

    /// True when the client takes longer than [`MESSAGE_DEADLINE`] for one message.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.message_deadline().is_some_and(|deadline| deadline <= now)
    }

    fn message_deadline(&self) -> Option<Instant> {
        self.message_since.map(|since| since + MESSAGE_DEADLINE)
    }

    fn pass(&mut self, bytes: &[u8], now: Instant) {
        if self.progress.pass(bytes) {
            self.message_since = None;
        }
        if self.progress.is_inside() {
            self.message_since.get_or_insert(now);
        }
        debug_assert_eq!(
            self.message_since.is_some(),
            self.progress.is_inside(),
            "a message that is not whole has a deadline"
        );
    }

    /// Makes a read of the socket end at the next deadline, or a little later.
    fn set_timeout(&mut self, socket: &TcpStream, now: Instant) -> io::Result<()> {
        let deadline = self.deadline.into_iter().chain(self.message_deadline()).min();
        let left = deadline.map(|at| at.saturating_duration_since(now));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let wanted = left.map(|left| left.max(Duration::from_millis(1)));
        let good_enough = match (self.timeout, wanted) {
            (None, None) => true,
            (Some(set), Some(wanted)) => set <= wanted + TIMEOUT_SLACK && set * 2 >= wanted,
            _ => false,
        };
        if self.blocking && !good_enough {
            socket.set_read_timeout(wanted)?;
            self.timeout = wanted;
        }
        Ok(())
    }
}

impl Read for SocketStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outbox = self.outbox.clone();
        let Some(socket) = outbox.socket() else { return Ok(0) };
        if outbox.ended().is_some() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let now = Instant::now();
        self.set_timeout(socket, now)?;
        let flags = if self.blocking { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (count, _) = rustix::net::recv(socket, &mut *buffer, flags)?;
        self.pass(&buffer[..count], now);
        Ok(count)
    }
}

impl Write for SocketStream {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let bytes = Bytes::copy_from_slice(frame);
        if frames::is_close(frame) {
            self.outbox.finish_with(CLOSED_BY_CLIENT, &bytes);
        } else if self.outbox.pong(&bytes) == Push::Closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
