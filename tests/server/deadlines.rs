//! Duties that end in time whatever the peer does: it may drip single bytes, fall silent, or flood.
//!
//! Nothing here waits for a moment: each test lets the client go on until the server ends it.

use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::frames::{CLOSE, CONTINUATION, PING, PONG, TEXT, frame};
use crate::support::server::TestServer;
use crate::support::token::{seconds_from_now, token};
use crate::support::websocket::Came;

/// Pause between two bytes that drip: far below any timeout of the server.
const DRIP: Duration = Duration::from_millis(20);

/// Longest wait for the server to end a connection; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one byte after the other of a message that never ends, until the server closes.
#[track_caller]
fn drip_until_closed(client: &mut Client, code: u16) -> String {
    let mut endless = frame(TEXT, true, true, &[b' '; 8192]).into_iter();
    client.websocket.socket.set_read_timeout(Some(DRIP)).unwrap();
    let began = Instant::now();
    while client.websocket.fill() != Came::End {
        while let Some((opcode, payload)) = client.websocket.received.next_frame() {
            if opcode == CLOSE {
                let reason = String::from_utf8(payload[2..].to_vec()).unwrap();
                assert_eq!(payload[..2], code.to_be_bytes(), "{reason}");
                return reason;
            }
        }
        assert!(began.elapsed() < PATIENCE, "it may drip for ever");
        client.websocket.send_bytes(&[endless.next().expect("a message longer than the patience")]);
    }
    panic!("the server hung up without a word");
}

/// No socket is left but the one that asks.
#[track_caller]
fn expect_places_back(server: &TestServer) {
    eventually("every place is given back", || server.metric("sockets") == 1);
}

#[test]
fn a_message_that_drips_before_connect_ends_in_time() {
    let server = TestServer::with("[client]\nconnect_timeout = \"300ms\"\n");
    let mut client = server.open();
    assert_eq!(drip_until_closed(&mut client, 3502), "stale");
    drop(client);
    expect_places_back(&server);
}

#[test]
fn a_token_expires_while_a_message_drips() {
    let server = TestServer::secured("expired_close_delay = \"0s\"\n");
    let claims = format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(2));
    let mut client = server.open();
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(&claims)));
    client.next_reply();
    assert_eq!(drip_until_closed(&mut client, 3005), "connection expired");
}

#[test]
fn a_client_that_drips_is_pinged_and_judged_by_its_pongs() {
    let server = TestServer::with("[client]\nping_interval = \"200ms\"\npong_timeout = \"150ms\"\n");
    let mut client = server.connect("ann");
    client.answers_pings = false;
    assert_eq!(drip_until_closed(&mut client, 3012), "no pong");
}

#[test]
fn a_flood_of_pings_before_connect_holds_no_place() {
    let server = TestServer::with("[client]\nconnect_timeout = \"300ms\"\n");
    let flood = frame(PING, true, true, &[b'x'; 125]).repeat(2_200);
    let mut client = server.open();
    client.websocket.send_bytes(&flood);
    drop(client);
    expect_places_back(&server);
    let mut reader = server.open();
    reader.websocket.send_bytes(&flood);
    let queued = server.metric("outbox_bytes");
    assert!(queued < 32 * 1024, "{queued} bytes of pongs are queued for somebody unknown");
    drop(reader);
    expect_places_back(&server);
}

#[test]
fn pings_before_connect_are_answered() {
    let server = TestServer::start();
    let mut client = server.open();
    client.websocket.send_bytes(&frame(PING, true, true, b"early"));
    let pong = client.websocket.read().unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"early"[..]));
    client.connect(r#"{"data":{"user":"ann"}}"#, "ann");
}

#[test]
fn nothing_of_a_prepared_frame_is_carried_out_after_a_kick() {
    let server = TestServer::start();
    let bob = server.connect("bob");
    let mut ann = server.connect("ann");
    let last = prepare_a_frame(&mut ann);
    server.api("disconnect", r#"{"user":"ann"}"#);
    assert_eq!(ann.expect_close(3503), "force disconnect");
    ann.websocket.send_bytes(&[last]);
    expect_nothing_carried_out(&server, ann, bob);
}

#[test]
fn nothing_of_a_prepared_frame_is_carried_out_after_an_expiry() {
    let server = TestServer::secured("expired_close_delay = \"0s\"\n");
    let bob = server.connect_with("bob", r#"{"sub":"bob"}"#);
    let mut ann = server.connect_with("ann", &format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(2)));
    let last = prepare_a_frame(&mut ann);
    assert_eq!(ann.expect_close(3005), "connection expired");
    ann.websocket.send_bytes(&[last]);
    expect_nothing_carried_out(&server, ann, bob);
}

/// Sends a frame of commands up to its last byte, which is given back.
fn prepare_a_frame(client: &mut Client) -> u8 {
    let commands = [
        r#"{"id":10,"publish":{"channel":"room","data":"after"}}"#,
        r#"{"id":11,"rpc":{"method":"contacts.add","data":{"user":"bob"}}}"#,
    ];
    let prepared = frame(TEXT, true, true, commands.join("\n").as_bytes());
    let (last, first) = prepared.split_last().unwrap();
    client.websocket.send_bytes(first);
    *last
}

/// The frame of one who is gone had no effect that another could see.
#[track_caller]
fn expect_nothing_carried_out(server: &TestServer, mut gone: Client, mut other: Client) {
    while gone.websocket.read().is_some() {}
    // Behind whatever the server made of the frame.
    drop(gone);
    expect_sockets(server, 2);
    other.join("room");
    other.publish("room", "1");
    other.expect_numbers(1..=1);
    let contacts = other.ask(r#"{"rpc":{"method":"contacts.list","data":{}}}"#);
    assert!(contacts.contains(r#""contacts":[]"#), "{contacts}");
}

#[track_caller]
fn expect_sockets(server: &TestServer, count: u64) {
    eventually("the other socket is gone", || server.metric("sockets") == count);
}

#[test]
fn a_message_before_connect_is_small() {
    let server = TestServer::start();
    let long = |bytes: usize| format!(r#"{{"id":1,"connect":{{"name":"{}"}}}}"#, "x".repeat(bytes));
    let mut client = server.open();
    client.send(&long(24 * 1024));
    assert_eq!(client.expect_close(1009), "message too big");
    let mut client = server.open();
    client.websocket.send_bytes(&frame(TEXT, false, true, &[b' '; 20 * 1024]));
    client.websocket.send_bytes(&frame(CONTINUATION, true, true, &[b' '; 20 * 1024])[..16 * 1024]);
    assert_eq!(client.expect_close(1009), "message too big", "pieces are no way round");
    let mut client = server.open();
    client.send(&long(20 * 1024));
    assert!(client.next_reply().contains("connect"));
    client.send(&format!(r#"{{"id":2,"ping":{{}},"pad":"{}"}}"#, "x".repeat(100 * 1024)));
    client.expect_reply(r#"{"id":2,"ping":{}}"#);
}
