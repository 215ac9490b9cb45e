//! The turns of one shard, taken by hand: who is served when, and by whom.
//!
//! Without the worker's thread nothing happens between two turns, so these tests see what another
//! listener or a sender would only notice as a delay.

use crossbeam_channel::{Sender, TryRecvError};

use super::*;
use crate::engine::catch_up::lookups::{HeadQuestion, ReadHead};
use crate::engine::catch_up::pool::Worker;
use crate::engine::delivery::parallel;
use crate::engine::shard::Wait;
use crate::limits::SLICE_LISTENERS;
use crate::protocol::reply::Reply;

type Outcome = (Channel, Result<Joined, ErrorCode>);

/// An engine of one shard without threads.
pub(super) struct Still {
    pub(super) engine: Engine,
    drainer: Drainer,
    /// Serves what a test lets it.
    pool: Worker,
}

impl Still {
    pub(super) fn new() -> Self {
        let metrics = Arc::new(Metrics::new());
        let (notices, drained) = unbounded();
        let drainer = Drainer::start(Duration::from_secs(60), notices, metrics.clone()).unwrap();
        let mailboxes = Arc::new(Mailboxes::new(1, &metrics));
        let log = Arc::new(MemoryLog::default());
        let (catch_up, pool) = CatchUp::assemble(log, drained, mailboxes.clone(), metrics.clone());
        let Config { namespaces, rooms, .. } = Config::default();
        let context = Context { namespaces, rooms, metrics, catch_up };
        Self { engine: Engine::assemble(mailboxes, "epoch".into(), context), drainer, pool }
    }

    fn shard(&self) -> &Shard {
        &self.engine.shards[0]
    }

    fn send(&self, command: Command) {
        self.engine.mailboxes.iter().next().unwrap().send(command);
    }

    pub(super) fn force(&self, channel: &Channel, strategy: Strategy) {
        let (answer, _done) = bounded(1);
        let delivery = Some(Delivery::Forced(strategy));
        self.send(Command::OverrideStrategy { channel: channel.clone(), delivery, answer });
    }

    pub(super) fn listener(&self) -> Arc<Listener> {
        let outbox = Outbox::for_consumer(ConnectionId::next(), 1 << 20, self.drainer.handle());
        let info = ClientInfo { user: "".into(), client: "c".into(), conn_info: None, chan_info: None };
        Listener::new(Arc::new(info), outbox)
    }

    /// Asks for a room; the answer comes once its head is known.
    fn ask(&self, listener: &Arc<Listener>, channel: &Channel, answer: &Sender<Outcome>) {
        let request = JoinRequest {
            channel: channel.clone(),
            info: listener.info.clone(),
            recover: None,
            extra: Extra::default(),
            answer: Answer::Collect(answer.clone()),
            server_side: false,
        };
        self.engine.join(listener, request, 1000).unwrap();
        self.shard().turn();
    }

    /// Listeners of a room whose head is 0.
    pub(super) fn fill(&self, channel: &Channel, listeners: usize) -> Vec<Arc<Listener>> {
        let (sender, answers) = crossbeam_channel::unbounded();
        let join = |_| {
            let listener = self.listener();
            self.ask(&listener, channel, &sender);
            listener
        };
        let joined: Vec<_> = (0..listeners).map(join).collect();
        while self.pool.try_round() {}
        self.shard().turn();
        assert_eq!(answers.len(), listeners);
        joined
    }

    /// Takes turns, and sleeps between them as the worker does, until everybody is served.
    pub(super) fn flush(&self) {
        let (done, flushed) = bounded(1);
        self.send(Command::Flush { done });
        while flushed.try_recv() != Err(TryRecvError::Disconnected) {
            let wait = self.shard().turn();
            if flushed.try_recv() != Err(TryRecvError::Disconnected) {
                self.shard().sleep(wait);
            }
        }
    }

    pub(super) fn commit(&self, channels: &[&Channel]) -> bool {
        let publication = |channel: &&Channel| Publication {
            channel: (*channel).clone(),
            seq: 1,
            data: "1".into(),
            info: None,
            tags: None,
            created_at_ms: crate::clock::unix_ms(),
        };
        match self.engine.committed(channels.iter().map(publication).collect(), Instant::now()) {
            Some(deliver) => {
                deliver();
                true
            }
            None => false,
        }
    }

    pub(super) fn stop(self) {
        let panics = self.engine.context.metrics.shard_panics_total.get();
        assert_eq!(panics, 0, "an invariant broke in a turn");
        self.drainer.stop();
    }
}

/// Keeps the pool busy until what it returns is dropped.
fn hold_pool() -> Sender<()> {
    let (let_go, hold) = bounded::<()>(0);
    parallel::pool().unwrap().spawn_broadcast(move |_| {
        let _ = hold.recv();
    });
    let_go
}

fn has_heard(listener: &Listener) -> bool {
    listener.outbox.queued_bytes() > 0
}

