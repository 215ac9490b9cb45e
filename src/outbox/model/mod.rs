//! The outbox and its drainer in every order of steps: pushers, a replier, a peer that reads little at
//! a time, and the drainer's real loop over a wire in memory.
//!
//! A frame is a few bytes that name its sender, its number and its length, so that the stream tells
//! whether it is whole frames in the order of each sender.

mod in_memory;
pub(in crate::outbox) mod wire;

use std::sync::LazyLock;

use crossbeam_channel::{Receiver, unbounded};
use shuttle::thread;

pub(crate) use in_memory::InMemory;

use super::bell::Bell;
use super::*;
use crate::ids::Channel;
use crate::protocol::format::PerFormat;
use crate::sync::model::explore;
use drainer::Worker;
use queue::BUFFER_BYTES;

const FIRST: u8 = 200;
const REPLIER: u8 = 100;
/// For three frames.
const BUDGET: usize = 3 * BUFFER_BYTES + 12;

/// Shared by all runs: making them costs more than a run.
static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new()));

/// A frame of 3 to 5 bytes.
fn numbered(sender: u8, number: u8) -> Bytes {
    let length = 3 + number % 3;
    let mut frame = vec![sender, number];
    frame.resize(length.into(), length);
    frame.into()
}

struct Rig {
    outbox: Arc<Outbox>,
    bell: Arc<Bell>,
    wire: Wire,
    drained: Receiver<ConnectionId>,
    drainer: DrainerHandle,
    drainer_thread: thread::JoinHandle<()>,
}

/// The frames the outbox took from one thread.
#[derive(Default)]
struct Sent {
    accepted: Vec<Bytes>,
}

impl Rig {
    /// With the drainer's loop running.
    fn new() -> Arc<Self> {
        let (sender, drained) = unbounded();
        // The stall timeout never ends in a run; scenarios look for stalls themselves.
        let worker =
            Worker::new(Duration::from_secs(3600), sender, METRICS.clone()).expect("no system is asked");
        let drainer = worker.handle.clone();
        let wire = Wire::in_memory();
        let peer = Peer::Socket(wire.clone());
        let bell = Arc::new(Bell::default());
        let outbox = Outbox::new(
            (ConnectionId::next(), Format::Json),
            peer,
            BUDGET,
            drainer.clone(),
            Some(bell.clone()),
        );
        let drainer_thread = thread::spawn(move || worker.run());
        Arc::new(Self { outbox, bell, wire, drained, drainer, drainer_thread })
    }

    /// Pushes frames as a room does; a full outbox is asked for a notice, if this is who asks.
    fn push(&self, sender: u8, count: u8, asks: bool) -> Sent {
        let mut sent = Sent::default();
        for number in 0..count {
            let frame = numbered(sender, number);
            loop {
                match self.outbox.push(&frame) {
                    Push::Accepted => break sent.accepted.push(frame),
                    Push::Closed => return sent,
                    Push::Full if asks => {
                        if self.outbox.request_notice() {
                            self.wait_for_notice();
                        }
                    }
                    // A room would hand the listener to the catch-up pool.
                    Push::Full => break,
                }
            }
        }
        sent
    }

    /// A notice that was promised comes in every order of steps.
    fn wait_for_notice(&self) {
        loop {
            match self.drained.try_recv() {
                Ok(id) => return assert_eq!(id, self.outbox.id()),
                Err(_) => thread::yield_now(),
            }
        }
    }

    /// Replies as a session does, waiting for capacity between its replies.
    fn reply(&self, count: u8) -> Sent {
        let mut sent = Sent::default();
        for number in 0..count {
            let frame = numbered(REPLIER, number);
            if self.outbox.reply(&frame) == Push::Closed {
                break;
            }
            sent.accepted.push(frame);
            self.bell.wait_for_capacity(&self.outbox);
        }
        sent
    }

    /// Holds acks back and releases them, as a thread does that commits.
    fn acknowledge(&self, count: u8) -> Sent {
        let mut sent = Sent::default();
        for number in 0..count {
            let frame = numbered(REPLIER, number);
            if self.outbox.hold(&frame) == Push::Closed {
                break;
            }
            sent.accepted.push(frame);
            self.outbox.release();
        }
        sent
    }

    /// Reads to the end, a few bytes at a time.
    fn read_all(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for most in [1, 3, 2, 7].into_iter().cycle() {
            match self.wire.read(most) {
                Some(bytes) => all.extend(bytes),
                None => break,
            }
        }
        all
    }

