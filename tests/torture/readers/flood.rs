//! Peers that ask for more than they read, send what nobody wants, and come and go all at once.

use std::thread;
use std::time::{Duration, Instant};

use super::{MIB, Siege, connect, expect_closed, expect_only_the_asker, expect_within};
use crate::crowd::Crowd;
use crate::form::short_or_long;
use crate::support::server::TestServer;
use crate::support::token::{seconds_from_now, token};
use crate::support::{PATIENCE, eventually};
use crate::swarm::Writer;

/// Whoever asks without reading is asked nothing more of, and ends by the stall timeout; whoever reads gets all.
#[test]
fn clients_that_ask_for_history_and_do_not_read_hold_no_thread() {
    const COMMANDS: usize = 300;
    const MESSAGES: usize = 100;
    let count = short_or_long(100, 1_000);
    let siege = Siege::with(
        "readers_max = 64\n[client]\noutbox_bytes_max = \"64KiB\"\nstall_timeout = \"4s\"\nping_interval = \"30m\"\n",
    );
    let server = &siege.server;
    let mut writer = Writer::new(server, &["room"], 1000);
    writer.publish(MESSAGES);
    let history = |id: usize| format!(r#"{{"id":{id},"history":{{"channel":"room","limit":{MESSAGES}}}}}"#);
    let (mut greedy, mut patient) = (Crowd::default(), Crowd::default());
    for (crowd, count, reads) in [(&mut greedy, count, false), (&mut patient, 5, true)] {
        crowd.open(server, count, reads);
        crowd.upgrade(server);
        crowd.ask(2, |_| format!("{}\n{}", connect(0), r#"{"id":2,"subscribe":{"channel":"room"}}"#));
    }
    let frame = (3..3 + COMMANDS).map(history).collect::<Vec<_>>().join("\n");
    let began = Instant::now();
    for peer in &mut greedy.peers {
        peer.reads = false;
        peer.send_text(&frame);
    }
    patient.peers.iter_mut().for_each(|peer| peer.send_text(&frame));
    let mut answers = vec![0; patient.peers.len()];
    let (mut acked, mut slowest, others) = (0, Duration::ZERO, patient.peers.len() as u64 + 1);
    let mut gone_after = None;
    let mut look = || {
        let asked = Instant::now();
        if gone_after.is_none() && server.metric("connections") == others {
            gone_after = Some(began.elapsed());
        }
        (gone_after, asked.elapsed())
    };
    patient.run_until("those who read have all answers, in order", |patient| {
        for (peer, answers) in patient.peers.iter_mut().zip(&mut answers) {
            peer.take_frames(|line| *answers += usize::from(is_answer(line, 3 + *answers, MESSAGES)));
            assert_eq!((peer.ended, peer.closed), (false, None), "who reads is not hung up on");
        }
        let sent = Instant::now();
        writer.publish(1);
        acked += 1;
        slowest = slowest.max(sent.elapsed()).max(look().1);
        answers.iter().all(|answers| *answers == COMMANDS)
    });
    eventually("those who do not read are gone", || look().0.is_some());
    let (Some(took), _) = look() else { unreachable!("they are") };
    eprintln!("readers, history: acked_meanwhile={acked} slowest_ack_ms={}", slowest.as_millis());
    // A frame of commands, the budget, and beyond it as many answers as fill a frame and one page.
    let each = (2 * frame.len() + (64 + 128 + 512) * 1024) as u64;
    siege.judge("history that is not read", count, took, 16 * MIB + count as u64 * each);
    expect_within(Duration::from_secs(4 + 5), took, slowest.max(patient.longest_wait()));
    assert_eq!(server.metric(r#"disconnects_total{code="3008"}"#), count as u64);
    eventually("their bytes are given back", || server.metric("outbox_bytes") == 0);
}

/// True for the answer with this id, which has so many messages; false for what is no answer.
fn is_answer(line: &str, id: usize, messages: usize) -> bool {
    if !line.starts_with(r#"{"id":"#) {
        return false;
    }
    assert!(line.starts_with(&format!(r#"{{"id":{id},"history""#)), "not the answer to {id}: {:.80}", line);
    assert_eq!(line.matches(r#""offset""#).count(), messages + 1);
    true
}

#[test]
fn refused_clients_that_stay_are_gone_five_seconds_later() {
    let count = short_or_long(100, 1_000);
    let siege = Siege::of(TestServer::secured(""));
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    crowd.upgrade(&siege.server);
    let late = token(&format!(r#"{{"sub":"late","exp":{}}}"#, seconds_from_now(-60)));
    let began = Instant::now();
    for peer in &mut crowd.peers {
        peer.send_text(&format!(r#"{{"id":1,"connect":{{"token":"{late}"}}}}"#));
    }
    crowd.run_until("all are hung up on", |crowd| crowd.ended() == count);
    expect_only_the_asker(&siege.server);
    let took = began.elapsed();
    siege.judge("refused, and stay", count, took, 8 * MIB + count as u64 * 8192);
    expect_within(Duration::from_secs(5), took, crowd.longest_wait());
    for peer in &mut crowd.peers {
        let mut refusals = 0;
        peer.take_frames(|line| refusals += usize::from(line.contains(r#""code":109"#)));
        assert_eq!(refusals, 1);
    }
}

#[test]
fn bodies_that_nobody_wants_take_no_memory() {
    let count = short_or_long(60, 300);
    let siege = Siege::with("");
    let mut crowd = Crowd::default();
    crowd.open(&siege.server, count, true);
    let body = vec![b'x'; 4 * MIB as usize];
    let head = format!("POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    let began = Instant::now();
    for peer in &mut crowd.peers {
        peer.send(head.as_bytes());
        peer.send(&body);
    }
    crowd.run_until("all are answered and hung up on", |crowd| crowd.ended() == count);
    let took = began.elapsed();
    for peer in &mut crowd.peers {
        let head = peer.received.next_head().expect("an answer");
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    }
    drop(crowd);
    expect_only_the_asker(&siege.server);
    siege.judge("4 MiB bodies to /health", count, took, 16 * MIB);
}

/// Answers that are not read, over connections that are kept, end by the deadline of an answer. The kernel would
/// give up on the peer after the stall timeout, which is long here.
#[test]
fn answers_that_are_not_read_hold_no_thread_and_end() {
    let count = short_or_long(50, 500);
    let siege = Siege::with("readers_max = 64\n[client]\nstall_timeout = \"10m\"\n");
    let server = &siege.server;
    let mut writer = Writer::new(server, &["room"], 4000);
    writer.publish(100);
    let mut crowd = Crowd::default();
    crowd.open(server, count, false);
    let params = r#"{"channel":"room","limit":100}"#;
    let request = format!(
        "POST /api/history HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{params}",
        params.len()
    )
    .repeat(50);
    let (mut acked, mut slowest, began) = (0, Duration::ZERO, Instant::now());
    for peer in &mut crowd.peers {
        peer.reads = false;
        peer.send(request.as_bytes());
    }
    // The writer has a socket too.
    while server.metric("sockets") > 2 {
        let sent = Instant::now();
        writer.publish(1);
        (acked, slowest) = (acked + 1, slowest.max(sent.elapsed()));
        crowd.turn();
        assert!(began.elapsed() < PATIENCE, "{} sockets are left", server.metric("sockets"));
        thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed();
    eprintln!("readers, answers: acked_meanwhile={acked} slowest_ack_ms={}", slowest.as_millis());
    siege.judge("answers that are not read", count, took, 16 * MIB + count as u64 * 1024 * 1024);
    expect_within(Duration::from_secs(30), took, slowest.max(crowd.longest_wait()));
}

/// Everybody comes at once and is told to go at once, by a kick and by a shutdown.
#[test]
fn a_crowd_that_comes_and_goes_at_once_needs_few_threads() {
    const THREADS: u64 = 200;
    let count = short_or_long(500, 10_000);
    let mut siege = Siege::with("");
    for how in ["a kick", "a shutdown"] {
        let mut crowd = Crowd::default();
        crowd.open(&siege.server, count, true);
        let began = Instant::now();
        crowd.upgrade(&siege.server);
        crowd.ask(2, |_| format!("{}\n{}", connect(0), r#"{"id":2,"subscribe":{"channel":"room"}}"#));
        let came = began.elapsed();
        let told = Instant::now();
        thread::scope(|scope| {
            let server = &mut siege.server;
            let telling = scope.spawn(move || match how {
                "a kick" => drop(server.api("disconnect", r#"{"user":"many"}"#)),
                _ => assert_eq!(server.stop(), Some(0)),
            });
            crowd.run_until("all are gone", |crowd| crowd.ended() == count);
            telling.join().unwrap();
        });
        let took = told.elapsed();
        expect_closed(&mut crowd.peers, if how == "a kick" { 3503 } else { 3001 });
        drop(crowd);
        if how == "a kick" {
            expect_only_the_asker(&siege.server);
        }
        let threads = siege.watch.threads() - siege.base_threads;
        eprintln!(
            "readers, {how}: peers={count} came_in={:.2} gone_in={:.2} more_threads={threads}",
            came.as_secs_f64(),
            took.as_secs_f64()
        );
        assert!(threads <= THREADS, "{threads} more threads");
    }
}
