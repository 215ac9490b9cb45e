//! How connections end: deadlines, pings, shutdown.

use crate::support::client::Client;
use crate::support::frames::{CLOSE, frame};
use crate::support::server::TestServer;
use crate::support::token::token;
use crate::support::websocket::WebSocket;
use crate::support::{at_a_pace_it_can_answer, eventually};

const SHORT: &str = "[client]\nping_interval = \"60ms\"\npong_timeout = \"40ms\"\n";

#[test]
fn a_client_that_never_connects_is_closed() {
    let server = TestServer::with("[client]\nconnect_timeout = \"50ms\"\n");
    let mut client = server.open();
    assert_eq!(client.expect_close(3502), "stale");
    assert_eq!(server.metric("connections"), 0);
}

#[test]
fn unanswered_pings_close_with_no_pong() {
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
    at_a_pace_it_can_answer(|pace| {
        let server = TestServer::with(pace);
        let mut ann = server.connect("ann");
        ann.call(r#"{"subscribe":{"channel":"room"}}"#);
        ann.call(r#"{"publish":{"channel":"room","data":1}}"#);
        ann.receive_until(|ann| ann.pings == 5 && ann.waiting_pushes() == 1)
    });
}

#[test]
fn a_busy_connection_is_pinged_too() {
    at_a_pace_it_can_answer(|pace| {
        let server = TestServer::with(pace);
        let mut ann = server.connect("ann");
        ann.call(r#"{"subscribe":{"channel":"room"}}"#);
        let mut published = 0;
        while ann.pings < 3 {
            published += 1;
            ann.call(r#"{"publish":{"channel":"room","data":1}}"#);
            if !ann.receive_until(|ann| ann.waiting_pushes() == published) {
                return false;
            }
        }
        true
    });
}

/// The database holds the reader up for longer than the pong timeout; the pong waits in the socket.
#[test]
fn a_pong_counts_although_the_server_was_too_busy_to_read_it() {
    at_a_pace_it_can_answer(|pace| {
        let server = TestServer::with(pace);
        let mut ann = server.connect("ann");
        ann.answers_pings = false;
        if !ann.receive_until(|ann| ann.pings == 1) {
            return false;
        }
        let lock = server.lock_sqlite();
        let publish = ann.call(r#"{"publish":{"channel":"room","data":1}}"#);
        let (published, late) = ("commands_total{method=\"publish\"}", "disconnects_total{code=\"3012\"}");
        eventually("it was read", || server.metric(published) + server.metric(late) > 0);
        if server.metric(late) > 0 {
            return false;
        }
        ann.send("{}");
        let ping = ann.call(r#"{"ping":{}}"#);
        server.pass_pings(3);
        drop(lock);
        // This pong may itself have come too late, and then at a slower pace the next one does not.
        if !ann.receive_until(|ann| ann.waiting_replies() == 2) {
            return false;
        }
        // Stored, or refused because the database was held for too long.
        assert!(ann.reply_to(publish).starts_with('{'));
        assert_eq!(ann.reply_to(ping), r#"{"ping":{}}"#, "the pong before it counts");
        true
    });
}

#[test]
fn shutdown_delivers_what_is_owed_then_closes() {
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
fn a_closed_terminal_ends_the_server_like_sigterm() {
    let mut server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("room");
    server.connect("bob").publish_numbers("room", 1..=100);
    // The kernel and the shell may both send it.
    crate::support::signal("HUP", server.pid());
    crate::support::signal("HUP", server.pid());
    ann.expect_numbers(1..=100);
    assert_eq!(ann.expect_close(3001), "shutdown");
    drop(ann);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn clients_that_do_not_read_do_not_delay_shutdown() {
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
fn connections_over_the_limit_are_refused_until_one_ends() {
    let server = TestServer::with("[client]\nconnections_max = 2\n");
    let (ann, _bob) = (server.connect("ann"), server.connect("bob"));
    let (head, _) = WebSocket::try_open(server.address, "");
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    drop(ann);
    let mut open = None;
    eventually("a place is free", || {
        open = WebSocket::try_open(server.address, "").1;
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
    eventually("both are counted", || server.metric(metric) == 2);
    assert_eq!(server.metric("connections"), 0);
}