/// A small room that comes after a huge one of its shard is served before the huge one is done.
#[test]
fn a_huge_fan_out_does_not_delay_other_rooms_of_its_shard() {
    let still = Still::new();
    let (huge, small) = (channel("huge"), channel("small"));
    still.force(&huge, Strategy::Worker);
    let crowd = still.fill(&huge, 3 * SLICE_LISTENERS);
    let few = still.fill(&small, 2);
    assert!(!still.commit(&[&huge, &small]));
    still.shard().turn();
    assert!(few.iter().all(|listener| has_heard(listener)));
    assert!(has_heard(&crowd[0]) && !has_heard(&crowd[SLICE_LISTENERS]), "one slice a turn");
    // A message to the small room in the middle of it waits for one slice, not for the rest.
    let late = channel("late");
    let listener = still.fill(&late, 1).remove(0);
    still.commit(&[&late]);
    still.shard().turn();
    assert!(has_heard(&listener));
    while still.shard().turn() == Wait::No {}
    assert!(crowd.iter().all(|listener| has_heard(listener)));
    still.stop();
}

/// While the pool is at a huge room, a small one of the same shard is served by its sender, as if there were
/// no huge one.
#[test]
fn a_slice_with_the_pool_does_not_delay_other_rooms() {
    let still = Still::new();
    let (huge, small) = (channel("huge"), channel("small"));
    still.force(&huge, Strategy::Parallel);
    let crowd = still.fill(&huge, 299);
    let few = still.fill(&small, 2);
    let mut leaver = Remote::new(&still.drainer);
    still.engine.join(&leaver.listener, leaver.request(&huge, Answer::Reply(1)), 1).unwrap();
    still.shard().turn();
    assert_eq!(leaver.listener.outbox.uncork(&frame::text(b"hello")), crate::outbox::Push::Accepted);

    let let_go = hold_pool();
    assert!(!still.commit(&[&huge]));
    still.shard().turn();
    assert!(still.commit(&[&small]), "the sender may deliver");
    assert!(few.iter().all(|listener| has_heard(listener)));
    assert!(!crowd.iter().any(|listener| has_heard(listener)));

    // A leave during the slice waits for its end: the message first, then the last frame.
    assert!(still.engine.leave(&leaver.listener, &huge, &Message::Reply(9, Reply::Unsubscribe)));
    still.shard().turn();
    drop(let_go);
    still.flush();
    assert!(crowd.iter().all(|listener| has_heard(listener)));
    assert!(leaver.read_until(r#"{"id":9,"unsubscribe":{}}"#).contains(r#""offset":1"#), "the message first");
    still.stop();
}

/// A worker that is told to stop serves first what the pool has.
#[test]
fn a_stop_waits_for_the_slice_with_the_pool() {
    let still = Still::new();
    let huge = channel("huge");
    still.force(&huge, Strategy::Parallel);
    let crowd = still.fill(&huge, 300);
    let let_go = hold_pool();
    still.commit(&[&huge]);
    still.shard().turn();
    still.send(Command::Stop);
    thread::scope(|scope| {
        let last = scope.spawn(|| {
            assert_eq!(still.shard().turn(), Wait::Stop);
            crowd.iter().filter(|listener| has_heard(listener)).count()
        });
        drop(let_go);
        assert_eq!(last.join().unwrap(), 300);
    });
    still.stop();
}

/// A sender does the same for a hundred listeners and for thousands: it queues one command.
#[test]
fn a_sender_delivers_to_small_rooms_only() {
    let still = Still::new();
    for (number, (listeners, inline)) in
        [(0, true), (10, true), (100, false), (4000, false)].into_iter().enumerate()
    {
        let room = channel(&format!("room{number}"));
        let crowd = still.fill(&room, listeners);
        let delivered = still.engine.context.metrics.deliveries_total.get();
        assert_eq!(still.commit(&[&room]), inline, "{listeners} listeners");
        let by_sender = still.engine.context.metrics.deliveries_total.get() - delivered;
        assert_eq!(by_sender, if inline { listeners as u64 } else { 0 });
        still.flush();
        assert!(crowd.iter().all(|listener| has_heard(listener)));
    }
    still.stop();
}

fn rooms_active(still: &Still) -> i64 {
    still.engine.context.metrics.rooms_active.get()
}

/// The time at which the worker would look for idle rooms.
fn next_timer(still: &Still) -> Duration {
    match still.shard().turn() {
        Wait::Until(timer) => timer.saturating_duration_since(Instant::now()),
        wait => panic!("no room is timed: {wait:?}"),
    }
}

/// Names that are only touched cost nothing afterwards, however many they are.
#[test]
fn a_room_that_was_only_touched_leaves_at_once() {
    let still = Still::new();
    let room = channel("room");
    let listener = still.fill(&room, 1).remove(0);
    assert_eq!(rooms_active(&still), 1);
    still.engine.disconnect(&listener);
    assert_eq!(still.shard().turn(), Wait::ForCommand, "its timer is gone too");
    assert_eq!(rooms_active(&still), 0);
    still.stop();
}

/// A message keeps a room for some seconds, also when its last listener leaves during the fan-out.
#[test]
fn a_room_that_had_a_message_stays_for_a_while() {
    let still = Still::new();
    let huge = channel("huge");
    still.force(&huge, Strategy::Parallel);
    let crowd = still.fill(&huge, 300);
    assert!(next_timer(&still) > Duration::from_secs(500), "a room with listeners is timed as a quiet one");
    let let_go = hold_pool();
    still.commit(&[&huge]);
    still.shard().turn();
    crowd.iter().for_each(|listener| still.engine.disconnect(listener));
    still.shard().turn();
    drop(let_go);
    still.flush();
    assert_eq!(rooms_active(&still), 1);
    assert!(next_timer(&still) <= Duration::from_secs(10));
    still.stop();
}

/// The worker sleeps until the next timer; it is woken for an earlier one and for no other.
#[test]
fn a_sender_wakes_the_worker_for_an_earlier_timer_only() {
    let still = Still::new();
    let listened = channel("listened");
    let _listener = still.fill(&listened, 1);
    let mailbox = still.engine.mailboxes.iter().next().unwrap();
    for (name, wakes) in [("first", true), ("second", false)] {
        assert!(still.commit(&[&channel(name)]), "nobody is there: the sender delivers");
        assert_eq!(!mailbox.is_empty(), wakes, "{name}");
        still.shard().turn();
    }
    still.stop();
}

/// A subscribe that is given up before its answer leaves no question and no room.
#[test]
fn a_join_that_is_given_up_is_answered_and_asks_nothing() {
    let still = Still::new();
    let (answer, answers) = bounded(10);
    let (leaver, gone, stays) = (still.listener(), still.listener(), still.listener());
    let (room, other) = (channel("room"), channel("other"));
    still.ask(&leaver, &room, &answer);
    still.ask(&gone, &room, &answer);
    still.ask(&leaver, &other, &answer);
    assert!(still.engine.leave(&leaver, &other, &Message::Ping));
    still.shard().turn();
    assert_eq!(answers.try_recv().unwrap().1.err(), Some(ErrorCode::TooManyRequests));
    assert_eq!(rooms_active(&still), 1, "the other room is gone");
    still.engine.disconnect(&leaver);
    still.ask(&stays, &room, &answer);
    still.engine.disconnect(&gone);
    still.shard().turn();
    let metrics = &still.engine.context.metrics;
    assert_eq!((answers.len(), metrics.head_lookups_waiting.get()), (2, 1));

    while still.pool.try_round() {}
    still.shard().turn();
    let outcomes: Vec<_> = answers.try_iter().map(|(_, outcome)| outcome.is_ok()).collect();
    assert_eq!(outcomes, [false, false, true], "who stays is answered");
    assert_eq!(metrics.head_lookups_total.get(), 1);
    still.engine.disconnect(&stays);
    assert_eq!(still.shard().turn(), Wait::ForCommand);
    assert_eq!(rooms_active(&still), 0);
    still.stop();
}

/// An answer is for the joins that asked: what it says may be old when the room comes back.
#[test]
fn an_answer_to_an_earlier_life_of_the_room_is_not_taken() {
    let still = Still::new();
    let (answer, answers) = bounded(10);
    let (first, second) = (still.listener(), still.listener());
    let room = channel("room");
    still.ask(&first, &room, &answer);
    still.engine.disconnect(&first);
    still.shard().turn();
    assert!(answers.try_recv().unwrap().1.is_err());
    still.ask(&second, &room, &answer);
    // A thread of the pool had taken the first question before it was withdrawn.
    still.send(Command::Head {
        question: HeadQuestion::new(room.clone()),
        head: Some(ReadHead { seq: 7, at: Instant::now() }),
    });
    still.shard().turn();
    assert!(answers.is_empty());
    still.pool.try_round();
    still.shard().turn();
    assert_eq!(answers.try_recv().unwrap().1.unwrap().offset, 0);
    still.stop();
}

/// Who asks for many rooms delays another's first subscribe by one look-up.
#[test]
fn look_ups_are_fair_to_each_connection() {
    let still = Still::new();
    let (answer, answers) = bounded(1000);
    let (greedy, other) = (still.listener(), still.listener());
    for number in 0..500 {
        still.ask(&greedy, &channel(&format!("room{number}")), &answer);
    }
    // Also for a room that the other asks for too, last of all.
    let last = channel("room499");
    still.ask(&other, &last, &answer);
    still.pool.try_round();
    still.pool.try_round();
    still.shard().turn();
    let answered: Vec<_> = answers.try_iter().map(|(channel, _)| channel).collect();
    assert_eq!(answered, [channel("room0"), last.clone(), last]);
    still.engine.disconnect(&greedy);
    still.shard().turn();
    assert!(!still.pool.try_round(), "nobody waits");
    assert_eq!(rooms_active(&still), 1);
    still.stop();
}
