//! The outbox against real sockets.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;

use crossbeam_channel::{Receiver, unbounded};

use super::bell::Bell;
use super::*;
use crate::ids::Channel;
use crate::protocol::format::PerFormat;

struct Rig {
    drainer: Drainer,
    drained: Receiver<ConnectionId>,
    outbox: Arc<Outbox>,
    bell: Arc<Bell>,
    client: TcpStream,
}

fn rig(budget: usize, stall: Duration) -> Rig {
    let (sender, drained) = unbounded();
    let drainer = Drainer::start(stall, sender, Arc::new(Metrics::new())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (id, bell) = (ConnectionId::next(), Arc::new(Bell::default()));
    let outbox =
        Outbox::for_socket(id, Format::Json, Arc::new(server), budget, drainer.handle(), Some(bell.clone()))
            .unwrap();
    Rig { drainer, drained, outbox, bell, client }
}

fn numbered(number: u32) -> Bytes {
    let mut frame = vec![b'x'; 1000];
    frame[..4].copy_from_slice(&number.to_be_bytes());
    Bytes::from(frame)
}

#[test]
fn a_full_outbox_refuses_frames_and_gives_notice_when_drained() {
    let mut rig = rig(64 * 1024, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&numbered(0)), Push::Accepted);
    let mut sent = 1;
    while rig.outbox.push(&numbered(sent)) == Push::Accepted {
        sent += 1;
    }
    assert!(rig.outbox.queued_bytes() <= 64 * 1024);
    assert!(rig.outbox.request_notice());

    let mut frame = [0; 1000];
    for expected in 0..sent {
        rig.client.read_exact(&mut frame).unwrap();
        assert_eq!(frame[..4], expected.to_be_bytes());
    }
    assert_eq!(rig.drained.recv().unwrap(), rig.outbox.id());
    assert!(rig.drained.is_empty(), "one request, one notice");
    assert_eq!(rig.outbox.queued_bytes(), 0);
    rig.drainer.stop();
}

#[test]
fn pongs_that_wait_are_one() {
    let mut rig = rig(64 * 1024, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&numbered(0)), Push::Accepted);
    let mut sent = 1;
    while rig.outbox.queued_bytes() < 2_000 {
        assert_eq!(rig.outbox.push(&numbered(sent)), Push::Accepted);
        sent += 1;
    }
    let before = rig.outbox.queued_bytes();
    for number in 0..100 {
        assert_eq!(rig.outbox.pong(&Bytes::from(vec![0x8A, 1, number])), Push::Accepted);
    }
    assert_eq!(rig.outbox.queued_bytes(), before + memory_bytes(&Bytes::from_static(&[0x8A, 1, 0])));
    assert_eq!(rig.outbox.push(&numbered(sent)), Push::Accepted);
    assert_eq!(rig.outbox.pong(&Bytes::from_static(&[0x8A, 0])), Push::Accepted);
    let mut received = vec![0; 1000 * (sent as usize + 1) + 5];
    rig.client.read_exact(&mut received).unwrap();
    let (frames, end) = received.split_at(1000 * sent as usize);
    assert!(frames.chunks(1000).zip(0_u32..).all(|(frame, number)| frame[..4] == number.to_be_bytes()));
    assert_eq!(end[..3], [0x8A, 1, 99], "the answer to the last ping");
    assert_eq!((&end[3..7], &end[1003..]), (&sent.to_be_bytes()[..], &[0x8A, 0][..]));
    rig.drainer.stop();
}

#[test]
fn many_small_replies_fill_the_budget() {
    let rig = rig(64 * 1024, Duration::from_secs(60));
    let mut replies = 0;
    while !rig.outbox.is_over_budget() {
        assert_eq!(rig.outbox.reply(&Bytes::from(vec![b'x'; 20])), Push::Accepted);
        replies += 1;
    }
    assert!(replies < 500, "{replies} allocations in 64 KiB");
    rig.drainer.stop();
}

#[test]
fn corked_frames_follow_the_first_reply() {
    let mut rig = rig(64 * 1024, Duration::from_secs(60));
    assert_eq!(rig.outbox.push(&Bytes::from_static(b"two")), Push::Accepted);
    assert_eq!(rig.outbox.uncork(&Bytes::from_static(b"one")), Push::Accepted);
    let mut text = [0; 6];
    rig.client.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"onetwo");
    rig.drainer.stop();
}