    /// Ends the drainer and looks whether anything is left of the outbox.
    fn finish(self: Arc<Self>) {
        let Ok(rig) = Arc::try_unwrap(self) else { panic!("a thread still holds the rig") };
        rig.drainer.ask_to_stop().expect("the wire cannot fail");
        rig.drainer_thread.join().expect("the drainer failed");
        assert_eq!(rig.outbox.queued_bytes(), 0);
        assert!(rig.drainer.blocked().is_empty() && !rig.wire.is_registered(), "it is still watched");
        assert!(rig.drained.try_recv().is_err(), "one request, one notice");
    }
}

/// Starts a thread of a scenario.
fn go<T: Send + 'static>(
    rig: &Arc<Rig>,
    run: impl FnOnce(&Rig) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let rig = rig.clone();
    thread::spawn(move || run(&rig))
}

fn joined<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().expect("a thread of the scenario failed")
}

/// The frames of a stream, and whether it ends within one.
fn frames(mut stream: &[u8]) -> (Vec<&[u8]>, bool) {
    let mut frames = Vec::new();
    while let Some(length) = stream.get(2).map(|length| usize::from(*length)) {
        if stream.len() < length {
            break;
        }
        let (frame, rest) = stream.split_at(length);
        assert!(frame[2..].iter().all(|byte| usize::from(*byte) == length), "frames are mixed: {frame:?}");
        frames.push(frame);
        stream = rest;
    }
    (frames, !stream.is_empty())
}

/// The first frame, then each sender's accepted frames in order, then the last frame.
fn assert_whole(stream: &[u8], last: &Bytes, senders: &[Sent]) {
    let (mut frames, cut) = frames(stream);
    assert!(!cut, "the stream ends within a frame");
    assert_eq!(frames.remove(0), numbered(FIRST, 0), "what was held back overtook the first frame");
    assert_eq!(frames.pop(), Some(&last[..]), "the close frame is not the last");
    for sent in senders {
        let Some(sender) = sent.accepted.first().map(|frame| frame[0]) else { continue };
        let own: Vec<&[u8]> = frames.iter().copied().filter(|frame| frame[0] == sender).collect();
        assert_eq!(own, sent.accepted, "accepted frames were lost, repeated or reordered");
    }
    assert_eq!(frames.len(), senders.iter().map(|sent| sent.accepted.len()).sum::<usize>());
}

#[test]
fn accepted_frames_are_written_before_the_close() {
    explore(1500, || {
        let rig = Rig::new();
        let reader = go(&rig, Rig::read_all);
        let senders = [
            go(&rig, |rig| rig.push(1, 4, true)),
            go(&rig, |rig| rig.push(2, 3, false)),
            go(&rig, |rig| rig.reply(3)),
        ];
        assert_eq!(rig.outbox.uncork(&numbered(FIRST, 0)), Push::Accepted);
        let senders = senders.map(joined);
        let last = numbered(FIRST, 2);
        rig.outbox.finish_with(3000, &last);
        rig.bell.wait_flushed(&rig.outbox);
        assert_whole(&joined(reader), &last, &senders);
        rig.finish();
    });
}

#[test]
fn acks_that_are_held_leave_whole_and_in_order() {
    explore(1500, || {
        let rig = Rig::new();
        let reader = go(&rig, Rig::read_all);
        let senders = [go(&rig, |rig| rig.push(1, 3, true)), go(&rig, |rig| rig.acknowledge(3))];
        assert_eq!(rig.outbox.uncork(&numbered(FIRST, 0)), Push::Accepted);
        let last = numbered(FIRST, 2);
        rig.outbox.finish_with(3000, &last);
        let senders = senders.map(joined);
        assert_whole(&joined(reader), &last, &senders);
        rig.finish();
    });
}

#[test]
fn a_frame_pushed_during_a_close_is_written_whole_or_refused() {
    explore(1500, || {
        let rig = Rig::new();
        let reader = go(&rig, Rig::read_all);
        let senders = [go(&rig, |rig| rig.push(1, 3, true)), go(&rig, |rig| rig.reply(3))];
        assert_eq!(rig.outbox.uncork(&numbered(FIRST, 0)), Push::Accepted);
        let last = numbered(FIRST, 2);
        rig.outbox.finish_with(3000, &last);
        let senders = senders.map(joined);
        assert_whole(&joined(reader), &last, &senders);
        rig.finish();
    });
}

