//! SDKs that need a tool chain which no test can install: those for Dart, Swift and C#. What they write, byte for
//! byte as their sources have it (centrifuge-dart 0.16.0, centrifuge-swift 0.9.0, centrifuge-csharp 0.0.20), and what
//! they cannot do without in the answers.

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::frames::{BINARY, CLOSE, PONG, frame};
use crate::support::http::read_head;
use crate::support::protobuf::lines_of;
use crate::support::server::TestServer;
use crate::support::token::{seconds_from_now, token};
use crate::support::websocket::WebSocket;

/// How one of them writes.
struct Sdk {
    /// Its upgrade request; `{host}` stands for the server's address.
    head: &'static str,
    name: &'static str,
    /// A field that was set is written even if it is set to nothing.
    writes_defaults: bool,
    /// What it asks for in `flag` of every subscribe; 1 is channel compaction.
    flag: u64,
    /// Commands that are given together are written in one frame.
    batches: bool,
    /// It sends WebSocket pongs that nobody asked for, to keep the connection alive.
    keeps_alive: bool,
}

/// The WebSocket of Dart's own library, which writes header names in lower case and offers compression.
const DART: Sdk = Sdk {
    head: "GET /connection/websocket HTTP/1.1\r\nuser-agent: Dart/3.5 (dart:io)\r\nconnection: Upgrade\r\n\
           cache-control: no-cache\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n\
           sec-websocket-protocol: centrifuge-protobuf\r\nhost: {host}\r\nsec-websocket-version: 13\r\n\
           sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\
           sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nupgrade: websocket\r\n\r\n",
    name: "dart",
    writes_defaults: true,
    flag: 0,
    batches: false,
    keeps_alive: false,
};

/// Starscream 3, which the SDK brings and takes by default.
const SWIFT: Sdk = Sdk {
    head: "GET /connection/websocket HTTP/1.1\r\nSec-WebSocket-Protocol: centrifuge-protobuf\r\n\
           Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\
           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
           Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=15\r\n\
           Host: {host}\r\n\r\n",
    name: "swift",
    writes_defaults: false,
    flag: 1,
    batches: false,
    keeps_alive: false,
};

/// .NET's `ClientWebSocket`.
const CSHARP: Sdk = Sdk {
    head: "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
           Sec-WebSocket-Protocol: centrifuge-protobuf\r\n\r\n",
    name: "csharp",
    writes_defaults: false,
    flag: 1,
    batches: true,
    keeps_alive: true,
};

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of text, bytes or another message.
fn part(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(content.as_ref().len() as u64, &mut out);
    out.extend(content.as_ref());
    out
}

/// A field that holds a number or a flag.
fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3, &mut out);
    varint(value, &mut out);
    out
}

/// A command with its length before it.
fn command(id: u64, method: u64, request: &[Vec<u8>]) -> Vec<u8> {
    let command = [number(1, id), part(method, request.concat())].concat();
    let mut out = Vec::new();
    varint(command.len() as u64, &mut out);
    [out, command].concat()
}

impl Sdk {
    /// A field that is set, but to nothing.
    fn default(&self, field: Vec<u8>) -> Vec<u8> {
        if self.writes_defaults { field } else { Vec::new() }
    }

    fn connect(&self, id: u64, token: &str) -> Vec<u8> {
        let version = self.default(part(5, ""));
        command(id, 4, &[part(1, token), part(4, self.name), version])
    }

    fn subscribe(&self, id: u64, channel: &str) -> Vec<u8> {
        let unset = [part(2, ""), number(9, 0), number(10, 0), number(11, 0)].concat();
        let flag = if self.flag == 0 { Vec::new() } else { number(14, self.flag) };
        command(id, 5, &[part(1, channel), self.default(unset), flag])
    }

    fn recover(&self, id: u64, channel: &str, offset: u64, epoch: &str) -> Vec<u8> {
        let flag = if self.flag == 0 { Vec::new() } else { number(14, self.flag) };
        command(id, 5, &[part(1, channel), number(3, 1), part(6, epoch), number(7, offset), flag])
    }