#[test]
fn a_close_is_written_behind_everything_queued() {
    let mut rig = rig(1 << 20, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&numbered(0)), Push::Accepted);
    for number in 1..900 {
        assert_eq!(rig.outbox.push(&numbered(number)), Push::Accepted);
    }
    rig.outbox.close(3001, "shutdown");
    assert_eq!(rig.outbox.push(&numbered(900)), Push::Closed);
    let mut all = Vec::new();
    rig.client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 900 * 1000 + frame::close(3001, "shutdown").len());
    assert!(all.ends_with(&frame::close(3001, "shutdown")));
    assert_eq!(rig.outbox.ended(), Some(Ended::Closed(3001)));
    rig.drainer.stop();
}

#[test]
fn a_socket_that_takes_nothing_is_ended() {
    let rig = rig(64 * 1024, Duration::from_millis(50));
    assert_eq!(rig.outbox.uncork(&numbered(0)), Push::Accepted);
    let mut number = 1;
    while rig.outbox.push(&numbered(number)) == Push::Accepted {
        number += 1;
    }
    assert_eq!(rig.outbox.reply(&Bytes::from(vec![0; 1 << 20])), Push::Accepted);
    rig.bell.wait_for_capacity(&rig.outbox);
    assert_eq!(rig.outbox.ended(), Some(Ended::Stalled));
    rig.drainer.stop();
}

#[test]
fn what_is_held_leaves_with_the_next_frame_or_when_released() {
    let mut rig = rig(1024, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&Bytes::from_static(b"first")), Push::Accepted);
    let mut text = [0; 64];
    let count = rig.client.read(&mut text).unwrap();
    assert_eq!(&text[..count], b"first");

    assert_eq!(rig.outbox.hold(&Bytes::from_static(b"ack")), Push::Accepted);
    rig.client.set_nonblocking(true).unwrap();
    assert_eq!(rig.client.read(&mut text).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    rig.client.set_nonblocking(false).unwrap();
    assert_eq!(rig.outbox.push(&Bytes::from_static(b" push")), Push::Accepted);
    let count = rig.client.read(&mut text).unwrap();
    assert_eq!(&text[..count], b"ack push", "in one send");
    rig.outbox.release();

    assert_eq!(rig.outbox.hold(&Bytes::from_static(b"alone")), Push::Accepted);
    rig.outbox.release();
    let count = rig.client.read(&mut text).unwrap();
    assert_eq!(&text[..count], b"alone");

    assert_eq!(rig.outbox.hold(&Bytes::from_static(b"x")), Push::Accepted);
    let large = Bytes::from(vec![b'y'; 2048]);
    assert_eq!(rig.outbox.push(&large), Push::Accepted, "what is held is no reason to refuse");
    assert_eq!(rig.outbox.hold(&Bytes::from_static(b"z")), Push::Accepted);
    rig.outbox.close(3000, "");
    let mut all = Vec::new();
    rig.client.read_to_end(&mut all).unwrap();
    assert_eq!(all, [b"x", &large[..], b"z", &frame::close(3000, "")].concat());
    rig.drainer.stop();
}

#[test]
fn the_reader_is_woken_when_there_is_capacity_and_at_the_end() {
    let mut rig = rig(64 * 1024, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&numbered(0)), Push::Accepted);
    assert!(!rig.outbox.wake_at_capacity() && !rig.outbox.wake_at_flushed(), "nothing is queued");
    let mut replies = 1;
    while !rig.outbox.wake_at_capacity() {
        assert_eq!(rig.outbox.reply(&numbered(replies)), Push::Accepted);
        replies += 1;
    }
    assert!(rig.outbox.is_over_budget());
    let mut frame = [0; 1000];
    let client = thread::spawn(move || {
        for expected in 0..replies {
            rig.client.read_exact(&mut frame).unwrap();
            assert_eq!(frame[..4], expected.to_be_bytes());
        }
        rig.client
    });
    rig.bell.wait();
    assert!(!rig.outbox.is_over_budget(), "woken too early");
    rig.bell.wait_flushed(&rig.outbox);
    let _client = client.join().unwrap();
    assert_eq!(rig.outbox.queued_bytes(), 0);
    rig.outbox.close(3503, "force disconnect");
    rig.bell.wait();
    rig.drainer.stop();
}

