//! Payloads that are no JSON: where a namespace allows them, and for clients that can be given them.

use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::token::token;
use crate::support::websocket::WebSocket;

const BYTES: &[u8] = b"\xff\0 no JSON";

/// The same as the tests' translation of Protobuf shows it.
const SHOWN: &str = r"\xff\x00 no JSON";

/// The same in base64.
const BASE64: &str = "/wAgbm8gSlNPTg==";

fn named(mut client: Client, user: &str) -> Client {
    client.connect(&format!(r#"{{"data":{{"user":"{user}"}}}}"#), user);
    client
}

fn speaking_protobuf(server: &TestServer, user: &str) -> Client {
    named(Client::open_protobuf(server), user)
}

fn speaking_json(server: &TestServer, user: &str) -> Client {
    named(Client::over(server, WebSocket::open(server.address)), user)
}

on_both_databases! {
    bytes_are_stored_and_come_back_as_they_were(
        server,
        "[namespace.raw]\npayload = 'binary'\njoin_leave = false\npublish = 'everyone'\nread_history = 'everyone'\n"
    ) {
        let epoch = server.epoch();
        let mut ann = speaking_protobuf(&server, "ann");
        ann.join("raw:room");
        assert_eq!(ann.publish_bytes("raw:room", BYTES), r#"{"publish":{}}"#);
        ann.publish("raw:room", r#"{"a": 1}"#);
        let info = r#""info":{"user":"ann","client":"<ann>"}"#;
        let first = format!(r#"{{"data":{SHOWN},{info},"offset":1}}"#);
        let second = format!(r#"{{"data":{{"a": 1}},{info},"offset":2}}"#);
        ann.expect_push(&format!(r#"{{"channel":"raw:room","pub":{first}}}"#));
        ann.expect_push(&format!(r#"{{"channel":"raw:room","pub":{second}}}"#));
        // From the database, not from the memory of the room.
        server.restart();
        let mut bob = speaking_protobuf(&server, "bob");
        let recovered = bob.recover("raw:room", 0, &epoch);
        assert!(recovered.contains(&format!(r#""publications":[{first},{second}]"#)), "{recovered}");
        let history = bob.ask(r#"{"history":{"channel":"raw:room","limit":-1}}"#);
        assert!(history.contains(&format!(r#""publications":[{first},{second}]"#)), "{history}");
        let history = server.api("history", r#"{"channel":"raw:room","limit":1}"#);
        assert!(history.contains(&format!(r#"{{"b64data":"{BASE64}","info""#)), "{history}");
        let publish = format!(r#"{{"channel":"raw:room","b64data":"{BASE64}"}}"#);
        assert_eq!(server.api("publish", &publish), r#"{"result":{"offset":3,"epoch":"E"}}"#);
        bob.expect_push(&format!(r#"{{"channel":"raw:room","pub":{{"data":{SHOWN},"offset":3}}}}"#));
    }
}

on_both_databases! {
    a_key_holds_for_bytes_too(server, "[namespace.raw]\npayload = 'binary'\n") {
        let publish = |data: &str, key: &str| {
            let params = format!(r#"{{"channel":"raw:room","b64data":"{data}","idempotency_key":"{key}"}}"#);
            server.api("publish", &params)
        };
        assert_eq!(publish(BASE64, "k"), r#"{"result":{"offset":1,"epoch":"E"}}"#);
        assert_eq!(publish(BASE64, "k"), r#"{"result":{"offset":1,"epoch":"E"}}"#);
        assert!(publish("/w==", "k").contains(r#""code":113"#));
        assert!(publish("bnVsbA==", "k").contains(r#""code":113"#), "nor is it the column of JSON that counts");
        assert_eq!(publish("/w==", "l"), r#"{"result":{"offset":2,"epoch":"E"}}"#);
    }
}

#[test]
fn elsewhere_bytes_are_refused() {
    let server = TestServer::start();
    let mut ann = speaking_protobuf(&server, "ann");
    let refused = r#"{"error":{"code":107,"message":"bad request"}}"#;
    for bytes in [BYTES, b"null", b"{", b"[1] 2"] {
        assert_eq!(ann.publish_bytes("room", bytes), refused, "{bytes:?}");
    }
    assert_eq!(ann.publish_bytes("room", b" [1]\n"), r#"{"publish":{}}"#);
    let answer = server.api("publish", &format!(r#"{{"channel":"room","b64data":"{BASE64}"}}"#));
    assert!(answer.contains(r#""code":107"#), "{answer}");
}

#[test]
fn clients_that_speak_json_are_told_why_they_cannot_listen() {
    let server = TestServer::with(
        "[namespace.raw]\npayload = 'binary'\npublish = 'everyone'\nread_history = 'everyone'\n",
    );
    let mut ann = speaking_json(&server, "ann");
    let refused = r#"{"error":{"code":400,"message":"binary payloads: connect with protobuf"}}"#;
    assert_eq!(ann.ask(r#"{"subscribe":{"channel":"raw:room"}}"#), refused);
    assert_eq!(ann.ask(r#"{"history":{"channel":"raw:room","limit":1}}"#), refused);
    let mut bob = speaking_protobuf(&server, "bob");
    bob.join("raw:room");
    bob.next_push(); // Its own join.
    ann.publish("raw:room", "[1, 2]");
    let info = r#""info":{"user":"ann","client":"<ann>"}"#;
    bob.expect_push(&format!(r#"{{"channel":"raw:room","pub":{{"data":[1, 2],{info},"offset":1}}}}"#));
}

#[test]
fn a_token_for_such_a_room_is_refused_with_the_same_words() {
    let server = TestServer::secured("[namespace.raw]\npayload = 'binary'\n");
    let claims = r#"{"sub":"ann","channels":["raw:room"]}"#;
    let mut json = Client::over(&server, WebSocket::open(server.address));
    let token = token(claims);
    let refused = r#"{"error":{"code":400,"message":"binary payloads: connect with protobuf"}}"#;
    assert_eq!(json.ask(&format!(r#"{{"connect":{{"token":"{token}"}}}}"#)), refused);
    let mut protobuf = Client::open_protobuf(&server);
    assert!(protobuf.ask(&format!(r#"{{"connect":{{"token":"{token}"}}}}"#)).contains(r#""raw:room""#));
}
