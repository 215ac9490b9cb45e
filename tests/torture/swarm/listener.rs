//! One connection of a swarm: what it says, and what it makes of what it hears.

use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::writer;
use crate::support::frames::{CLOSE, Received, TEXT, frame, upgrade_request};
use crate::support::websocket::PATH;

/// How fast a listener reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can.
    Free,
    /// So many bytes a second.
    BytesPerSecond(usize),
    /// Not at all, after it has joined its rooms.
    Stopped,
}

/// What all listeners count together.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) handshakes: usize,
    pub(super) deliveries: u64,
    pub(super) prompt: u64,
    pub(super) lags: Vec<u32>,
    /// What shows that a run is alive: replies, ends, and messages to those who read freely.
    pub(super) progress: u64,
}

/// A room of a listener.
pub struct Room {
    channel: String,
    pub epoch: String,
    /// The last offset it was given, or where it began.
    pub last: u64,
    pub joined: bool,
    recovers: bool,
    /// What the server said to the last wish to recover.
    pub recovered: Option<bool>,
    /// The code with which the server took the subscription away.
    pub unsubscribed: Option<u64>,
}

impl Room {
    pub(super) fn new(channel: &str, from: Option<(u64, &str)>) -> Self {
        let (last, epoch) = from.unwrap_or_default();
        Self {
            channel: channel.to_owned(),
            epoch: epoch.to_owned(),
            last,
            joined: false,
            recovers: from.is_some(),
            recovered: None,
            unsubscribed: None,
        }
    }

    fn command(&self, id: usize) -> String {
        let channel = &self.channel;
        if self.recovers {
            let (offset, epoch) = (self.last, &self.epoch);
            let from = format!(r#""recover":true,"offset":{offset},"epoch":"{epoch}""#);
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}",{from}}}}}"#)
        } else {
            format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#)
        }
    }

    /// A message, which must be the next one and hold what the writer put into that one.
    fn take(&mut self, listener: usize, offset: u64, number: u64) {
        let (channel, expected) = (&self.channel, self.last + 1);
        assert!(self.joined, "listener {listener} is not in {channel}, but got {offset}");
        assert_eq!((offset, number), (expected, expected), "listener {listener} in {channel}");
        self.last = offset;
    }
}

/// A connection that checks every message of its rooms.
pub struct Listener {
    pub pace: Pace,
    pub rooms: Vec<Room>,
    /// The code of the close frame, or 1006 if the connection ended without one.
    pub closed: Option<u16>,
    /// Being closed is what the test wants.
    pub may_be_closed: bool,
    pub(super) ready: bool,
    /// It has read freely from its beginning, so its times say something.
    prompt: bool,
    socket: Option<TcpStream>,
    upgraded: bool,
    input: Received,
    out: Vec<u8>,
    /// Since when it reads at its pace, and how many bytes it has read since.
    paced_since: Instant,
    paced_bytes: usize,
}

impl Listener {
    pub(super) fn new(pace: Pace, rooms: Vec<Room>) -> Self {
        Self {
            pace,
            rooms,
            closed: None,
            may_be_closed: false,
            ready: false,
            prompt: pace == Pace::Free,
            socket: None,
            upgraded: false,
            input: Received::default(),
            out: Vec::new(),
            paced_since: Instant::now(),
            paced_bytes: 0,
        }
    }

    pub fn is_at(&self, head: u64) -> bool {
        self.rooms.iter().all(|room| room.joined && room.last == head)
    }

    pub(super) fn socket(&self) -> Option<&TcpStream> {
        self.socket.as_ref()
    }

    pub(super) fn output(&mut self) -> (Option<&mut TcpStream>, &mut Vec<u8>) {
        (self.socket.as_mut(), &mut self.out)
    }

    pub(super) fn disconnect(&mut self) -> Option<TcpStream> {
        for room in &mut self.rooms {
            room.joined = false;
        }
        self.input = Received::default();
        self.out.clear();
        self.upgraded = false;
        self.socket.take()
    }

    pub(super) fn resume_later(&mut self) {
        for room in &mut self.rooms {
            (room.recovers, room.recovered) = (true, None);
        }
        self.closed = None;
    }

    /// Begins on a fresh socket, which may still be connecting.
    pub(super) fn connect(&mut self, socket: TcpStream, address: SocketAddr) {
        self.socket = Some(socket);
        self.out.extend_from_slice(upgrade_request(address, PATH, "").as_bytes());
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
        (self.paced_since, self.paced_bytes) = (Instant::now(), 0);
    }

    /// Bytes it may read now. Who is not in its rooms yet reads freely, to get there.
    pub(super) fn allowance(&self) -> usize {
        if self.rooms.iter().any(|room| !room.joined) {
            return usize::MAX;
        }
        match self.pace {
            Pace::Free => usize::MAX,
            Pace::Stopped => 0,
            Pace::BytesPerSecond(rate) => {
                let earned = self.paced_since.elapsed().as_secs_f64() * rate as f64;
                (earned as usize).saturating_sub(self.paced_bytes)
            }
        }
    }

