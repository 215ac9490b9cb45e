//! The stream that tungstenite is given: it reads from the socket and writes into the outbox.
//!
//! So the only writer of the socket is the outbox, and frames of the reader and of workers cannot
//! interleave. With a write buffer of 0 tungstenite hands over each pong and close as one whole
//! frame.
//!
//! tungstenite reads until a message is whole. So the bytes of a turn are counted here: reading ends whatever
//! the client sends, and goes on in the next turn.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustix::net::RecvFlags;

use super::progress::Progress;
use crate::limits::{MESSAGE_DEADLINE, TURN_BYTES_MAX};
use crate::outbox::{Outbox, Push, frame as frames};

/// Code noted for a connection that the client closed.
const CLOSED_BY_CLIENT: u16 = 1000;

/// Both directions of one WebSocket: reads from the socket, writes into its outbox.
#[derive(Debug)]
pub(super) struct SocketStream {
    outbox: Arc<Outbox>,
    /// Bytes that this turn may still read.
    left: usize,
    /// The socket was read empty in this turn.
    drained: bool,
    progress: Progress,
    /// Arrival of the first byte of a message that is not whole yet.
    message_since: Option<Instant>,
    /// Bytes of that message so far, with at most one read of what came before it.
    message_bytes: usize,
}

impl SocketStream {
    /// A stream whose reader already has the bytes `early`.
    pub(super) fn new(outbox: Arc<Outbox>, early: &[u8]) -> Self {
        let progress = Progress::default();
        let mut stream = Self {
            outbox,
            left: TURN_BYTES_MAX,
            drained: false,
            progress,
            message_since: None,
            message_bytes: 0,
        };
        stream.pass(early, Instant::now());
        stream
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        (self.left, self.drained) = (TURN_BYTES_MAX, false);
    }

    /// True when the turn has read as much as it may, so that the socket may hold more.
    pub(super) fn is_turn_full(&self) -> bool {
        self.left == 0
    }

    /// True between the first and the last byte of a message.
    pub(super) fn is_inside_message(&self) -> bool {
        self.progress.is_inside()
    }

    /// The moment by which the message under way must be whole: [`MESSAGE_DEADLINE`] after its first byte.
    pub(super) fn message_deadline(&self) -> Option<Instant> {
        self.message_since.map(|since| since + MESSAGE_DEADLINE)
    }

    /// Bytes of the message that is not whole yet.
    pub(super) fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    fn pass(&mut self, bytes: &[u8], now: Instant) {
        if self.progress.pass(bytes) {
            (self.message_since, self.message_bytes) = (None, 0);
        }
        if self.progress.is_inside() {
            self.message_since.get_or_insert(now);
            self.message_bytes += bytes.len();
        }
        debug_assert_eq!(
            self.message_since.is_some(),
            self.progress.is_inside(),
            "a message that is not whole has a deadline"
        );
    }
}

impl Read for SocketStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outbox = self.outbox.clone();
        let Some(socket) = outbox.socket() else { return Ok(0) };
        if outbox.ended().is_some() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let most = buffer.len().min(self.left);
        if most == 0 || self.drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (count, _) = rustix::net::recv(socket, &mut buffer[..most], RecvFlags::DONTWAIT)?;
        // Less than was asked for is all there is; what comes later is told, for arming is level-triggered.
        self.drained = count > 0 && count < most;
        self.left -= count;
        self.pass(&buffer[..count], Instant::now());
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
