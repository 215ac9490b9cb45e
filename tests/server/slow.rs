//! A client that does not read: it holds nobody up, and misses nothing.

use crate::support::at_a_pace_it_can_answer;
use crate::support::client::Client;
use crate::support::frames::{TEXT, frame};
use crate::support::server::TestServer;

/// Connections that ended because a pong did not come.
const NO_PONG: &str = "disconnects_total{code=\"3012\"}";

on_both_databases! {
    a_slow_reader_delays_nobody_and_gets_everything(server) {
        let (mut slow, mut quick) = (server.connect("slow"), server.connect("quick"));
        slow.join("room");
        quick.join("room");
        let mut writer = server.connect("writer");
        let pad = "x".repeat(50_000);
        for number in 1..=400 {
            writer.publish("room", &format!(r#"{{"n":{number},"pad":"{pad}"}}"#));
            assert!(quick.next_push().contains(&format!(r#""data":{{"n":{number},"#)), "20 MB, one by one");
        }
        assert_eq!(server.metric("connections"), 3, "the slow one is still there");
        assert!(server.metric("catch_ups_total") > 0);
        for number in 1..=400 {
            let push = slow.next_push();
            assert!(push.contains(&format!(r#""data":{{"n":{number},"#)), "expected {number}, got {}", &push[..80]);
            assert!(push.ends_with(&format!(r#""offset":{number}}}}}}}"#)));
        }
        slow.expect_silence("room");
        writer.publish("room", "401");
        assert!(slow.next_push().contains(r#""data":401,"#), "it is live again");
        assert_eq!(server.metric("catch_ups_active"), 0);
    }
}

/// Its memory is bounded: what does not fit is not queued but read from the database later.
#[test]
fn a_slow_reader_costs_little_memory() {
    let server = TestServer::start();
    let (mut slow, mut writer) = (server.connect("slow"), server.connect("writer"));
    slow.join("room");
    let pad = "x".repeat(50_000);
    for _ in 0..200 {
        writer.publish("room", &format!("\"{pad}\""));
    }
    let queued = server.metric("outbox_bytes");
    assert!(queued <= 2 * 256 * 1024, "{queued} bytes are queued");
}

#[test]
fn a_client_that_does_not_read_its_replies_is_made_to_wait() {
    let server = TestServer::start();
    let (mut rude, mut polite) = (server.connect("rude"), server.connect("polite"));
    let pad = "x".repeat(60_000);
    for _ in 0..8 {
        polite.publish("room", &format!("\"{pad}\""));
    }
    rude.websocket.socket.set_write_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let ask = |id: u32| format!(r#"{{"id":{id},"history":{{"channel":"room","limit":-1}}}}"#);
    let text: Vec<_> = (2..600).map(ask).collect();
    let bytes = frame(TEXT, true, true, text.join("\n").as_bytes());
    rude.websocket.send_bytes(&bytes);
    polite.publish("room", "1");
    assert!(server.metric("outbox_bytes") < 4 * 1024 * 1024);
    for id in 2..600 {
        assert!(rude.next_reply().starts_with(&format!(r#"{{"id":{id},"history""#)));
    }
}

#[test]
fn ephemeral_messages_are_dropped_for_the_slow_only() {
    let server = TestServer::start();
    let (mut slow, mut quick) = (server.connect("slow"), server.connect("quick"));
    slow.join("typing:a");
    quick.join("typing:a");
    let pad = "x".repeat(60_000);
    for number in 1..=300 {
        server.api("publish", &format!(r#"{{"channel":"typing:a","data":{{"n":{number},"pad":"{pad}"}}}}"#));
        assert!(quick.next_push().contains(&format!(r#""n":{number},"#)));
    }
    assert!(server.metric("dropped_ephemeral_total") > 0);
    assert_eq!(server.metric("connections"), 2);
}

/// What the kernel took may still be on its slow way, and the ping behind it: a pong that does not come
/// then says nothing about the client.
#[test]
fn a_slow_reader_is_not_taken_for_dead() {
    at_a_pace_it_can_answer(|pace| {
        let server = TestServer::with(pace);
        let mut slow = server.connect("slow");
        slow.call(r#"{"subscribe":{"channel":"room"}}"#);
        if !slow.receive_until(|slow| slow.waiting_replies() == 1) {
            return false;
        }
        let pad = "x".repeat(60_000);
        for number in 1..=200 {
            server.api("publish", &format!(r#"{{"channel":"room","data":{{"n":{number},"pad":"{pad}"}}}}"#));
            // Until its socket is full, it answers without reading.
            slow.send("{}");
        }
        if server.metric(NO_PONG) > 0 {
            return false;
        }
        let mut heard = 0;
        let mut hear = |slow: &mut Client| {
            heard += 1;
            assert!(slow.next_push().contains(&format!(r#""data":{{"n":{heard},"#)));
            heard
        };
        // It reads until nothing waits in the server any more; the rest is in the kernel.
        while server.metric("catch_ups_active") + server.metric("outboxes_blocked") > 0 {
            assert!(hear(&mut slow) < 200, "the kernel holds some of it");
        }
        server.pass_pings(5);
        while hear(&mut slow) < 200 {}
        slow.send(r#"{"id":9,"ping":{}}"#);
        slow.next_reply(); // of the subscribe
        assert_eq!(slow.next_reply(), r#"{"id":9,"ping":{}}"#, "five pings later it is still there");
        true
    });
}
