//! Input that breaks the protocol: it ends the connection it came from and touches nobody else.

use crate::support::client::Client;
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame};
use crate::support::random::Random;
use crate::support::server::TestServer;
use crate::support::websocket::WebSocket;

/// The server must close with the code and count the input; another client must notice nothing.
fn assert_closed(server: &TestServer, client: &mut Client, code: u16, kind: &str) {
    let metric = format!("bad_input_total{{kind=\"{kind}\"}}");
    client.expect_close(code);
    assert!(server.metric(&metric) > 0, "{metric}");
}

#[test]
fn texts_that_are_no_commands() {
    let server = TestServer::start();
    let mut witness = server.connect("witness");
    witness.join("room");
    for (text, kind) in [
        ("{", "malformed"),
        ("hello", "malformed"),
        ("[]", "malformed"),
        ("5", "malformed"),
        (r#"{"id":1}"#, "no_method"),
        (r#"{"id":"1","publish":{"channel":"a","data":1}}"#, "malformed"),
        (r#"{"id":-1,"ping":{}}"#, "malformed"),
        (r#"{"id":4294967296,"ping":{}}"#, "malformed"),
        (r#"{"id":1,"dance":{}}"#, "no_method"),
        (r#"{"id":1,"subscribe":5}"#, "malformed"),
        (r#"{"id":1,"subscribe":{"channel":5}}"#, "malformed"),
        (r#"{"id":1,"subscribe":{}}"#, "no_channel"),
        (r#"{"id":1,"subscribe":{"channel":""}}"#, "no_channel"),
        (r#"{"id":0,"ping":{}}"#, "no_id"),
        (r#"{"ping":{}}"#, "no_id"),
        ("", "blank"),
        ("\n", "blank"),
        ("{}\n\n{}", "blank"),
    ] {
        let metric = format!("bad_input_total{{kind=\"{kind}\"}}");
        let before = server.metric(&metric);
        let mut client = server.connect("ann");
        client.send(text);
        assert_eq!(client.expect_close(3501), "bad request", "{text:?}");
        assert_eq!(server.metric(&metric), before + 1, "{text:?}");
    }
    witness.publish("room", "1");
    witness.expect_numbers(1..=1);
}

#[test]
fn wrong_types_are_answered_by_id_and_the_connection_stays() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for command in [
        r#"{"subscribe":{"channel":"a","offset":"1"}}"#,
        r#"{"subscribe":{"channel":"a","recover":1}}"#,
        r#"{"refresh":{"token":{}}}"#,
        r#"{"history":{"channel":"a","since":[]}}"#,
        r#"{"rpc":{"method":{}}}"#,
    ] {
        let reply = ann.ask(command);
        assert_eq!(reply, r#"{"error":{"code":107,"message":"bad request"}}"#, "{command}");
    }
    assert_eq!(server.metric("bad_input_total{kind=\"parameters\"}"), 5);
    ann.join("room");
}

#[test]
fn a_command_before_connect_and_a_second_connect() {
    let server = TestServer::start();
    for command in
        [r#"{"id":1,"subscribe":{"channel":"a"}}"#, r#"{"id":1,"ping":{}}"#, r#"{"send":{"data":1}}"#]
    {
        let mut client = server.open();
        client.send(command);
        assert_closed(&server, &mut client, 3501, "order");
    }
    let mut ann = server.connect("ann");
    ann.call(r#"{"connect":{}}"#);
    assert_closed(&server, &mut ann, 3501, "order");
}

#[test]
fn commands_before_a_broken_one_are_done() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.send("{\"id\":8,\"publish\":{\"channel\":\"room\",\"data\":1}}\n{\"id\":9,");
    ann.expect_reply(r#"{"id":8,"publish":{}}"#);
    ann.expect_close(3501);
    assert!(server.connect("bob").join("room").contains(r#""offset":1"#));
}

#[test]
fn send_closes_with_not_available() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.send(r#"{"send":{"data":{"hi":1}}}"#);
    assert_eq!(ann.expect_close(3508), "not available");
}

#[test]
fn frames_that_break_rfc_6455_close() {
    let server = TestServer::start();
    let reserved_bit = {
        let mut bytes = frame(TEXT, true, true, b"{}");
        bytes[0] |= 0x40;
        bytes
    };
    for (bytes, code, kind) in [
        (frame(TEXT, true, false, b"{}"), 1002, "websocket"),
        (frame(CONTINUATION, true, true, b"{}"), 1002, "websocket"),
        (frame(3, true, true, b"{}"), 1002, "websocket"),
        (frame(11, true, true, b"{}"), 1002, "websocket"),
        (frame(PING, false, true, b"{}"), 1002, "websocket"),
        (frame(PING, true, true, &[b'x'; 126]), 1002, "websocket"),
        ([frame(TEXT, false, true, b"{"), frame(TEXT, true, true, b"}")].concat(), 1002, "websocket"),
        (reserved_bit, 1002, "websocket"),
        (frame(TEXT, true, true, b"{\"id\":1,\"rpc\":{\"data\":\"\xff\"}}"), 1007, "utf8"),
        (frame(BINARY, true, true, b"{}"), 3501, "binary"),
    ] {
        let mut client = server.connect("ann");
        client.websocket.send_bytes(&bytes);
        assert_closed(&server, &mut client, code, kind);
    }
    server.connect("ann").join("room");
}

#[test]
fn a_giant_message_is_not_even_read() {
    let server = TestServer::start();
    let mut client = server.connect("ann");
    let mut header = vec![0x81, 0xff];
    header.extend((1u64 << 40).to_be_bytes());
    client.websocket.send_bytes(&header);
    client.websocket.send_bytes(&[0; 4]);
    assert_closed(&server, &mut client, 1009, "too_big");

    let mut client = server.connect("ann");
    let part = vec![b' '; 300 * 1024];
    client.websocket.send_bytes(&frame(TEXT, false, true, &part));
    client.websocket.send_bytes(&frame(CONTINUATION, false, true, &part));
    assert_closed(&server, &mut client, 1009, "too_big");
}

#[test]
fn a_message_of_half_a_mebibyte_is_fine() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let line = format!(r#"{{"id":ID,"publish":{{"channel":"room","data":"{}"}}}}"#, "x".repeat(60_000));
    let lines: Vec<_> = (2..10).map(|id| line.replace("ID", &id.to_string())).collect();
    ann.send(&lines.join("\n"));
    for id in 2..10 {
        ann.expect_reply(&format!(r#"{{"id":{id},"publish":{{}}}}"#));
    }
}

#[test]
fn fragments_are_put_together_and_pings_in_between_answered() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let text = r#"{"id":9,"rpc":{"method":"é","data":1}}"#.as_bytes();
    for (at, byte) in text.iter().enumerate() {
        let opcode = if at == 0 { TEXT } else { CONTINUATION };
        ann.websocket.send_bytes(&frame(opcode, at + 1 == text.len(), true, &[*byte]));
        if at == 5 {
            ann.websocket.send_bytes(&frame(PING, true, true, b"hey"));
        }
    }
    assert_eq!(ann.next_push(), "pong hey");
    ann.expect_reply(r#"{"id":9,"error":{"code":108,"message":"not available"}}"#);
}

#[test]
fn a_frame_may_arrive_one_byte_at_a_time() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for byte in frame(TEXT, true, true, br#"{"id":5,"ping":{}}"#) {
        ann.websocket.send_bytes(&[byte]);
    }
    ann.expect_reply(r#"{"id":5,"ping":{}}"#);
}

#[test]
fn commands_right_behind_the_upgrade_request_are_heard() {
    let server = TestServer::start();
    let mut socket = std::net::TcpStream::connect(server.address).unwrap();
    socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut request =
        b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
    request.extend(frame(TEXT, true, true, br#"{"id":1,"connect":{}}"#));
    std::io::Write::write_all(&mut socket, &request).unwrap();
    let (head, rest) = crate::support::http::read_head(&mut socket);
    assert!(head.starts_with("HTTP/1.1 101"));
    let mut websocket = WebSocket::resume(socket, rest);
    let reply = websocket.read().unwrap();
    assert!(reply.payload.starts_with(br#"{"id":1,"connect":{"client":""#));
}

#[test]
fn websocket_pings_are_answered_and_a_close_ends_it() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.websocket.send_bytes(&frame(PING, true, true, b"are you there"));
    assert_eq!(ann.next_push(), "pong are you there");
    ann.websocket.send_bytes(&frame(PONG, true, true, b"nobody asked"));
    ann.websocket.send_bytes(&frame(CLOSE, true, true, &1000u16.to_be_bytes()));
    let goodbye = ann.websocket.read().unwrap();
    assert_eq!((goodbye.opcode, &goodbye.payload[..2]), (CLOSE, &1000u16.to_be_bytes()[..]));
    assert_eq!(ann.websocket.read(), None);
}

#[test]
fn garbage_ends_only_its_own_connection() {
    let mut server = TestServer::start();
    let mut witness = server.connect("witness");
    witness.join("room");
    let mut random = Random::new(0x5eed_0000_c0ff_ee11, 0);
    let pieces = [
        "{",
        "}",
        "\"id\":1",
        "\"publish\":",
        "\"channel\":\"a\"",
        "\n",
        ",",
        "[",
        "]",
        "null",
        "1e999",
        "\\u0000",
        "\"data\":",
        "\"subscribe\":",
        "{\"id\":2,\"history\":{\"channel\":\"a\",\"limit\":-9}}",
        "\"connect\":",
    ];
    for round in 0..300 {
        let mut client = server.open();
        let bytes: Vec<u8> = match round % 3 {
            0 => (0..random.below(200)).map(|_| random.below(256) as u8).collect(),
            1 => {
                let text: String = (0..random.below(12)).map(|_| pieces[random.below(16) as usize]).collect();
                frame(TEXT, true, true, text.as_bytes())
            }
            _ => {
                let mut bytes = frame(TEXT, true, true, br#"{"id":1,"connect":{"data":{"user":"ann"}}}"#);
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
                bytes
            }
        };
        // The server may have closed before it got everything.
        let _ = std::io::Write::write_all(&mut client.websocket.socket, &bytes);
    }
    witness.publish("room", "1");
    witness.expect_numbers(1..=1);
    witness.expect_silence("room");
    assert_eq!(server.stop(), Some(0));
    assert!(!server.log().contains("panicked"));
}