    fn history(&self, id: u64, channel: &str) -> Vec<u8> {
        command(id, 10, &[part(1, channel), number(7, 10), self.default(number(9, 0))])
    }
}

/// A connection of an SDK: what came, less the pings, which it answers as they all do.
struct Talk {
    sdk: &'static Sdk,
    websocket: WebSocket,
    lines: VecDeque<String>,
    pings: usize,
}

impl Talk {
    fn open(server: &TestServer, sdk: &'static Sdk) -> Self {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(sdk.head.replace("{host}", &server.address.to_string()).as_bytes()).unwrap();
        let (head, rest) = read_head(&mut socket);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // .NET compares the first two in this case; all three look for the accepted key and the subprotocol.
        for line in [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "Sec-WebSocket-Protocol: centrifuge-protobuf",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {head}");
        }
        assert!(!head.to_ascii_lowercase().contains("extensions"), "nobody compresses: {head}");
        Self { sdk, websocket: WebSocket::resume(socket, rest), lines: VecDeque::new(), pings: 0 }
    }

    fn send(&mut self, commands: &[Vec<u8>]) {
        let frames: Vec<Vec<u8>> = if self.sdk.batches { vec![commands.concat()] } else { commands.to_vec() };
        for payload in frames {
            self.websocket.send_bytes(&frame(BINARY, true, true, &payload));
        }
    }

    /// The next reply or push, in JSON.
    #[track_caller]
    fn next(&mut self) -> String {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            let came = self.websocket.read().expect("a frame");
            assert_eq!(came.opcode, BINARY, "{:?}", String::from_utf8_lossy(&came.payload));
            self.take_in(&came.payload);
        }
    }

    /// An empty reply is a ping, and an empty command, which is the length 0, the answer.
    fn take_in(&mut self, payload: &[u8]) {
        for line in lines_of(payload) {
            if line == "{}" {
                self.pings += 1;
                self.websocket.send_bytes(&frame(BINARY, true, true, &[0]));
            } else {
                self.lines.push_back(line);
            }
        }
    }

    /// The next reply or push has these parts.
    #[track_caller]
    fn expect(&mut self, parts: &[&str]) {
        self.expect_all(&[parts]);
    }

    /// So many come next, in any order.
    #[track_caller]
    fn expect_all(&mut self, wanted: &[&[&str]]) {
        let mut came: Vec<String> = wanted.iter().map(|_| self.next()).collect();
        for parts in wanted {
            let found = came.iter().position(|line| parts.iter().all(|part| line.contains(part)));
            came.remove(found.unwrap_or_else(|| panic!("{parts:?} are in none of {came:?}")));
        }
    }

    /// Waits for so many pings in all.
    fn wait_for_pings(&mut self, count: usize) {
        while self.pings < count {
            let came = self.websocket.read().expect("a ping");
            self.take_in(&came.payload);
        }
    }

    fn expect_close(&mut self) -> (u16, String) {
        loop {
            let came = self.websocket.read().expect("a close");
            if came.opcode == CLOSE {
                let code = u16::from_be_bytes(came.payload[..2].try_into().unwrap());
                return (code, String::from_utf8(came.payload[2..].to_vec()).unwrap());
            }
            self.take_in(&came.payload);
        }
    }
}

