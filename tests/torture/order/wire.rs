//! A client that is quick rather than thorough: it gives out frames and leaves their texts to its
//! user. The texts themselves are the matter of the tests in `tests/server`.

use std::time::{Duration, Instant};

use socket2::SockRef;

use super::journal::Alarm;
use crate::support::PATIENCE;
use crate::support::frames::TEXT;
use crate::support::websocket::{Came, WebSocket};

/// How often a reader that gets nothing looks whether there is anything to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Receive buffer of the kernel: small, so that a reader that stops is soon noticed.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;

/// The same at the end. Loopback sends 64 KiB at a time, which a smaller buffer takes in pieces, each
/// of them after a timer of the kernel's.
const HURRY_BUFFER_BYTES: usize = 1024 * 1024;

/// A connected client with a small receive buffer.
pub struct Wire<'a> {
    websocket: WebSocket,
    alarm: &'a Alarm,
}

impl<'a> Wire<'a> {
    /// A connected client of this user.
    pub fn open(address: std::net::SocketAddr, user: &str, alarm: &'a Alarm) -> Self {
        let websocket = WebSocket::open(address);
        SockRef::from(&websocket.socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        websocket.socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let mut wire = Self { websocket, alarm };
        wire.send(&format!(r#"{{"id":1,"connect":{{"data":{{"user":"{user}"}}}}}}"#));
        let mut text = Vec::new();
        wire.expect_frame(&mut text);
        assert!(text.starts_with(br#"{"id":1,"connect":{"#), "{}", String::from_utf8_lossy(&text));
        wire
    }

    /// From now on it reads as fast as it can: the run is over, and what it is behind is still owed.
    pub fn hurry(&self) {
        SockRef::from(&self.websocket.socket).set_recv_buffer_size(HURRY_BUFFER_BYTES).unwrap();
    }

    pub fn send(&mut self, text: &str) {
        self.websocket.send_text(text);
    }

    /// The next text frame; false when none came for a moment.
    #[track_caller]
    pub fn read_frame(&mut self, text: &mut Vec<u8>) -> bool {
        loop {
            if let Some((opcode, payload)) = self.websocket.received.next_frame() {
                text.clear();
                text.extend_from_slice(payload);
                assert_eq!(opcode, TEXT, "{}", String::from_utf8_lossy(text));
                return true;
            }
            match self.websocket.fill() {
                Came::Bytes => {}
                Came::Nothing => return false,
                Came::End => panic!("the server closed the connection"),
            }
        }
    }

    /// The next text frame, which must come.
    #[track_caller]
    pub fn expect_frame(&mut self, text: &mut Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        while !self.read_frame(text) {
            self.alarm.check();
            assert!(Instant::now() < deadline, "an answer never came");
        }
    }
}
