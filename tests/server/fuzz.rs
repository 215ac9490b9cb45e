//! Peers that say anything and stop anywhere: nothing is answered as a fault of the server, and nothing of them is left.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

#[path = "../../src/mutation.rs"]
mod mutation;

use self::mutation::Random;
use crate::support::eventually;
use crate::support::server::{Backend, TestServer};

const UPGRADE: &str = "GET /connection/websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const METHODS: [&str; 12] = [
    "publish",
    "broadcast",
    "history",
    "presence",
    "presence_stats",
    "channels",
    "info",
    "unsubscribe",
    "disconnect",
    "room_create",
    "contacts",
    "rooms",
];

const BODIES: [&str; 6] = [
    r#"{"channel":"lobby","data":{"text":"hello"},"tags":{"a":"b"},"idempotency_key":"k"}"#,
    r#"{"channels":["lobby","talk:a","typing:b"],"data":[1,2,3]}"#,
    r#"{"channel":"lobby","limit":10,"since":{"offset":1,"epoch":"x"},"reverse":true}"#,
    r#"{"user":"ann","contact":"bob","channel":"lobby","client":"x"}"#,
    r#"{"channel":"group","kind":"group","members":["ann","bob"]}"#,
    r#"{"pattern":"lob*","limit":5}"#,
];

/// What a peer does at the byte where it stops.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Closes,
    HalfCloses,
    Resets,
    /// Says nothing more, and stays.
    Stalls,
}

#[test]
fn no_body_is_answered_as_a_fault_of_the_server() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let server = TestServer::on(backend, "");
        let bodies: Vec<_> = BODIES.iter().map(|body| body.as_bytes().to_vec()).collect();
        let mut round = 0;
        mutation::each(&bodies, 1_200, |body| {
            let method = METHODS[round % METHODS.len()];
            round += 1;
            let Ok(body) = std::str::from_utf8(body) else { return };
            let answer = server.post(&format!("/api/{method}"), "", body);
            let is_internal = answer.body.contains(r#""code":100,"#);
            assert!(
                answer.status < 500 && !is_internal,
                "{method} {body}: {} {}",
                answer.status,
                answer.body
            );
        });
        assert_eq!(server.get("/health").status, 200);
        assert_eq!(server.metric("store_up{lane=\"0\"}"), 1);
    }
}

/// Every way to stop, at bytes all over the talk, some of it changed and some of it byte by byte.
#[test]
fn peers_that_stop_at_any_byte_leave_nothing_behind() {
    let server = TestServer::with(
        "[client]\nconnect_timeout = \"1s\"\nping_interval = \"2s\"\npong_timeout = \"1s\"\n",
    );
    let talks = [talk(), b"POST /api/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 29\r\n\r\n{\"channel\":\"lobby\",\"data\":12}".to_vec()];
    let mut random = Random(0x51_7c_c1_b7_27_22_0a_95);
    let mut staying = Vec::new();
    let mut peers = 0;
    mutation::each(&talks, 400, |changed| {
        let said = if peers % 2 == 0 { &talks[peers % talks.len()] } else { changed };
        let stop = [Stop::Closes, Stop::HalfCloses, Stop::Resets, Stop::Stalls][peers % 4];
        let said = &said[..random.below(said.len() + 1)];
        staying.extend(visit(server.address, said, stop, random.below(8) == 0));
        peers += 1;
    });
    // Those who stay are sent away by the deadlines of what they began.
    eventually("every connection is gone", || server.metric("sockets") <= 1);
    drop(staying);
    assert_eq!(server.metric("connections"), 0);
    let mut client = server.connect("ann");
    client.join("after");
    client.publish("after", "1");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// An upgrade and the commands of a short life, in frames with a mask of zeros.
fn talk() -> Vec<u8> {
    let mut bytes = UPGRADE.as_bytes().to_vec();
    for text in [
        r#"{"id":1,"connect":{"data":{"user":"ann"}}}"#,
        r#"{"id":2,"subscribe":{"channel":"lobby"}}"#,
        r#"{"id":3,"publish":{"channel":"lobby","data":{"text":"hello"}}}"#,
        r#"{"id":4,"history":{"channel":"lobby","limit":10}}"#,
        "{}",
    ] {
        assert!(text.len() < 126);
        bytes.extend([0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Says the bytes and stops; gives a peer that stays.
fn visit(server: SocketAddr, said: &[u8], stop: Stop, singly: bool) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(server).unwrap();
    socket.set_nodelay(true).unwrap();
    // A server that has hung up already is no fault of anybody.
    for part in said.chunks(if singly { 1 } else { said.len().max(1) }) {
        if socket.write_all(part).is_err() {
            break;
        }
    }
    match stop {
        Stop::Closes => None,
        Stop::HalfCloses => {
            let _ = socket.shutdown(Shutdown::Write);
            socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            // It answers what came and hangs up.
            let _ = socket.read_to_end(&mut Vec::new());
            None
        }
        Stop::Resets => {
            SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
            None
        }
        Stop::Stalls => Some(socket),
    }
}