/// What an application does with any of them, from the first byte to the close.
fn plays(sdk: &'static Sdk) {
    let server = TestServer::secured("ping_interval = \"1s\"\npong_timeout = \"900ms\"\n");
    let mut ann = Talk::open(&server, sdk);
    let fresh = |seconds| token(&format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(seconds)));
    ann.send(&[sdk.connect(1, &fresh(60))]);
    ann.expect(&[r#""id":1,"connect":{"client":""#, r#""expires":true,"ttl":"#, r#""ping":1,"pong":true"#]);
    if sdk.keeps_alive {
        ann.websocket.send_bytes(&frame(PONG, true, true, b""));
    }
    ann.send(&[sdk.subscribe(2, "talk:a"), sdk.subscribe(3, "talk:b")]);
    let stands = r#""subscribe":{"recoverable":true,"positioned":true,"epoch":""#;
    let joins = |room| [room, r#","join":{"info":{"user":"ann","#];
    ann.expect_all(&[
        &[r#""id":2"#, stands],
        &[r#""id":3"#, stands],
        &joins(r#""channel":"talk:a""#),
        &joins(r#""channel":"talk:b""#),
    ]);
    speaks(&mut ann);
    is_refreshed(&mut ann, &fresh(60));
    recovers(&mut ann, &server.epoch());
    ann.wait_for_pings(2);
    is_ended(&mut ann, &server);
}

/// A result that holds nothing is there all the same: Dart takes a reply without one for a fault.
fn speaks(ann: &mut Talk) {
    let sdk = ann.sdk;
    ann.send(&[command(4, 7, &[part(1, "talk:a"), part(2, r#"{"text": "hi"}"#)])]);
    let push = r#"{"push":{"channel":"talk:a","pub":{"data":{"text": "hi"},"info":{"user":"ann","client":""#;
    ann.expect_all(&[&[r#"{"id":4,"publish":{}}"#], &[push, r#","offset":1}}}"#]]);
    ann.send(&[
        sdk.history(5, "talk:a"),
        command(6, 8, &[part(1, "talk:a")]),
        command(7, 9, &[part(1, "talk:a")]),
    ]);
    ann.expect(&[r#"{"id":5,"history":{"publications":[{"data":{"text": "hi"}"#, r#""offset":1}}"#]);
    ann.expect(&[r#"{"id":6,"presence":{"presence":{""#, r#""user":"ann""#]);
    ann.expect(&[r#"{"id":7,"presence_stats":{"num_clients":1,"num_users":1}}"#]);
    ann.send(&[command(8, 13, &[part(1, "{}"), part(2, "nobody.knows")])]);
    ann.expect(&[r#"{"id":8,"error":{"code":108,"message":"not available"}}"#]);
    ann.send(&[command(9, 6, &[part(1, "talk:b")])]);
    ann.expect(&[r#"{"id":9,"unsubscribe":{}}"#]);
}

fn is_refreshed(ann: &mut Talk, token: &str) {
    ann.send(&[command(10, 14, &[part(1, token)])]);
    ann.expect(&[r#"{"id":10,"refresh":{"expires":true,"ttl":"#]);
}

/// The subscribe that an SDK sends when it comes back; here for a room that it left.
fn recovers(ann: &mut Talk, epoch: &str) {
    let sdk = ann.sdk;
    ann.send(&[command(11, 6, &[part(1, "talk:a")]), sdk.recover(12, "talk:a", 0, epoch)]);
    ann.expect(&[r#"{"id":11,"unsubscribe":{}}"#]);
    ann.expect_all(&[
        &[r#"{"id":12,"subscribe":{"#, r#""was_recovering":true,"recovered":true"#, r#"{"text": "hi"}"#],
        &[r#""channel":"talk:a","join":{"info":{"user":"ann","#],
    ]);
}

fn is_ended(ann: &mut Talk, server: &TestServer) {
    server.post("/api/unsubscribe", "X-API-Key: key\r\n", r#"{"user":"ann","channel":"talk:a"}"#);
    ann.expect(&[
        r#"{"push":{"channel":"talk:a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#,
    ]);
    server.post("/api/disconnect", "X-API-Key: key\r\n", r#"{"user":"ann"}"#);
    assert_eq!(ann.expect_close(), (3503, "force disconnect".to_owned()));
}

#[test]
fn dart() {
    plays(&DART);
}

#[test]
fn swift() {
    plays(&SWIFT);
}

#[test]
fn csharp() {
    plays(&CSHARP);
}
