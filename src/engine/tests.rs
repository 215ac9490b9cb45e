//! The engine under random rooms, joins, leaves, slow readers and evictions.
//!
//! A log in memory stands for the database, because what is attacked here is the engine: it commits
//! under one lock and hands over in commit order, as the commit lane does. Listeners are outboxes of
//! this process with small budgets; each checks that it gets exactly the contiguous sequence of its
//! room. `tests/` does the same against real databases and sockets.

mod forks;
mod turns;

use std::collections::HashMap;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::*;
use crate::config::Config;
use crate::ids::Seq;
use crate::outbox::{Drainer, Ended, Outbox};
use crate::protocol::api::activity::RoomOrder;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::format::Format;
use crate::protocol::reply::Reply;
use crate::publication::Retention;

#[derive(Default)]
struct MemoryLog {
    rooms: Mutex<HashMap<Channel, Vec<Publication>>>,
    fail_reads: AtomicBool,
    fail_renewals: AtomicBool,
    /// Names that the history was given after its first.
    renewals: AtomicU64,
}

impl MemoryLog {
    fn epoch(&self) -> String {
        match self.renewals.load(Ordering::SeqCst) {
            0 => "epoch".to_owned(),
            renewals => format!("epoch{renewals}"),
        }
    }

    fn head_of(&self, channel: &Channel) -> Seq {
        self.rooms.lock().unwrap().get(channel).map_or(0, |room| room.len() as Seq)
    }

    /// An older state is put back.
    fn go_back(&self, channel: &Channel, head: usize) {
        self.rooms.lock().unwrap().get_mut(channel).unwrap().truncate(head);
    }
}

impl Log for MemoryLog {
    fn head(&self, channel: &Channel) -> Result<Seq, LogUnavailable> {
        if self.fail_reads.load(Ordering::Relaxed) {
            return Err(LogUnavailable("told to fail".into()));
        }
        Ok(self.head_of(channel))
    }

    fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        _: Retention,
    ) -> Result<Vec<Publication>, LogUnavailable> {
        if self.fail_reads.load(Ordering::Relaxed) {
            return Err(LogUnavailable("told to fail".into()));
        }
        let rooms = self.rooms.lock().unwrap();
        let room = rooms.get(channel).map_or(&[][..], Vec::as_slice);
        Ok(room.iter().skip(after as usize).take((until - after).min(100) as usize).cloned().collect())
    }

    fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, LogUnavailable> {
        if self.fail_renewals.load(Ordering::SeqCst) {
            return Err(LogUnavailable("told to fail".into()));
        }
        if *epoch == self.epoch() {
            self.renewals.fetch_add(1, Ordering::SeqCst);
        }
        Ok(self.epoch().into())
    }
}

struct Rig {
    engine: Arc<Engine>,
    drainer: Option<Drainer>,
    log: Arc<MemoryLog>,
    metrics: Arc<Metrics>,
    /// Stands for the lane: held from commit to hand-off.
    lane: Mutex<()>,
    budget: usize,
    /// Panics that the test wanted.
    panics: u64,
}

