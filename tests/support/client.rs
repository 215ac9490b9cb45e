//! A client with few words: join, ask, send, and expect. Its words are JSON, whatever it speaks.

use std::collections::VecDeque;
use std::time::Instant;

use super::PATIENCE;
use super::frames::{BINARY, CLOSE, PONG, TEXT};
use super::protobuf;
use super::server::{Names, TestServer};
use super::websocket::{Frame, WebSocket};

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub websocket: WebSocket,
    /// The id the server gave.
    pub id: String,
    names: Names,
    next_id: u32,
    replies: VecDeque<String>,
    pushes: VecDeque<String>,
    pub pings: usize,
    pub answers_pings: bool,
    speaks_protobuf: bool,
}

/// One line of a frame.
enum Line {
    Reply(String),
    Push(String),
}

impl Client {
    /// A client that speaks what the server's tests are about.
    pub fn open(server: &TestServer) -> Self {
        if server.speaks_protobuf {
            return Self::open_protobuf(server);
        }
        Self::over(server, WebSocket::open(server.address))
    }

    /// A client that speaks Protobuf.
    pub fn open_protobuf(server: &TestServer) -> Self {
        let headers = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n";
        let (head, socket) = WebSocket::try_open(server.address, headers);
        let (socket, received) = socket.unwrap_or_else(|| panic!("no upgrade: {head}"));
        assert!(head.contains("\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n"), "{head}");
        Self { speaks_protobuf: true, ..Self::over(server, WebSocket::resume(socket, received)) }
    }

    pub fn over(server: &TestServer, websocket: WebSocket) -> Self {
        Self {
            websocket,
            id: String::new(),
            names: server.names.clone(),
            next_id: 0,
            replies: VecDeque::new(),
            pushes: VecDeque::new(),
            pings: 0,
            answers_pings: true,
            speaks_protobuf: false,
        }
    }

