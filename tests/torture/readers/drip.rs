//! A byte now and then, through every state a connection has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{MIB, Siege, connect, expect_closed, expect_within};
use crate::crowd::Crowd;
use crate::form::short_or_long;
use crate::support::frames::{TEXT, frame};
use crate::support::server::TestServer;
use crate::support::token::{seconds_from_now, token};
use crate::swarm::StopOnDrop;

/// The beginning of a head that has no end.
const HEAD: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Endless: ";

/// A message that nobody lives to see the end of, byte by byte; a larger one is refused before connect.
fn endless() -> Vec<u8> {
    frame(TEXT, true, true, &[b' '; 20 * 1024])
}

#[test]
fn half_heads_end_in_ten_seconds() {
    let count = short_or_long(300, 5_000);
    let siege = Siege::with("");
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    let byte = |_, place: usize| HEAD.get(place).copied().unwrap_or(b'x');
    let pause = short_or_long(Duration::from_millis(200), Duration::from_secs(1));
    let took = crowd.drip(&siege.server, pause, byte);
    siege.judge("half heads", count, took, 8 * MIB + count as u64 * 4096);
    expect_within(Duration::from_secs(10 + 5) + pause, took, crowd.longest_wait());
    for peer in &mut crowd.peers {
        let head = peer.received.next_head().expect("an answer");
        assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    }
}

#[test]
fn half_frames_before_connect_end_by_the_connect_timeout() {
    let count = short_or_long(300, 5_000);
    let siege = Siege::with("[client]\nconnect_timeout = \"3s\"\n");
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    crowd.upgrade(&siege.server);
    let message = endless();
    let pause = short_or_long(Duration::from_millis(100), Duration::from_secs(1));
    let took = crowd.drip(&siege.server, pause, |_, place| message[place]);
    siege.judge("half frames before connect", count, took, 8 * MIB + count as u64 * 6144);
    expect_within(Duration::from_secs(3 + 5) + pause, took, crowd.longest_wait());
    expect_closed(&mut crowd.peers, 3502);
}

/// The deadline of a message is a minute; the short form ends them by their missing pongs.
#[test]
fn half_frames_of_connected_clients_end_in_a_minute() {
    let count = short_or_long(300, 5_000);
    let pings = short_or_long("ping_interval = \"2s\"\npong_timeout = \"1s\"\n", "ping_interval = \"30m\"\n");
    let siege = Siege::with(&format!("[client]\n{pings}"));
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    crowd.upgrade(&siege.server);
    crowd.ask(1, connect);
    let message = endless();
    let pause = short_or_long(Duration::from_millis(100), Duration::from_secs(1));
    let took = crowd.drip(&siege.server, pause, |_, place| message[place]);
    siege.judge("half frames", count, took, 8 * MIB + count as u64 * 8192);
    // The first ping comes within an interval.
    expect_within(Duration::from_secs(short_or_long(2 + 1, 60) + 5) + pause, took, crowd.longest_wait());
    expect_closed(&mut crowd.peers, short_or_long(3012, 3008));
}

/// Everybody that the server waits for drips, each in a state of its own.
#[test]
fn a_byte_dripped_through_every_state_ends_in_time() {
    let each = short_or_long(20, 500);
    let siege = Siege::of(TestServer::secured(
        "connect_timeout = \"2s\"\nping_interval = \"3s\"\npong_timeout = \"2s\"\nexpired_close_delay = \"0s\"\n",
    ));
    let server = &siege.server;
    let mut crowd = Crowd::default();
    crowd.open(server, 5 * each, true);
    crowd.upgrade(server);
    let claims = [
        r#"{"sub":"silent"}"#.to_owned(),
        r#"{"sub":"kicked"}"#.to_owned(),
        format!(r#"{{"sub":"expired","exp":{}}}"#, seconds_from_now(3)),
        format!(r#"{{"sub":"refused","exp":{}}}"#, seconds_from_now(-60)),
    ];
    let mut answered = vec![false; claims.len() * each];
    for (number, peer) in crowd.peers.iter_mut().take(answered.len()).enumerate() {
        let token = token(&claims[number / each]);
        peer.send_text(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    }
    crowd.run_until("all are answered", |crowd| {
        for (peer, answered) in crowd.peers.iter_mut().zip(&mut answered) {
            peer.take_frames(|_| *answered = true);
        }
        answered.iter().all(|answered| *answered)
    });
    let message = endless();
    crowd.peers.iter_mut().for_each(|peer| peer.send(&message[..1]));
    server.api("disconnect", r#"{"user":"kicked"}"#);
    crowd.open(server, 2 * each, true);
    let body =
        b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key\r\nContent-Length: 100000\r\n\r\n";
    crowd.peers.iter_mut().skip(6 * each).for_each(|peer| peer.send(body));
    let pause = Duration::from_millis(100);
    let took = crowd.drip(server, pause, |number, place| match number / each {
        0..5 => message[place + 1],
        5 => HEAD.get(place).copied().unwrap_or(b'x'),
        _ => b' ',
    });
    siege.judge("every state", crowd.peers.len(), took, 8 * MIB + crowd.peers.len() as u64 * 8192);
    expect_within(Duration::from_secs(30 + 5) + pause, took, crowd.longest_wait());
    for (number, peer) in crowd.peers.iter_mut().enumerate() {
        let expected = [Some(3012), Some(3503), Some(3005), None, Some(3502)];
        if let Some(expected) = expected.get(number / each) {
            peer.take_frames(|_| {});
            assert_eq!(peer.closed, *expected, "state {}", number / each);
        } else {
            let head = peer.received.next_head().expect("an answer");
            assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
        }
    }
}

/// A server that is told to stop does so by its grace, whatever its peers send.
#[test]
fn peers_that_drip_do_not_delay_a_shutdown() {
    let count = short_or_long(100, 2_000);
    let mut siege = Siege::with("");
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    crowd.upgrade(&siege.server);
    crowd.ask(1, connect);
    crowd.open(&siege.server, count, true);
    let (message, stopped) = (endless(), AtomicBool::new(false));
    let (began, code) = thread::scope(|scope| {
        scope.spawn(|| {
            for place in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                for (number, peer) in crowd.peers.iter_mut().enumerate() {
                    let byte = if number < count { message[place] } else { HEAD[place.min(HEAD.len() - 1)] };
                    peer.send(&[byte]);
                }
                crowd.turn();
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _stopping = StopOnDrop(&stopped);
        let began = Instant::now();
        (began, siege.server.stop())
    });
    let took = began.elapsed();
    siege.judge("shutdown", 2 * count, took, 8 * MIB + count as u64 * 16384);
    assert_eq!(code, Some(0));
    // The grace of test servers is 2 s; whoever is left is cut off.
    expect_within(Duration::from_secs(2), took, crowd.longest_wait());
    expect_closed(&mut crowd.peers[..count], 3001);
}