#[test]
fn after_a_notice_the_next_frame_fits() {
    explore(1500, || {
        let rig = Rig::new();
        let reader = go(&rig, Rig::read_all);
        assert_eq!(rig.outbox.uncork(&numbered(FIRST, 0)), Push::Accepted);
        let pusher = go(&rig, |rig| {
            let mut sent = Sent::default();
            let big = Bytes::from(vec![9; 9]);
            for number in 0..4 {
                let mut frame = big.to_vec();
                frame[..2].copy_from_slice(&[1, number]);
                let frame = Bytes::from(frame);
                if rig.outbox.push(&frame) == Push::Full {
                    if rig.outbox.request_notice() {
                        rig.wait_for_notice();
                    }
                    assert_eq!(rig.outbox.push(&frame), Push::Accepted, "the notice came too soon");
                }
                sent.accepted.push(frame);
            }
            sent
        });
        let sent = joined(pusher);
        let last = numbered(FIRST, 2);
        rig.outbox.finish_with(3000, &last);
        assert_whole(&joined(reader), &last, &[sent]);
        rig.finish();
    });
}

#[test]
fn a_stall_or_an_abort_at_any_moment_leaves_nobody_waiting() {
    explore(1500, || {
        let rig = Rig::new();
        let reader = go(&rig, Rig::read_all);
        let senders = [go(&rig, |rig| rig.push(1, 3, true)), go(&rig, |rig| rig.reply(3))];
        assert_eq!(rig.outbox.uncork(&numbered(FIRST, 0)), Push::Accepted);
        let stall = go(&rig, |rig| rig.drainer.check_stalls(Instant::now(), Duration::ZERO));
        joined(stall);
        rig.outbox.abort();
        let senders = senders.map(joined);
        let stream = joined(reader);
        // The frames read before the end are a beginning of what was accepted.
        for sent in senders {
            let Some(sender) = sent.accepted.first().map(|frame| frame[0]) else { continue };
            let (frames, _) = frames(&stream);
            let own: Vec<&[u8]> = frames.into_iter().filter(|frame| frame[0] == sender).collect();
            assert!(own.len() <= sent.accepted.len() && own == sent.accepted[..own.len()]);
        }
        rig.finish();
    });
}

/// A packet of one publication; its seq names sender and number.
fn publication(sender: u64, number: u64) -> Packet {
    let publication = Publication {
        channel: Channel::new("room").expect("it is a name"),
        seq: sender * 100 + number,
        data: "{}".into(),
        info: None,
        tags: None,
        created_at_ms: 0,
    };
    Packet::new(PerFormat::default(), Some([publication].into()))
}

/// Delivers publications as a room does; gives the seqs the outbox took.
fn deliver(outbox: &Arc<Outbox>, drained: Option<&Receiver<ConnectionId>>, sender: u64) -> Vec<u64> {
    let mut accepted = Vec::new();
    for number in 0..4 {
        loop {
            match (outbox.deliver(&publication(sender, number)), drained) {
                (Push::Accepted, _) => break accepted.push(sender * 100 + number),
                (Push::Closed, _) => return accepted,
                (Push::Full, None) => break,
                (Push::Full, Some(drained)) => {
                    while outbox.request_notice() && drained.try_recv().is_err() {
                        thread::yield_now();
                    }
                }
            }
        }
    }
    accepted
}

#[test]
fn a_consumer_takes_all_that_was_accepted_before_the_close() {
    explore(1500, || {
        let (sender, drained) = unbounded();
        let drainer = DrainerHandle::without_thread(sender, METRICS.clone()).expect("no system is asked");
        // For two publications, not for three.
        let budget = publication(0, 0).publication_bytes() * 5 / 2;
        let outbox = Outbox::for_consumer(ConnectionId::next(), budget, drainer);
        let (of_asker, of_other, of_taker) = (outbox.clone(), outbox.clone(), outbox.clone());
        let senders = [
            thread::spawn(move || deliver(&of_asker, Some(&drained), 1)),
            thread::spawn(move || deliver(&of_other, None, 2)),
        ];
        let taker = thread::spawn(move || {
            let mut taken = Vec::new();
            loop {
                match of_taker.take(None) {
                    Ok(publication) => taken.push(publication.seq),
                    Err(ended) => return (taken, ended),
                }
            }
        });
        let accepted = senders.map(joined);
        outbox.close(3000, "");
        let (taken, ended) = joined(taker);
        assert_eq!(ended, Some(Ended::Closed(3000)));
        for (sender, accepted) in (1..).zip(accepted) {
            let own: Vec<u64> = taken.iter().copied().filter(|seq| seq / 100 == sender).collect();
            assert_eq!(own, accepted, "accepted publications were lost, repeated or reordered");
        }
        assert_eq!(outbox.queued_bytes(), 0);
    });
}