impl Rig {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { workers: 2, ..Config::default() };
        change(&mut config);
        let metrics = Arc::new(Metrics::new());
        let (notices, drained) = unbounded();
        let drainer = Drainer::start(Duration::from_secs(60), notices, metrics.clone()).unwrap();
        let log = Arc::new(MemoryLog::default());
        let parts =
            EngineParts { log: log.clone(), epoch: "epoch".into(), drained, metrics: metrics.clone() };
        let engine = Engine::start(config.workers, &config.rooms, config.namespaces, parts).unwrap();
        let budget = config.client.outbox_bytes_max;
        Self { engine, drainer: Some(drainer), log, metrics, lane: Mutex::new(()), budget, panics: 0 }
    }

    fn publish(&self, channel: &Channel, count: usize) {
        self.publish_padded(channel, count, 0);
    }

    fn publish_padded(&self, channel: &Channel, count: usize, pad: usize) {
        let lane = self.lane.lock().unwrap();
        let begun = Instant::now();
        let mut batch = Vec::new();
        {
            let mut rooms = self.log.rooms.lock().unwrap();
            let room = rooms.entry(channel.clone()).or_default();
            for _ in 0..count {
                let seq = room.len() as Seq + 1;
                let publication = varied(channel, seq, pad);
                room.push(publication.clone());
                batch.push(publication);
            }
        }
        let inline = self.engine.committed(batch, begun);
        drop(lane);
        if let Some(deliver) = inline {
            deliver();
        }
    }

    fn listen(&self, channel: &Channel, after: Option<Seq>) -> Result<Ear, ErrorCode> {
        self.listen_in("epoch", channel, after)
    }

    fn listen_in(&self, epoch: &str, channel: &Channel, after: Option<Seq>) -> Result<Ear, ErrorCode> {
        let outbox =
            Outbox::for_consumer(ConnectionId::next(), self.budget, self.drainer.as_ref().unwrap().handle());
        let info = Arc::new(ClientInfo {
            user: "".into(),
            client: outbox.id().0.to_string().into(),
            conn_info: None,
            chan_info: None,
        });
        let listener = Listener::new(info.clone(), outbox);
        self.engine.connect(&listener);
        let (sender, answer) = bounded(1);
        let request = JoinRequest {
            channel: channel.clone(),
            info,
            recover: after.map(|after| Recover {
                after,
                epoch: epoch.into(),
                permitted: true,
                reject_unrecovered: true,
            }),
            extra: Extra::default(),
            answer: Answer::Collect(sender),
            // As the node makes them: a gap ends the outbox.
            server_side: true,
        };
        self.engine.join(&listener, request, 10).unwrap();
        let (_, joined) = answer.recv_timeout(Duration::from_secs(60)).expect("a join is always answered");
        let joined = joined?;
        let log = self.log.clone();
        let mut ear = Ear { listener, channel: channel.clone(), position: joined.offset, log };
        if after.is_some() {
            assert!(joined.recovered, "everything is kept, so everything is recovered");
        }
        joined.publications.iter().for_each(|publication| ear.hear(publication));
        Ok(ear)
    }

    fn head(&self, channel: &Channel) -> Seq {
        self.log.head_of(channel)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.engine.stop();
        // A hole is repaired from the log, so listeners would not notice a wrong hand-off.
        if !std::thread::panicking() {
            assert_eq!(self.metrics.shard_panics_total.get(), self.panics, "an invariant broke in a turn");
            assert_eq!(
                self.metrics.handoff_holes_total.get(),
                0,
                "publications were handed over out of order"
            );
        }
        self.drainer.take().unwrap().stop();
    }
}

struct Ear {
    listener: Arc<Listener>,
    channel: Channel,
    position: Seq,
    log: Arc<MemoryLog>,
}

impl Ear {
    /// A publication is the same in every field as in the log, whichever way it came.
    fn hear(&mut self, publication: &Publication) {
        let expected = self.position + 1;
        assert_eq!(publication.seq, expected, "{} lost, repeated or reordered a message", self.channel);
        let logged = self.log.rooms.lock().unwrap()[&self.channel].get(self.position as usize).cloned();
        assert_eq!(Some(publication), logged.as_ref());
        self.position = expected;
    }

    /// Takes one publication; false when none came in time.
    fn take(&mut self, wait: Duration) -> bool {
        match self.listener.outbox.take(Some(Instant::now() + wait)) {
            Ok(publication) => self.hear(&publication),
            Err(None) => return false,
            Err(Some(ended)) => panic!("{} gave a listener up: {ended:?}", self.channel),
        }
        true
    }

