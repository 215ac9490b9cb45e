//! Who publishes for a swarm: numbered messages that carry the time of their sending.

use std::sync::OnceLock;
use std::time::Instant;

use crate::support::client::Client;
use crate::support::server::TestServer;

/// Bytes of one frame of publishes; the server takes 512 KiB.
const FRAME_BYTES: usize = 256 * 1024;

/// Most publishes in one frame.
const FRAME_MESSAGES: usize = 512;

/// A client that publishes to some rooms, and nobody else does, so that the number in a message is
/// its offset.
pub struct Writer {
    client: Client,
    rooms: Vec<(String, u64)>,
    pad: String,
}

impl Writer {
    /// `bytes` is the size of a message.
    pub fn new(server: &TestServer, rooms: &[&str], bytes: usize) -> Self {
        let rooms = rooms.iter().map(|room| ((*room).to_owned(), 0)).collect();
        Self { client: server.connect("writer"), rooms, pad: "x".repeat(bytes) }
    }

    /// The same writer on a new connection.
    pub fn reconnect(&mut self, server: &TestServer) {
        self.client = server.connect("writer");
    }

    /// The last offset of the room, if all of them got the same.
    pub fn head(&self) -> u64 {
        self.rooms[0].1
    }

    /// Publishes so many messages to each of the rooms; all are acknowledged when it is done.
    #[track_caller]
    pub fn publish(&mut self, count: usize) {
        let mut left = count * self.rooms.len();
        let mut room = 0;
        while left > 0 {
            let frame = left.min(FRAME_MESSAGES).min(FRAME_BYTES / (self.pad.len() + 128)).max(1);
            let (mut ids, mut texts) = (Vec::new(), Vec::new());
            for _ in 0..frame {
                let (id, text) = self.next(room % self.rooms.len());
                ids.push(id);
                texts.push(text);
                room += 1;
            }
            self.client.send(&texts.join("\n"));
            for id in ids {
                assert_eq!(self.client.next_reply(), format!(r#"{{"id":{id},"publish":{{}}}}"#));
            }
            left -= frame;
        }
    }

    fn next(&mut self, room: usize) -> (u32, String) {
        let (channel, head) = &mut self.rooms[room];
        *head += 1;
        let (number, at, pad) = (*head, now(), &self.pad);
        let data = format!(r#"{{"n":{number},"at":{at},"pad":"{pad}"}}"#);
        self.client.with_id(&format!(r#"{{"publish":{{"channel":"{channel}","data":{data}}}}}"#))
    }
}

/// Microseconds since the first message of this process.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// Microseconds since a message that was sent `at`.
pub fn lag(at: u64) -> u32 {
    now().saturating_sub(at) as u32
}
