//! How connections end: deadlines, pings, shutdown.

use crate::support::client::Client;
use crate::support::server::TestServer;
use crate::support::token::token;
use crate::support::websocket::{CLOSE, frame};

const SHORT: &str = "[client]\nping_interval = \"60ms\"\npong_timeout = \"40ms\"\n";

#[test]
fn no_connect_in_time() {
    let server = TestServer::with("[client]\nconnect_timeout = \"50ms\"\n");
    let mut client = server.open();
    assert_eq!(client.expect_close(3502), "stale");
    assert_eq!(server.metric("connections"), 0);
}

#[test]
fn pings_that_nobody_answers() {
    let server = TestServer::with(SHORT);
    let mut client = server.open();
    client.answers_pings = false;
    client.connect("{}", "mute");
    assert_eq!(client.expect_close(3012), "no pong");
}

#[test]
fn a_client_that_is_refused_and_says_goodbye_is_answered() {
    let server = TestServer::secured("");
    let mut client = server.open();
    let expired = token(r#"{"sub":"ann","exp":100}"#);
    client.send(&format!(r#"{{"id":1,"connect":{{"token":"{expired}"}}}}"#));
    client.expect_reply(r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#);
    client.websocket.send_bytes(&frame(CLOSE, true, true, &1000u16.to_be_bytes()));
    let goodbye = client.websocket.read().expect("an answer");
    assert_eq!((goodbye.opcode, &goodbye.payload[..2]), (CLOSE, &1000u16.to_be_bytes()[..]));
    assert!(client.websocket.read().is_none(), "and then the end");
}

#[test]
fn a_client_that_answers_pings_stays_and_is_pinged_on_schedule() {
    let server = TestServer::with(SHORT);
    let mut ann = server.connect("ann");
    ann.join("room");
    while ann.pings < 5 {
        ann.receive();
    }
    ann.publish("room", "1");
    ann.expect_numbers(1..=1);
}

#[test]
fn a_busy_connection_is_pinged_too() {
    let server = TestServer::with("[client]\nping_interval = \"200ms\"\npong_timeout = \"150ms\"\n");
    let mut ann = server.connect("ann");
    ann.join("room");
    let mut number = 1;
    while ann.pings < 3 {
        ann.publish_numbers("room", number..=number);
        ann.expect_numbers(number..=number);
        number += 1;
    }
}

/// The database holds the reader up for longer than the pong timeout; the pong waits in the socket.
#[test]
fn a_pong_counts_although_the_server_was_too_busy_to_read_it() {
    let server = TestServer::with(SHORT);
    let (mut ann, mut witness) = (server.connect("ann"), server.connect("witness"));
    ann.answers_pings = false;
    while ann.pings == 0 {
        ann.receive();
    }
    let lock = server.lock_sqlite();
    let id = ann.call(r#"{"publish":{"channel":"room","data":1}}"#);
    crate::support::eventually("it was read", || server.metric("commands_total{method=\"publish\"}") == 1);
    ann.send("{}");
    for _ in 0..3 {
        witness.receive();
    }
    drop(lock);
    assert_eq!(ann.reply_to(id), r#"{"publish":{}}"#);
    assert_eq!(ann.ask(r#"{"ping":{}}"#), r#"{"ping":{}}"#);
}

#[test]
fn shutdown_says_goodbye_after_everything_that_is_owed() {
    let mut server = TestServer::start();
    let (mut ann, mut idle) = (server.connect("ann"), server.open());
    ann.join("room");
    server.connect("bob").publish_numbers("room", 1..=100);
    crate::support::signal("TERM", server.pid());
    ann.expect_numbers(1..=100);
    assert_eq!(ann.expect_close(3001), "shutdown");
    assert_eq!(idle.expect_close(3001), "shutdown");
    drop((ann, idle));
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn clients_that_do_not_listen_can_not_hold_the_shutdown_up() {
    let mut server = TestServer::with("[client]\nstall_timeout = \"10m\"\n");
    let mut deaf = server.connect("deaf");
    deaf.join("room");
    let mut bob = server.connect("bob");
    for _ in 0..200 {
        bob.publish("room", &format!("\"{}\"", "x".repeat(60_000)));
    }
    assert_eq!(server.stop(), Some(0), "with `deaf` still connected and reading nothing");
}

#[test]
fn an_operator_may_choose_code_and_words() {
    let server = TestServer::start();
    let (mut ann, mut other) = (server.connect("ann"), server.connect("ann"));
    let keep = other.id.clone();
    let params =
        format!(r#"{{"user":"ann","whitelist":["{keep}"],"disconnect":{{"code":4001,"reason":"go away"}}}}"#);
    server.api("disconnect", &params);
    assert_eq!(ann.expect_close(4001), "go away");
    other.join("room");
    for bad in
        [r#"{"code":1000,"reason":"a"}"#, r#"{"code":4000,"reason":""}"#, r#"{"code":4000,"reason":"12"}"#]
    {
        let answer = server.api("disconnect", &format!(r#"{{"user":"ann","disconnect":{bad}}}"#));
        assert!(answer.starts_with(r#"{"error":{"code":107"#), "{answer}");
    }
}

#[test]
fn more_connections_than_allowed_are_turned_away_and_a_place_gets_free() {
    let server = TestServer::with("[client]\nconnections_max = 2\n");
    let (ann, _bob) = (server.connect("ann"), server.connect("bob"));
    let (head, _) = crate::support::websocket::WebSocket::try_open(server.address, "");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    drop(ann);
    let mut open = None;
    crate::support::eventually("a place is free", || {
        open = crate::support::websocket::WebSocket::try_open(server.address, "").1;
        open.is_some()
    });
}

#[test]
fn every_end_is_counted_by_its_code() {
    let server = TestServer::start();
    let ended = |client: &mut Client| {
        client.send("no json");
        client.expect_close(3501);
    };
    ended(&mut server.connect("ann"));
    ended(&mut server.connect("bob"));
    let metric = "disconnects_total{code=\"3501\"}";
    crate::support::eventually("both are counted", || server.metric(metric) == 2);
    assert_eq!(server.metric("connections"), 0);
}