    /// Sends connect with these parameters; the reply without the command's id. From now on texts
    /// show `<name>` for the id of this client, or `<name2>` for the second one of that name.
    #[track_caller]
    pub fn connect(&mut self, params: &str, name: &str) -> String {
        let id = self.call(&format!(r#"{{"connect":{params}}}"#));
        let reply = self.next_reply();
        let given = reply.split_once(r#""client":""#).and_then(|(_, rest)| rest.split_once('"'));
        self.id = given.unwrap_or_else(|| panic!("no connect reply: {reply}")).0.to_owned();
        {
            let mut names = self.names.lock().unwrap();
            let namesakes = names.values().filter(|other| other.trim_matches(NOT_IN_NAMES) == name).count();
            let number = if namesakes == 0 { String::new() } else { (namesakes + 1).to_string() };
            names.insert(self.id.clone(), format!("<{name}{number}>"));
        }
        body_of(&self.plain(&reply), id)
    }

    /// Sends lines in one frame, as they are if the client speaks JSON.
    pub fn send(&mut self, text: &str) {
        match self.speaks_protobuf {
            true => self.websocket.send_binary(&protobuf::frame_of(text)),
            false => self.websocket.send_text(text),
        }
    }

    /// Sends a command, given without its id; the id it got.
    pub fn call(&mut self, command: &str) -> u32 {
        let (id, text) = self.with_id(command);
        self.send(&text);
        id
    }

    /// A command with the next id.
    pub fn with_id(&mut self, command: &str) -> (u32, String) {
        self.next_id += 1;
        (self.next_id, format!(r#"{{"id":{},{}"#, self.next_id, &command[1..]))
    }

    /// Sends a command and waits for its reply, which is given back without the id.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        let id = self.call(command);
        self.reply_to(id)
    }

    /// Subscribes; the reply.
    #[track_caller]
    pub fn join(&mut self, channel: &str) -> String {
        let reply = self.ask(&format!(r#"{{"subscribe":{{"channel":"{channel}"}}}}"#));
        assert!(reply.starts_with(r#"{"subscribe":{"#), "{reply}");
        reply
    }

    /// Subscribes again from where it once was.
    #[track_caller]
    pub fn recover(&mut self, channel: &str, offset: u64, epoch: &str) -> String {
        self.ask(&format!(
            r#"{{"subscribe":{{"channel":"{channel}","recover":true,"offset":{offset},"epoch":"{epoch}"}}}}"#
        ))
    }

    /// Publishes `data`, a JSON text, and waits until it is acknowledged.
    #[track_caller]
    pub fn publish(&mut self, channel: &str, data: &str) {
        let reply = self.ask(&format!(r#"{{"publish":{{"channel":"{channel}","data":{data}}}}}"#));
        assert_eq!(reply, r#"{"publish":{}}"#);
    }

    /// Publishes bytes in Protobuf; the reply.
    #[track_caller]
    pub fn publish_bytes(&mut self, channel: &str, data: &[u8]) -> String {
        self.next_id += 1;
        self.websocket.send_binary(&protobuf::publish(self.next_id, channel, data));
        self.reply_to(self.next_id)
    }

    /// Publishes the numbers in one frame and waits until all are acknowledged, in order.
    #[track_caller]
    pub fn publish_numbers(&mut self, channel: &str, numbers: std::ops::RangeInclusive<u64>) {
        let publish = |number| format!(r#"{{"publish":{{"channel":"{channel}","data":{number}}}}}"#);
        let commands: Vec<_> = numbers.map(|number| self.with_id(&publish(number))).collect();
        let text: Vec<_> = commands.iter().map(|(_, text)| text.as_str()).collect();
        self.send(&text.join("\n"));
        for (id, _) in commands {
            assert_eq!(self.reply_to(id), r#"{"publish":{}}"#);
        }
    }

    /// The next reply must answer this command.
    #[track_caller]
    pub fn reply_to(&mut self, id: u32) -> String {
        let reply = self.next_reply();
        body_of(&self.plain(&reply), id)
    }

    /// The next reply must have this text.
    #[track_caller]
    pub fn expect_reply(&mut self, text: &str) {
        let reply = self.next_reply();
        assert_eq!(self.plain(&reply), text);
    }

    /// The next push must have this text inside.
    #[track_caller]
    pub fn expect_push(&mut self, text: &str) {
        assert_eq!(self.next_push(), format!(r#"{{"push":{text}}}"#));
    }

    /// The next pushes must be the numbers that [`publish_numbers`](Self::publish_numbers) published
    /// from the room's first message on.
    #[track_caller]
    pub fn expect_numbers(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        for number in numbers {
            let push = self.next_push();
            let right = push.contains(&format!(r#""data":{number},"#)) && push.contains(&offset_is(number));
            assert!(right, "expected {number}, got {push}");
        }
    }

    /// Nothing was sent in this room that this client has not seen yet. The command that finds out
    /// goes through the room's shard, behind everything that was published before.
    #[track_caller]
    pub fn expect_silence(&mut self, channel: &str) {
        let reply = self.ask(&format!(r#"{{"presence_stats":{{"channel":"{channel}"}}}}"#));
        assert!(reply.starts_with(r#"{"presence_stats":"#), "{reply}");
        assert_eq!(self.pushes, [] as [&str; 0], "there should have been silence");
        assert_eq!(self.replies, [] as [&str; 0], "there should have been silence");
    }

    /// The server must close with this code, and words that SDKs do not misread.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> String {
        let deadline = Instant::now() + PATIENCE;
        let frame = loop {
            assert!(Instant::now() < deadline, "pings came, but no close frame");
            let frame = self.websocket.read().expect("a close frame before the end");
            if frame.opcode == CLOSE {
                break frame;
            }
            self.take_in(&frame);
        };
        let given = u16::from_be_bytes(frame.payload[..2].try_into().unwrap());
        let reason = String::from_utf8(frame.payload[2..].to_vec()).unwrap();
        assert_eq!(given, code, "{reason}");
        assert!(!reason.is_empty() && reason.len() <= 123, "{reason:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&reason).is_err(), "{reason} is JSON");
        reason
    }

    /// The next push, ids and epochs replaced.
    #[track_caller]
    pub fn next_push(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(push) = self.pushes.pop_front() {
                return self.plain(&push);
            }
            assert!(Instant::now() < deadline, "pings came, but no push");
            self.receive();
        }
    }

    /// The next reply as it came.
    #[track_caller]
    pub fn next_reply(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(reply) = self.replies.pop_front() {
                return reply;
            }
            assert!(Instant::now() < deadline, "pings came, but no reply");
            self.receive();
        }
    }

    /// Client ids replaced by names, epochs and the version by letters.
    pub fn plain(&self, text: &str) -> String {
        let names = self.names.lock().unwrap();
        let text = names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name));
        let version = concat!(r#""version":""#, env!("CARGO_PKG_VERSION"), '"');
        without_epochs(&text).replace(version, r#""version":"V""#)
    }

    /// Reads one frame.
    #[track_caller]
    pub fn receive(&mut self) {
        let frame = self.websocket.read().expect("a frame, not the end");
        match frame.opcode {
            TEXT | BINARY => self.take_in(&frame),
            PONG => self.pushes.push_back(format!("pong {}", String::from_utf8_lossy(&frame.payload))),
            CLOSE => panic!("closed: {:?}", String::from_utf8_lossy(&frame.payload)),
            other => panic!("a frame of kind {other}"),
        }
    }

    /// Reads until the condition holds; false when the server hung up first because a pong was late,
    /// which on a busy machine is nobody's fault.
    #[track_caller]
    pub fn receive_until(&mut self, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "frames came, but not the right ones");
            match self.websocket.read() {
                Some(frame) if matches!(frame.opcode, TEXT | BINARY) => self.take_in(&frame),
                Some(frame) => {
                    assert_eq!((frame.opcode, &frame.payload[2..]), (CLOSE, &b"no pong"[..]));
                    return false;
                }
                None => return false,
            }
        }
        true
    }

    /// Pushes that came and were not asked for yet.
    pub fn waiting_pushes(&self) -> usize {
        self.pushes.len()
    }

    /// Replies that came and were not asked for yet.
    pub fn waiting_replies(&self) -> usize {
        self.replies.len()
    }

    /// The lines of the next frame, whatever they are.
    #[track_caller]
    pub fn next_lines(&mut self) -> Vec<String> {
        let frame = self.websocket.read().expect("a frame, not the end");
        self.lines(&frame)
    }

    fn lines(&self, Frame { opcode, payload }: &Frame) -> Vec<String> {
        assert!(payload.len() < 1024 * 1024, "older SDKs close on a frame of {}", payload.len());
        assert_eq!(*opcode == BINARY, self.speaks_protobuf, "a frame of the other kind");
        match self.speaks_protobuf {
            true => protobuf::lines_of(payload),
            false => std::str::from_utf8(payload).unwrap().lines().map(str::to_owned).collect(),
        }
    }

    fn take_in(&mut self, frame: &Frame) {
        for line in self.lines(frame) {
            match sort(&line) {
                None => {
                    self.pings += 1;
                    if self.answers_pings {
                        self.send("{}");
                    }
                }
                Some(Line::Push(text)) => self.pushes.push_back(text),
                Some(Line::Reply(text)) => self.replies.push_back(text),
            }
        }
    }
}

/// What stands around the name in `<name2>`.
const NOT_IN_NAMES: &[char] = &['<', '>', '2', '3', '4', '5', '6', '7', '8', '9'];

/// A reply without its id, which must be the expected one.
#[track_caller]
fn body_of(reply: &str, id: u32) -> String {
    let start = format!(r#"{{"id":{id},"#);
    let body = reply.strip_prefix(&start).unwrap_or_else(|| panic!("not the reply to {id}: {reply}"));
    format!("{{{body}")
}

/// `None` for a ping.
fn sort(line: &str) -> Option<Line> {
    match line {
        "{}" => None,
        push if push.starts_with(r#"{"push":{"#) => Some(Line::Push(push.to_owned())),
        reply if reply.starts_with(r#"{"id":"#) => Some(Line::Reply(reply.to_owned())),
        other => panic!("neither reply nor push nor ping: {other}"),
    }
}

/// How an offset stands in a publication of a push.
fn offset_is(offset: u64) -> String {
    format!(r#""offset":{offset}}}"#)
}

/// Every epoch replaced by `E`.
pub fn without_epochs(text: &str) -> String {
    const NAME: &str = r#""epoch":""#;
    let mut parts = text.split(NAME);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (epoch, rest) = part.split_once('"').unwrap();
        assert!(epoch.len() >= 8 && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{epoch}");
        out += &format!(r#"{NAME}E"{rest}"#);
    }
    out
}

/// The epoch in a text.
pub fn epoch_in(text: &str) -> String {
    text.split_once(r#""epoch":""#).and_then(|(_, rest)| rest.split_once('"')).expect("an epoch").0.to_owned()
}
