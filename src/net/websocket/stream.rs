//! The stream that tungstenite is given: reads come from the socket, writes go into the outbox.
//!
//! So the only writer of the socket is the outbox, and frames of the reader and of workers cannot
//! interleave. With a write buffer of 0 tungstenite hands over each pong and close as one whole
//! frame.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use rustix::net::RecvFlags;

use crate::outbox::{Outbox, Push, frame as frames};

/// Code noted for a connection that the client closed.
const CLOSED_BY_CLIENT: u16 = 1000;

/// Both directions of one WebSocket: reads from the socket, writes into its outbox.
#[derive(Debug)]
pub(super) struct SocketStream {
    outbox: Arc<Outbox>,
    /// Reads wait for bytes, up to the socket's read timeout.
    pub(super) blocking: bool,
}

impl SocketStream {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, blocking: true }
    }
}

impl Read for SocketStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(socket) = self.outbox.socket() else { return Ok(0) };
        let flags = if self.blocking { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (count, _) = rustix::net::recv(socket, buffer, flags)?;
        Ok(count)
    }
}

impl Write for SocketStream {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        debug_assert!(is_control_frame(frame), "the outbox queues whole frames, not parts of some");
        let bytes = Bytes::copy_from_slice(frame);
        if frames::is_close(frame) {
            self.outbox.finish_with(CLOSED_BY_CLIENT, &bytes);
        } else if self.outbox.reply(&bytes) == Push::Closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// True for one whole control frame of a server: two bytes of head, then as many as the second says.
fn is_control_frame(bytes: &[u8]) -> bool {
    matches!(bytes, [first, length, payload @ ..] if first & 0x88 == 0x88 && payload.len() == usize::from(*length))
}