    /// Waits until it is told to subscribe again.
    fn hear_end(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let ended = loop {
            if let Err(ended) = self.listener.outbox.take(Some(deadline)) {
                break ended.expect("the listener is never told");
            }
        };
        assert_eq!(ended, Ended::Closed(CloseCode::InsufficientState.number()));
    }

    fn hear_until(&mut self, seq: Seq) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.position < seq {
            assert!(Instant::now() < deadline, "{} is stuck at {} of {seq}", self.channel, self.position);
            self.take(Duration::from_secs(1));
        }
    }
}

/// A listener behind a socket.
struct Remote {
    listener: Arc<Listener>,
    client: TcpStream,
}

impl Remote {
    fn new(drainer: &Drainer) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (socket, _) = server.accept().unwrap();
        let outbox = Outbox::for_socket(
            ConnectionId::next(),
            Format::Json,
            Arc::new(socket),
            1 << 20,
            drainer.handle(),
            None,
        )
        .unwrap();
        let info = ClientInfo { user: "".into(), client: "remote".into(), conn_info: None, chan_info: None };
        Self { listener: Listener::new(Arc::new(info), outbox), client }
    }

    fn request(&self, channel: &Channel, answer: Answer) -> JoinRequest {
        JoinRequest {
            channel: channel.clone(),
            info: self.listener.info.clone(),
            recover: None,
            extra: Extra::default(),
            answer,
            server_side: false,
        }
    }

    /// Reads until this text ends what was read, and gives all of it.
    fn read_until(&mut self, end: &str) -> String {
        let (mut read, mut byte) = (Vec::new(), [0]);
        while !read.ends_with(end.as_bytes()) {
            let text = || String::from_utf8_lossy(&read).into_owned();
            self.client.read_exact(&mut byte).unwrap_or_else(|error| panic!("{error} after {}", text()));
            read.extend(byte);
        }
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// A small generator, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A publication that differs from its neighbours in every field.
fn varied(channel: &Channel, seq: Seq, pad: usize) -> Publication {
    let sender = |seq: Seq| ClientInfo {
        user: seq.to_string().into(),
        client: format!("client {seq}").into(),
        conn_info: (seq % 4 > 1).then(|| "{}".into()),
        chan_info: None,
    };
    Publication {
        channel: channel.clone(),
        seq,
        data: format!(r#"{{"n":{seq},"pad":"{}"}}"#, "x".repeat(pad + seq as usize % 200)).into(),
        info: (!seq.is_multiple_of(4)).then(|| Arc::new(sender(seq))),
        tags: seq.is_multiple_of(3).then(|| format!(r#"{{"tag":"{seq}"}}"#).into()),
        created_at_ms: crate::clock::unix_ms(),
    }
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

#[test]
fn a_listener_hears_what_is_published_after_it_joined() {
    let rig = Rig::new(|_| {});
    let room = channel("room");
    rig.publish(&room, 3);
    let mut ear = rig.listen(&room, None).unwrap();
    assert_eq!(ear.position, 3);
    rig.publish(&room, 1);
    rig.publish(&room, 2);
    ear.hear_until(6);
}

#[test]
fn a_resume_of_any_length_is_complete() {
    let rig = Rig::new(|_| {});
    let room = channel("room");
    rig.publish(&room, 5000);
    for after in [0, 1, 255, 256, 257, 4700, 4999, 5000] {
        let mut ear = rig.listen(&room, Some(after)).unwrap();
        ear.hear_until(5000);
    }
    rig.publish(&room, 1);
    let mut ear = rig.listen(&room, Some(5000)).unwrap();
    ear.hear_until(5001);
    assert_eq!(rig.listen(&room, Some(5002)).err(), Some(ErrorCode::UnrecoverablePosition));
}

#[test]
fn a_silent_listener_keeps_its_budget_and_misses_nothing() {
    let rig = Rig::new(|config| config.client.outbox_bytes_max = 10_000);
    let room = channel("room");
    let mut slow = rig.listen(&room, None).unwrap();
    let mut fast = rig.listen(&room, None).unwrap();
    for _ in 0..500 {
        rig.publish(&room, 10);
        fast.hear_until(rig.head(&room));
        assert!(slow.listener.outbox.queued_bytes() <= 10_000 + 4096);
    }
    assert!(rig.metrics.catch_ups_total.get() > 0);
    slow.hear_until(5000);
    rig.publish(&room, 1);
    slow.hear_until(5001);
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.metrics.catch_ups_active.get() > 0 {
        assert!(Instant::now() < deadline, "the listener is never live again");
        rig.engine.presence(&room);
    }
}

/// A room is packed for the kinds of listeners that are live in it at the time.
#[test]
fn sockets_and_consumers_share_a_room_and_come_and_go() {
    let rig = Rig::new(|config| config.client.outbox_bytes_max = 10_000);
    let room = channel("room");
    let mut local = rig.listen(&room, None).unwrap();
    rig.publish(&room, 1);
    let mut remote = Remote::new(rig.drainer.as_ref().unwrap());
    assert_eq!(remote.listener.outbox.uncork(&frame::text(b"hello")), crate::outbox::Push::Accepted);
    rig.engine.join(&remote.listener, remote.request(&room, Answer::Reply(1)), 1).unwrap();
    remote.read_until(r#""offset":1}}"#);
    for seq in 2..=20 {
        rig.publish(&room, 1);
        remote.read_until(&format!("\"offset\":{seq}"));
    }
    local.hear_until(20);
    // A slow consumer is no longer live: the room sends frames alone, and the log serves both kinds.
    for _ in 0..10 {
        rig.publish(&room, 100);
        remote.read_until(&format!("\"offset\":{}", rig.head(&room)));
    }
    assert!(rig.metrics.catch_ups_total.get() > 0);
    local.hear_until(1020);
    rig.engine.disconnect(&remote.listener);
    rig.publish(&room, 1);
    local.hear_until(1021);
    rig.engine.disconnect(&local.listener);
}

/// Rooms, jobs and subscriptions point at each other; once a connection has ended, nothing keeps it.
#[test]
fn a_connection_that_ended_leaves_nothing_behind() {
    let rig = Rig::new(|_| {});
    let room = channel("room");
    let ear = rig.listen(&room, None).unwrap();
    let subscription = Arc::downgrade(&ear.listener.subscription(&room).unwrap());
    let (listener, outbox) = (Arc::downgrade(&ear.listener), Arc::downgrade(&ear.listener.outbox));
    rig.engine.disconnect(&ear.listener);
    drop(ear);
    rig.engine.presence(&room);
    assert_eq!((listener.strong_count(), subscription.strong_count(), outbox.strong_count()), (0, 0, 0));
}

#[test]
fn a_log_that_fails_for_a_while_delays_messages_and_loses_none() {
    let rig = Rig::new(|config| config.client.outbox_bytes_max = 5_000);
    let room = channel("room");
    let mut slow = rig.listen(&room, None).unwrap();
    // In turns of their own: an empty outbox takes one fan-out of any size.
    for _ in 0..4 {
        rig.publish(&room, 250);
        rig.engine.flush(Instant::now() + Duration::from_secs(60));
    }
    rig.log.fail_reads.store(true, Ordering::Relaxed);
    assert_eq!(rig.listen(&channel("other"), None).err(), Some(ErrorCode::Internal));
    while slow.take(Duration::from_millis(100)) {}
    assert!(slow.position < 1000, "the log was needed");
    rig.log.fail_reads.store(false, Ordering::Relaxed);
    slow.hear_until(1000);
}

/// All listeners of the shard are told to subscribe again, recover what they missed, and hear what comes.
#[test]
fn after_a_panic_listeners_resubscribe_and_miss_no_message() {
    let mut rig = Rig::new(|config| config.workers = 1);
    let (room, bystanders) = (channel("room"), channel("bystanders"));
    for (strategy, published) in [(Strategy::Inline, 0), (Strategy::Worker, 4)] {
        assert!(rig.engine.override_strategy(&room, Some(Delivery::Forced(strategy))));
        rig.publish(&room, 2);
        let mut ear = rig.listen(&room, Some(published)).unwrap();
        ear.hear_until(published + 2);
        let bystander = rig.listen(&bystanders, None).unwrap();

        rig.engine.shards[rig.engine.mailboxes.index_of(&room)].panic_next();
        rig.publish(&room, 1);
        rig.panics += 1;
        ear.hear_end();
        bystander.hear_end();
        assert!(ear.listener.subscription(&room).is_none(), "the subscription has ended");
        assert_eq!(rig.metrics.listeners.get(), 0);

        let mut ear = rig.listen(&room, Some(ear.position)).unwrap();
        ear.hear_until(published + 3);
        rig.publish(&room, 1);
        ear.hear_until(published + 4);
        rig.engine.disconnect(&ear.listener);
        rig.engine.presence(&room);
    }
}

#[test]
fn an_idle_room_leaves_memory_and_comes_back() {
    let rig = Rig::new(|config| config.rooms.idle_timeout = Duration::from_millis(5));
    let room = channel("room");
    let mut ear = rig.listen(&room, None).unwrap();
    rig.publish(&room, 2);
    ear.hear_until(2);
    rig.engine.disconnect(&ear.listener);
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.metrics.evictions_total.get() == 0 {
        assert!(Instant::now() < deadline, "the room is never let go");
        thread::yield_now();
    }
    assert!(rig.engine.rooms(&RoomQuery::all()).is_empty());
    let mut ear = rig.listen(&room, Some(1)).unwrap();
    rig.publish(&room, 1);
    ear.hear_until(3);
}

#[test]
fn presence_follows_joins_and_leaves() {
    let rig = Rig::new(|_| {});
    let room = channel("room");
    let first = rig.listen(&room, None).unwrap();
    let second = rig.listen(&room, None).unwrap();
    let presence = rig.engine.presence(&room);
    assert_eq!((presence.clients_count, presence.users_count, presence.clients.len()), (2, 1, 2));
    rig.engine.leave(&first.listener, &room, &Message::Reply(9, Reply::Unsubscribe));
    assert_eq!(rig.engine.presence(&room).clients_count, 1);
    rig.engine.disconnect(&second.listener);
    assert_eq!(rig.engine.presence(&room).clients_count, 0);
}

#[test]
fn status_shows_the_strategy_and_an_override_changes_it() {
    let rig = Rig::new(|_| {});
    let (room, other) = (channel("room"), channel("other"));
    let mut ear = rig.listen(&room, None).unwrap();
    let _other = rig.listen(&other, None).unwrap();
    let query = RoomQuery { order: RoomOrder::Rate, limit: 1, ..RoomQuery::all() };
    let mut publish_until = |choice| {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // A sender that finds the worker still at the question before leaves the message to it.
            rig.publish(&room, 1);
            ear.hear_until(rig.head(&room));
            let status = rig.engine.rooms(&query).pop().unwrap();
            if status.choice == Some(choice) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:?}");
        }
    };
    let status = publish_until((Strategy::Inline, Reason::Small));
    assert_eq!((&status.channel, status.listeners), (&room, 1));
    assert!(status.rate > 0.0 && status.forced.is_none());
    assert!(rig.engine.override_strategy(&room, Some(Delivery::Forced(Strategy::Parallel))));
    let status = publish_until((Strategy::Parallel, Reason::Forced));
    assert_eq!(status.forced, Some(Strategy::Parallel));
    assert!(rig.engine.override_strategy(&room, None));
    publish_until((Strategy::Inline, Reason::Small));
    assert_eq!(rig.engine.rooms(&RoomQuery::all()).len(), 2);
    let named = RoomQuery { matches: Arc::new(|channel| channel.as_str() == "other"), ..RoomQuery::all() };
    assert_eq!(rig.engine.rooms(&named).len(), 1);
}

/// The override of the operator outlives the room's state in memory.
#[test]
fn a_strategy_override_is_kept_while_the_room_is_not_active() {
    let rig = Rig::new(|_| {});
    let room = channel("room");
    assert!(rig.engine.override_strategy(&room, Some(Delivery::Forced(Strategy::Worker))));
    let mut ear = rig.listen(&room, None).unwrap();
    rig.publish(&room, 1);
    ear.hear_until(1);
    let status = rig.engine.rooms(&RoomQuery::all()).pop().unwrap();
    assert_eq!(status.choice, Some((Strategy::Worker, Reason::Forced)));
}

#[test]
fn a_lagging_listener_is_listed_until_it_is_live_again() {
    let rig = Rig::new(|config| config.client.outbox_bytes_max = 2_000);
    let room = channel("room");
    let mut slow = rig.listen(&room, None).unwrap();
    // Each in a turn of its own: an empty outbox takes one fan-out of any size.
    for _ in 0..2 {
        rig.publish(&room, 100);
        rig.engine.flush(Instant::now() + Duration::from_secs(60));
    }
    let (total, lagging) = rig.engine.lagging(10);
    assert_eq!((total, lagging.len()), (1, 1));
    assert_eq!(
        (lagging[0].subscription.channel.as_str(), lagging[0].cause),
        ("room", catch_up::directory::Cause::Slow)
    );
    assert_eq!(lagging[0].subscription.connection(), slow.listener.id());
    assert!(rig.engine.lagging(0).1.is_empty());
    slow.hear_until(200);
    let deadline = Instant::now() + Duration::from_secs(60);
    while rig.engine.lagging(10).0 > 0 {
        assert!(Instant::now() < deadline, "the listener is never live again");
        rig.engine.presence(&room);
    }
    rig.engine.disconnect(&slow.listener);
}

/// The queue of unsent messages is bounded, and yet nobody misses anything: what does not fit comes from
/// the tail, and what the tail no longer has from the log.
#[test]
fn a_room_behind_its_publishers_serves_from_tail_or_log() {
    let rig = Rig::new(|config| config.client.outbox_bytes_max = 64 << 20);
    let room = channel("room");
    let mut ears: Vec<_> = (0..3).map(|_| rig.listen(&room, None).unwrap()).collect();
    // 1.2 MB in one batch: the last two do not fit, but the tail has them.
    rig.publish_padded(&room, 20, 60_000);
    ears.iter_mut().for_each(|ear| ear.hear_until(20));
    assert_eq!(rig.metrics.catch_ups_total.get(), 0);
    // 2.4 MB: more than what fits and the tail together.
    rig.publish_padded(&room, 40, 60_000);
    ears.iter_mut().for_each(|ear| ear.hear_until(60));
    assert_eq!(rig.metrics.catch_ups_total.get(), 3);
    rig.publish(&room, 1);
    ears.iter_mut().for_each(|ear| ear.hear_until(61));
}

#[test]
fn an_ephemeral_room_drops_and_counts_what_does_not_fit() {
    let rig = Rig::new(|config| {
        config.client.outbox_bytes_max = 64 << 20;
        let ephemeral = Namespace { persist: false, ..(*config.namespaces.default).clone() };
        config.namespaces.default = Arc::new(ephemeral);
    });
    let room = channel("room");
    let ear = rig.listen(&room, None).unwrap();
    let data = format!("\"{}\"", "x".repeat(60_000)).into();
    let publication = Publication {
        channel: room.clone(),
        seq: 0,
        data,
        info: None,
        tags: None,
        created_at_ms: crate::clock::unix_ms(),
    };
    rig.engine.committed(vec![publication; 40], Instant::now());
    rig.engine.flush(Instant::now() + Duration::from_secs(60));
    let mut heard = 0;
    while ear.listener.outbox.take(Some(Instant::now())).is_ok() {
        heard += 1;
    }
    assert!(heard >= 17, "{heard}");
    assert_eq!(heard + rig.metrics.dropped_ephemeral_total.get(), 40);
}

/// All strategies, tiny budgets and timeouts; every listener checks every seq it hears.
#[test]
fn random_load_reaches_every_listener_in_order_and_once() {
    let seed = std::env::var("ROOMCAST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| crate::clock::unix_ms() as u64 | 1);
    eprintln!("ROOMCAST_TEST_SEED={seed}");
    let rig = Rig::new(|config| {
        config.client.outbox_bytes_max = 3_000;
        config.rooms.idle_timeout = Duration::from_millis(2);
        config.rooms.inline_max_listeners = 2;
        config.rooms.inline_max_cost = Duration::from_secs(1);
        config.rooms.parallel_min_listeners = 4;
        config.rooms.parallel_min_cost = Duration::ZERO;
        config.rooms.catch_up_workers = 2;
    });
    let rooms: Vec<Channel> = (0..6).map(|number| channel(&format!("room{number}"))).collect();
    let heard = AtomicU64::new(0);
    let publishing = AtomicU64::new(3);
    thread::scope(|scope| {
        for publisher in 0..3_u64 {
            let (rig, rooms, publishing) = (&rig, &rooms, &publishing);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_add(publisher * 7919) | 1);
                for _ in 0..1500 {
                    let room = &rooms[random.below(rooms.len() as u64) as usize];
                    rig.publish(room, if random.below(4) == 0 { random.below(40) as usize + 1 } else { 1 });
                    // Waiting for the shard now and then keeps turns short and strategies changing.
                    if random.below(2) == 0 {
                        rig.engine.presence(room);
                    }
                }
                publishing.fetch_sub(1, Ordering::AcqRel);
            });
        }
        for number in 0..12_u64 {
            let (rig, rooms, heard, publishing) = (&rig, &rooms, &heard, &publishing);
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(31).wrapping_add(number * 104_729) | 1);
                // Two large rooms, some small ones, and some where nobody listens.
                let room = &rooms[[0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3][number as usize]];
                let mut ear = rig.listen(room, None).unwrap();
                let mut start = ear.position;
                while publishing.load(Ordering::Acquire) > 0 {
                    match random.below(20) {
                        // Leave and resume from where it was, or start anew at the head.
                        0 => {
                            heard.fetch_add(ear.position - start, Ordering::Relaxed);
                            rig.engine.disconnect(&ear.listener);
                            let after = (random.below(3) > 0).then_some(ear.position);
                            ear = rig.listen(room, after).unwrap();
                            start = ear.position;
                        }
                        // Read nothing for a while, so that the outbox fills.
                        1 | 2 => thread::yield_now(),
                        _ => drop(ear.take(Duration::from_millis(1))),
                    }
                }
                ear.hear_until(rig.head(room));
                heard.fetch_add(ear.position - start, Ordering::Relaxed);
                rig.engine.disconnect(&ear.listener);
            });
        }
    });
    assert!(heard.load(Ordering::Relaxed) > 1000);
    let fan_outs = |strategy, reason| rig.metrics.fanouts_total.with_label_values(&[strategy, reason]).get();
    let counts = [
        ("inline", fan_outs("inline", "small")),
        ("worker", fan_outs("worker", "queued") + fan_outs("worker", "moderate")),
        ("parallel", fan_outs("parallel", "costly")),
        ("catch-ups", rig.metrics.catch_ups_total.get()),
        ("evictions", rig.metrics.evictions_total.get()),
    ];
    eprintln!("heard {} by {counts:?}", heard.load(Ordering::Relaxed));
    assert!(counts.iter().all(|(_, count)| *count > 0), "a way of delivery was not tried: {counts:?}");
}