    /// Takes in what was read; nothing is the end. False when the connection is over.
    pub(super) fn feed(&mut self, index: usize, bytes: &[u8], tally: &mut Tally) -> bool {
        if bytes.is_empty() {
            tally.progress += 1;
            let code = *self.closed.get_or_insert(1006);
            assert!(self.may_be_closed, "listener {index} was closed with {code}");
            return false;
        }
        self.paced_bytes += bytes.len();
        self.input.add(bytes);
        if !self.upgraded && !self.upgrade(index) {
            return true;
        }
        let mut input = std::mem::take(&mut self.input);
        while let Some((opcode, payload)) = input.next_frame() {
            match opcode {
                TEXT => self.take_in(index, std::str::from_utf8(payload).unwrap(), tally),
                CLOSE => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("listener {index} got a frame of kind {other}"),
            }
        }
        self.input = input;
        true
    }

    /// Reads the answer to the upgrade, and then connects and subscribes in one frame.
    fn upgrade(&mut self, index: usize) -> bool {
        let Some(head) = self.input.next_head() else { return false };
        assert!(head.starts_with("HTTP/1.1 101 "), "listener {index}: {head}");
        self.upgraded = true;
        let subscribes = self.rooms.iter().enumerate().map(|(at, room)| room.command(at + 2));
        let commands: Vec<_> =
            std::iter::once(r#"{"id":1,"connect":{}}"#.to_owned()).chain(subscribes).collect();
        self.say(&commands.join("\n"));
        true
    }

    fn say(&mut self, text: &str) {
        self.out.extend(frame(TEXT, true, true, text.as_bytes()));
    }

    fn take_in(&mut self, index: usize, text: &str, tally: &mut Tally) {
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            if line == "{}" {
                self.say("{}");
            } else if let Some(push) = line.strip_prefix(r#"{"push":{"channel":""#) {
                self.take_push(index, push, tally);
            } else {
                self.take_reply(index, line, tally);
            }
        }
    }

    /// A push behind the beginning of the channel's name. Read by hand, because a whole parse of
    /// every message would make this thread the bottleneck.
    fn take_push(&mut self, index: usize, push: &str, tally: &mut Tally) {
        let (channel, rest) = push.split_once('"').unwrap();
        let room = self.rooms.iter_mut().find(|room| room.channel == channel).expect("a room it is in");
        let Some(publication) = rest.strip_prefix(r#","pub":{"data":"#) else {
            if rest.starts_with(r#","unsubscribe":"#) {
                room.unsubscribed = Some(number_behind(rest, r#""code":"#));
                room.joined = false;
            } else {
                let known = [r#","join":"#, r#","leave":"#].iter().any(|start| rest.starts_with(start));
                assert!(known, "listener {index}: {push}");
            }
            return;
        };
        let end = publication.rfind(r#""offset":"#).expect("an offset");
        room.take(
            index,
            number_behind(&publication[end..], r#""offset":"#),
            number_behind(publication, r#""n":"#),
        );
        tally.deliveries += 1;
        tally.progress += u64::from(self.pace == Pace::Free);
        if self.prompt {
            tally.prompt += 1;
            tally.lags.push(writer::lag(number_behind(publication, r#""at":"#)));
        }
    }

    fn take_reply(&mut self, index: usize, line: &str, tally: &mut Tally) {
        let reply: Value = serde_json::from_str(line).unwrap();
        let id = reply["id"].as_u64().unwrap() as usize;
        assert!(reply.get("error").is_none(), "listener {index}: {line}");
        tally.progress += 1;
        if id == 1 {
            tally.handshakes -= 1;
            return;
        }
        let room = &mut self.rooms[id - 2];
        let result = &reply["subscribe"];
        room.joined = true;
        room.epoch = result["epoch"].as_str().unwrap().to_owned();
        room.recovered = room.recovers.then(|| result["recovered"].as_bool().unwrap_or(false));
        let offset = result["offset"].as_u64().unwrap_or(0);
        if room.recovered != Some(true) {
            room.last = offset;
        }
        for publication in result["publications"].as_array().into_iter().flatten() {
            let number = publication["data"]["n"].as_u64().unwrap();
            room.take(index, publication["offset"].as_u64().unwrap(), number);
            tally.deliveries += 1;
        }
        // The position is behind the publications when all are here, before them when more follow.
        let begins = result["publications"][0]["offset"].as_u64().map_or(room.last, |first| first - 1);
        assert!(offset == room.last || offset == begins, "listener {index}: {offset} with {}", room.last);
    }
}

/// The whole number that stands behind `name` in `text`.
fn number_behind(text: &str, name: &str) -> u64 {
    let at = text.find(name).unwrap_or_else(|| panic!("no {name} in {text}")) + name.len();
    text[at..].bytes().take_while(u8::is_ascii_digit).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}
