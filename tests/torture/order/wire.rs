//! A WebSocket client that is quick rather than thorough: it splits frames and leaves the rest to its
//! user. The texts themselves are the matter of the tests in `tests/server`.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::journal::Alarm;
use crate::support::PATIENCE;
use crate::support::websocket::{TEXT, WebSocket, frame};

/// How often a reader that gets nothing looks whether there is anything to wait for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Receive buffer of the kernel: small, so that a reader that stops is soon noticed.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;

/// The same at the end. Loopback sends 64 KiB at a time, which a smaller buffer takes in pieces, each
/// of them after a timer of the kernel's.
const HURRY_BUFFER_BYTES: usize = 1024 * 1024;

/// See the module.
pub struct Wire<'a> {
    websocket: WebSocket,
    alarm: &'a Alarm,
    received: Vec<u8>,
    /// What of `received` was given out already.
    taken: usize,
}

impl<'a> Wire<'a> {
    /// A connected client of this user.
    pub fn open(address: std::net::SocketAddr, user: &str, alarm: &'a Alarm) -> Self {
        let websocket = WebSocket::open(address);
        SockRef::from(&websocket.socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        websocket.socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        let mut wire = Self { websocket, alarm, received: Vec::new(), taken: 0 };
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
        self.websocket.send_bytes(&frame(TEXT, true, true, text.as_bytes()));
    }

    /// The next text frame; false when none came for a moment.
    #[track_caller]
    pub fn read_frame(&mut self, text: &mut Vec<u8>) -> bool {
        loop {
            if let Some((start, length)) = head_of(&self.received[self.taken..]) {
                let start = self.taken + start;
                if self.received.len() >= start + length {
                    text.clear();
                    text.extend_from_slice(&self.received[start..start + length]);
                    assert_eq!(self.received[self.taken], 0x80 | TEXT, "{}", String::from_utf8_lossy(text));
                    self.taken = start + length;
                    return true;
                }
            }
            if !self.fill() {
                return false;
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

    fn fill(&mut self) -> bool {
        self.received.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; 32 * 1024];
        match self.websocket.socket.read(&mut chunk) {
            Ok(0) => panic!("the server closed the connection"),
            Ok(count) => self.received.extend_from_slice(&chunk[..count]),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return false,
                ErrorKind::Interrupted => {}
                _ => panic!("the socket failed: {error}"),
            },
        }
        true
    }
}

/// Where the payload of a server's frame begins, and how long it is.
fn head_of(bytes: &[u8]) -> Option<(usize, usize)> {
    Some(match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    })
}
