//! The publishes of a connection that are on their way into the log, and their acks.
//!
//! Handing them over ends the turn; the thread that commits writes the acks. So a publisher owns no thread while
//! its commit lasts. Its next publishes may follow meanwhile, within a bound; everything else waits until those
//! before it are stored.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use super::held_rooms::HeldRooms;
use super::pending::{AckKind, PendingAck};
use crate::ids::Seq;
use crate::limits::{TURN_BYTES_MAX, TURN_COMMANDS_MAX};
use crate::net::rates::{Creation, Limit};
use crate::node::{Acknowledge, AppendError, NodeHandle, PublishError};
use crate::outbox::frame::Frames;
use crate::outbox::{Outbox, Work};
use crate::protocol::api::results::PublishResult;
use crate::protocol::code::ErrorCode;
use crate::protocol::message::Message;
use crate::protocol::reply::Reply;

/// What a connection has handed over and not heard of yet.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    messages: usize,
    bytes: usize,
    /// The connection waits until nothing is left.
    wake: bool,
    /// The log has taken, or refused, a message since that was last asked.
    stored: bool,
}

impl InFlight {
    pub(super) fn add(&self, messages: usize, bytes: usize) {
        let mut counts = self.lock();
        counts.messages += messages;
        counts.bytes += bytes;
    }

    /// True when the connection waits for this and nothing is left.
    fn end(&self, messages: usize, bytes: usize) -> bool {
        let mut counts = self.lock();
        debug_assert!(messages <= counts.messages && bytes <= counts.bytes, "answered twice");
        counts.messages -= messages;
        counts.bytes -= bytes;
        counts.messages == 0 && std::mem::take(&mut counts.wake)
    }

    /// True when the log has taken, or refused, a message since this was last asked.
    pub(super) fn take_stored(&self) -> bool {
        std::mem::take(&mut self.lock().stored)
    }

    /// True while something is on its way; then the connection is woken when nothing is any more.
    pub(super) fn wake_when_none(&self) -> bool {
        let mut counts = self.lock();
        counts.wake = counts.messages > 0;
        counts.wake
    }

    /// True while something is on its way.
    pub(super) fn is_some(&self) -> bool {
        self.lock().messages > 0
    }