#[test]
fn many_writers_never_interleave_within_a_frame() {
    let rig = rig(1 << 20, Duration::from_secs(60));
    assert_eq!(rig.outbox.uncork(&Bytes::from(vec![9; 1000])), Push::Accepted);
    let mut client = rig.client;
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            let outbox = &rig.outbox;
            scope.spawn(move || {
                let frame = Bytes::from(vec![writer; 1000]);
                for _ in 0..500 {
                    while outbox.push(&frame) == Push::Full {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut frame = [0; 1000];
        for _ in 0..2001 {
            client.read_exact(&mut frame).unwrap();
            assert!(frame.iter().all(|byte| *byte == frame[0]));
        }
    });
    rig.drainer.stop();
}

fn publications(seqs: std::ops::RangeInclusive<u64>) -> Packet {
    let publication = |seq| Publication {
        channel: Channel::new("room").unwrap(),
        seq,
        data: "x".repeat(1000).into(),
        info: None,
        tags: None,
        created_at_ms: 0,
    };
    Packet::new(PerFormat::default(), Some(seqs.map(publication).collect()))
}

fn consumer(budget: usize) -> (Arc<Outbox>, Drainer, Receiver<ConnectionId>) {
    let (sender, drained) = unbounded();
    let drainer = Drainer::start(Duration::from_secs(60), sender, Arc::new(Metrics::new())).unwrap();
    (Outbox::for_consumer(ConnectionId::next(), budget, drainer.handle()), drainer, drained)
}

fn take_seq(outbox: &Outbox) -> Result<u64, Option<Ended>> {
    outbox.take(Some(Instant::now())).map(|publication| publication.seq)
}

#[test]
fn a_consumer_takes_publications_in_order_within_its_budget() {
    let (outbox, drainer, drained) = consumer(3000);
    assert_eq!(outbox.deliver(&publications(1..=1)), Push::Accepted);
    assert_eq!(outbox.deliver(&publications(2..=2)), Push::Accepted);
    assert_eq!(outbox.deliver(&publications(3..=3)), Push::Full);
    assert!((2000..=3000).contains(&outbox.queued_bytes()));
    assert!(outbox.request_notice());
    assert_eq!(take_seq(&outbox), Ok(1));
    assert!(drained.is_empty(), "something is queued");
    assert_eq!(take_seq(&outbox), Ok(2));
    assert_eq!(drained.recv().unwrap(), outbox.id());
    assert_eq!(outbox.queued_bytes(), 0);
    // An empty outbox takes a packet of any size, all of it.
    assert_eq!(outbox.deliver(&publications(3..=9)), Push::Accepted);
    assert!((3..=9).all(|seq| take_seq(&outbox) == Ok(seq)));
    assert_eq!(take_seq(&outbox), Err(None));
    drainer.stop();
}

#[test]
fn a_consumer_takes_everything_before_it_learns_of_the_close() {
    let (outbox, drainer, _) = consumer(3000);
    assert_eq!(outbox.deliver(&publications(1..=2)), Push::Accepted);
    outbox.close(3010, "insufficient state");
    assert_eq!(outbox.deliver(&publications(3..=3)), Push::Closed);
    assert_eq!((take_seq(&outbox), take_seq(&outbox)), (Ok(1), Ok(2)));
    assert_eq!(outbox.take(None), Err(Some(Ended::Closed(3010))));
    drainer.stop();
}

#[test]
fn a_consumer_gets_no_frames() {
    let (outbox, drainer, _) = consumer(3000);
    assert_eq!((outbox.push(&numbered(1)), outbox.reply(&numbered(2))), (Push::Accepted, Push::Accepted));
    assert_eq!((outbox.queued_bytes(), take_seq(&outbox)), (0, Err(None)));
    outbox.abort();
    assert_eq!(outbox.push(&numbered(3)), Push::Closed);
    drainer.stop();
}

#[test]
fn a_push_into_an_empty_outbox_reads_one_cache_line() {
    let lock = size_of::<Mutex<Inner>>() - size_of::<Inner>();
    let queue = std::mem::offset_of!(Outbox, inner) + lock + std::mem::offset_of!(Inner, queue);
    let end = queue + Queue::HOT_BYTES;
    assert!(end <= align_of::<Outbox>(), "{end} bytes");
}