    /// True when the connection is to hand over no more for now.
    pub(super) fn is_full(&self) -> bool {
        let counts = self.lock();
        counts.messages >= TURN_COMMANDS_MAX || counts.bytes >= TURN_BYTES_MAX
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The publishes of one turn. They may be in several commit lanes; the acks leave together, in order.
pub(super) struct Submission {
    node: Arc<NodeHandle>,
    outbox: Arc<Outbox>,
    in_flight: Arc<InFlight>,
    acks: Vec<PendingAck>,
    held: HeldRooms,
    bytes: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By index of the ack.
    outcomes: Vec<Option<Result<Seq, PublishError>>>,
    /// Lanes that have not answered.
    lanes_left: usize,
    /// The acks have left.
    over: bool,
}

/// The publishes of a turn in one commit lane.
pub(super) struct LanePart {
    submission: Arc<Submission>,
    /// The acks of its messages, in the order of these.
    indices: Vec<usize>,
}

impl Submission {
    /// Counts the publishes as on their way through so many lanes; `bytes` is the size of their payloads.
    pub(super) fn new(
        node: &Arc<NodeHandle>,
        outbox: &Arc<Outbox>,
        in_flight: &Arc<InFlight>,
        (acks, held): (Vec<PendingAck>, HeldRooms),
        bytes: usize,
        lanes: usize,
    ) -> Arc<Self> {
        debug_assert!(lanes > 0, "nobody would answer");
        in_flight.add(acks.len(), bytes);
        let (node, outbox, in_flight) = (node.clone(), outbox.clone(), in_flight.clone());
        let outcomes = acks.iter().map(|_| None).collect();
        let state = Mutex::new(State { outcomes, lanes_left: lanes, over: false });
        Arc::new(Self { node, outbox, in_flight, acks, held, bytes, state })
    }

    /// The part of it that one lane answers.
    pub(super) fn part(self: &Arc<Self>, indices: Vec<usize>) -> Arc<LanePart> {
        Arc::new(LanePart { submission: self.clone(), indices })
    }

    /// Encodes the acks, all of which have their outcome.
    fn encode(&self, outcomes: Vec<Option<Result<Seq, PublishError>>>) -> Frames {
        self.held.settle(&self.acks, &outcomes);
        let mut frames = Frames::new(self.outbox.format());
        for (ack, outcome) in self.acks.iter().zip(outcomes) {
            debug_assert_eq!(
                outcome.is_some(),
                ack.has_message(),
                "each message is answered, and nothing else"
            );
            let outcome = outcome.unwrap_or(Err(PublishError::Store(AppendError::Unavailable)));
            acknowledge(&mut frames, ack, outcome, &self.node);
        }
        frames
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acknowledge for LanePart {
    fn acknowledged(&self, outcomes: Vec<Result<Seq, PublishError>>) {
        debug_assert_eq!(outcomes.len(), self.indices.len(), "every publish of a turn is answered once");
        let failed = Err(PublishError::Store(AppendError::Unavailable));
        if outcomes.iter().any(|outcome| *outcome != failed) {
            self.submission.in_flight.lock().stored = true;
        }
        let mut state = self.submission.lock();
        for (index, outcome) in self.indices.iter().zip(outcomes) {
            state.outcomes[*index] = Some(outcome);
        }
        state.lanes_left -= 1;
        if state.lanes_left == 0 {
            let outcomes = std::mem::take(&mut state.outcomes);
            // With the lock held: the leader of another lane that sees no lane left also sees what to release.
            let _ = self.submission.outbox.hold(&self.submission.encode(outcomes).take());
        }
    }

    fn delivered(&self) {
        let submission = &self.submission;
        let mut state = submission.lock();
        if state.lanes_left > 0 || std::mem::replace(&mut state.over, true) {
            return;
        }
        drop(state);
        submission.outbox.release();
        if submission.in_flight.end(submission.acks.len(), submission.bytes) {
            submission.outbox.wake_reader();
        }
    }

    fn run(&self, work: Work) {
        match self.submission.outbox.reader() {
            Some(reader) => reader.run(work),
            None => debug_assert!(false, "only connections that a reader serves hand over"),
        }
    }
}

/// Appends the reply to a publish.
pub(super) fn acknowledge(
    frames: &mut Frames,
    ack: &PendingAck,
    outcome: Result<Seq, PublishError>,
    node: &NodeHandle,
) {
    let reply = |frames: &mut Frames, reply| frames.add(&Message::Reply(ack.id, reply));
    let refuse = |frames: &mut Frames, code: ErrorCode| {
        node.metrics().errors_total.with_label_values(&[&code.number().to_string()]).inc();
        reply(frames, Reply::Error(code));
    };
    if let AckKind::Refused(code) = ack.kind {
        return refuse(frames, code);
    }
    node.metrics().publish_ack_seconds.observe(ack.since.elapsed().as_secs_f64());
    let offset = match outcome {
        Ok(seq) => seq,
        Err(PublishError::Store(AppendError::UnknownRoom)) if ack.creation == Creation::Denied => {
            node.metrics().limited_total.with_label_values(&[Limit::UserNewRooms.as_str()]).inc();
            return refuse(frames, ErrorCode::TooManyRequests);
        }
        Err(error) => return refuse(frames, error.code()),
    };
    match ack.kind {
        AckKind::Publish | AckKind::Refused(_) => reply(frames, Reply::Publish),
        AckKind::Rpc => {
            let epoch = node.epoch();
            let epoch = if offset == 0 { "" } else { &*epoch };
            reply(frames, Reply::Rpc(&PublishResult { offset, epoch }));
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::ids::ConnectionId;
    use crate::net::client_rules::ClientRules;
    use crate::node::tests::rig::{Backend, Rig};
    use crate::protocol::format::Format;

    /// Two lanes answer at the same time, each by its own thread: the acks leave whoever comes last.
    #[test]
    fn acks_of_two_lanes_that_answer_at_once_leave() {
        let rig = Rig::new(Backend::Sqlite, "");
        let rules = Arc::new(ClientRules::new(&rig.config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let socket = Arc::new(listener.accept().unwrap().0);
        let outbox =
            rig.handle().outbox_for_socket(ConnectionId::next(), Format::Json, socket, None).unwrap();
        let _ = outbox.uncork(&bytes::Bytes::from_static(b"first"));
        client.read_exact(&mut [0; 5]).unwrap();
        let in_flight = Arc::default();
        for _ in 0..2000 {
            let (kind, creation) = (|| AckKind::Publish, Creation::Free);
            let ack = |id| PendingAck { id, kind: kind(), creation, since: Instant::now() };
            let acks = (vec![ack(1), ack(2)], HeldRooms::new(&rules, rules.rates.user("ann")));
            let submission = Submission::new(rig.handle(), &outbox, &in_flight, acks, 2, 2);
            let parts = [0, 1].map(|index| submission.part(vec![index]));
            thread::scope(|scope| {
                for part in &parts {
                    scope.spawn(|| {
                        part.acknowledged(vec![Ok(1)]);
                        part.delivered();
                    });
                }
            });
            let expected = "\u{1}{\"id\":1,\"publish\":{}}\n{\"id\":2,\"publish\":{}}".len() + 1;
            let mut frame = vec![0; expected];
            client.read_exact(&mut frame).expect("the acks leave");
            assert!(frame.ends_with(b"{\"id\":1,\"publish\":{}}\n{\"id\":2,\"publish\":{}}"));
            assert!(!in_flight.is_some());
        }
    }
}
