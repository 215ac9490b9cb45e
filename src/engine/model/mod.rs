//! The ownership of a shard in every order of steps: the real engine, shard, rooms and catch-up pool
//! under a model checker.
//!
//! A lock stands for the commit lane: it is held from the taking of a number to the hand-off, as the
//! lane's leader does. Everything else is what production runs, but for the queue of the shard
//! (`inbox.rs`) and the waiting of the pool. Rooms are idle after a nanosecond, so every turn tries to
//! let them go.

pub(in crate::engine) mod inbox;

use std::collections::HashMap;
use std::sync::LazyLock;

use crossbeam_channel::unbounded;
use shuttle::thread;

use super::*;
use crate::ids::Seq;
use crate::outbox::{DrainerHandle, Outbox};
use crate::protocol::code::ErrorCode;
use crate::publication::Retention;
use crate::sync::model::explore;
use crate::sync::{AtomicBool, Mutex as Lock, Ordering, lock};
use shard::Shard;

thread_local! {
    /// Of one test, which has a thread of its own; all its runs share them, for making them costs more
    /// than a run.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new());
}

fn metrics() -> Arc<Metrics> {
    METRICS.with(Arc::clone)
}

static NAMESPACES: LazyLock<config::Namespaces> = LazyLock::new(|| config::Config::default().namespaces);

#[derive(Default)]
struct MemoryLog(Lock<HashMap<Channel, Vec<Publication>>>);

impl Log for MemoryLog {
    fn head(&self, channel: &Channel) -> Result<Seq, LogUnavailable> {
        Ok(lock(&self.0).get(channel).map_or(0, |room| room.len() as Seq))
    }

    fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        _: Retention,
    ) -> Result<Vec<Publication>, LogUnavailable> {
        let rooms = lock(&self.0);
        let room = rooms.get(channel).map_or(&[][..], Vec::as_slice);
        Ok(room[after as usize..until as usize].to_vec())
    }

    fn renew_epoch(&self, _: &str) -> Result<Arc<str>, LogUnavailable> {
        panic!("no number is given twice")
    }
}

type Outcome = (Channel, Result<Joined, ErrorCode>);

struct Rig {
    engine: Arc<Engine>,
    log: Arc<MemoryLog>,
    /// Stands for the commit lane.
    lane: Lock<()>,
    drainer: DrainerHandle,
    /// Bytes an outbox takes before it says that it is full.
    budget: usize,
    pool_stops: AtomicBool,
}

/// A rig with the threads of its engine.
struct Running {
    rig: Arc<Rig>,
    worker: thread::JoinHandle<()>,
    pool: thread::JoinHandle<()>,
}

impl Running {
    fn start(budget: usize) -> Self {
        let (notices, drained) = unbounded();
        let drainer = DrainerHandle::without_thread(notices, metrics()).expect("no system is asked");
        let log = Arc::new(MemoryLog::default());
        let mailboxes = Arc::new(Mailboxes::new(1, &metrics()));
        let (catch_up, pool) = CatchUp::assemble(log.clone(), drained, mailboxes.clone(), metrics());
        let context = Context {
            namespaces: NAMESPACES.clone(),
            // Parallel fan-outs run on rayon's threads, which the checker does not see.
            rooms: config::Rooms {
                idle_timeout: std::time::Duration::from_nanos(1),
                inline_max_listeners: 16,
                inline_max_cost: std::time::Duration::from_secs(1),
                parallel_min_listeners: usize::MAX,
                parallel_min_cost: std::time::Duration::from_secs(1),
                catch_up_workers: 1,
            },
            metrics: metrics(),
            catch_up,
        };
        let engine = Arc::new(Engine::assemble(mailboxes, "epoch".into(), context));
        let rig =
            Rig { engine, log, lane: Lock::new(()), drainer, budget, pool_stops: AtomicBool::new(false) };
        let rig = Arc::new(rig);
        let shard = rig.shard().clone();
        let worker = thread::spawn(move || shard.run());
        let of_pool = rig.clone();
        let pool = thread::spawn(move || {
            while pool.try_round() || !of_pool.pool_stops.load(Ordering::Acquire) {
                thread::yield_now();
            }
        });
        Self { rig, worker, pool }
    }

    /// Starts a thread of the scenario.
    fn go(&self, run: impl FnOnce(&Rig) + Send + 'static) -> thread::JoinHandle<()> {
        let rig = self.rig.clone();
        thread::spawn(move || run(&rig))
    }

    /// Ends everything, after the threads of the scenario.
    fn finish(self, threads: Vec<thread::JoinHandle<()>>) {
        for thread in threads {
            thread.join().expect("a thread of the scenario failed");
        }
        self.rig.mailbox().send(Command::Stop);
        self.worker.join().expect("the worker failed");
        self.rig.pool_stops.store(true, Ordering::Release);
        self.pool.join().expect("the pool failed");
        self.rig.mailbox().close();
        // A hole is repaired from the log, so listeners would not notice a wrong hand-off.
        let metrics = metrics();
        assert_eq!(metrics.handoff_holes_total.get(), 0, "publications were handed over out of order");
        assert_eq!(metrics.shard_panics_total.get(), 0, "an invariant broke in a turn");
        assert_eq!(metrics.catch_ups_active.get(), 0, "a listener is still served from the log");
        assert_eq!(metrics.shard_queue_depth.get(), 0, "commands were counted wrongly");
        assert_eq!(metrics.head_lookups_waiting.get(), 0, "a join that was given up is still asked for");
    }
}

impl Rig {
    fn shard(&self) -> &Arc<Shard> {
        &self.engine.shards[0]
    }

    fn mailbox(&self) -> &Mailbox {
        self.engine.mailboxes.of(&room())
    }

    fn publish(&self, count: usize) {
        let lane = lock(&self.lane);
        let begun = Instant::now();
        let mut batch = Vec::new();
        {
            let mut rooms = lock(&self.log.0);
            let log = rooms.entry(room()).or_default();
            for _ in 0..count {
                let (channel, seq) = (room(), log.len() as Seq + 1);
                let data = "{}".into();
                log.push(Publication { channel, seq, data, info: None, tags: None, created_at_ms: i64::MAX });
                batch.extend(log.last().cloned());
            }
        }
        let inline = self.engine.committed(batch, begun);
        drop(lane);
        if let Some(deliver) = inline {
            deliver();
        }
    }

    /// Subscribes a new connection, at the head or after a position, and hears the answer.
    fn listen(&self, after: Option<Seq>) -> Ear {
        let (listener, answer) = self.ask(after);
        let joined = loop {
            match answer.try_recv() {
                Ok((_, joined)) => break joined.expect("the log does not fail"),
                Err(_) => thread::yield_now(),
            }
        };
        let mut ear = Ear { listener, position: joined.offset };
        ear.hear_answer(after, joined);
        ear
    }

    /// Asks for a subscription of a new connection.
    fn ask(&self, after: Option<Seq>) -> (Arc<Listener>, Receiver<Outcome>) {
        let outbox = Outbox::for_consumer(ConnectionId::next(), self.budget, self.drainer.clone());
        let info = ClientInfo { user: "".into(), client: "c".into(), conn_info: None, chan_info: None };
        let listener = Listener::new(Arc::new(info), outbox);
        self.engine.connect(&listener);
        let recover = after.map(|after| Recover {
            after,
            epoch: "epoch".into(),
            permitted: true,
            reject_unrecovered: false,
        });
        let (sender, answer) = bounded(1);
        let request = JoinRequest {
            channel: room(),
            info: listener.info.clone(),
            recover,
            extra: Extra::default(),
            answer: Answer::Collect(sender),
            server_side: true,
        };
        self.engine.join(&listener, request, 10).expect("a new connection may join");
        (listener, answer)
    }
}

impl Rig {
    /// Ends a connection as its reader does.
    fn hang_up(&self, ear: &Ear) {
        self.engine.disconnect(&ear.listener);
        ear.listener.outbox.abort();
    }
}

fn room() -> Channel {
    static ROOM: LazyLock<Channel> = LazyLock::new(|| Channel::new("room").expect("it is a name"));
    ROOM.clone()
}

struct Ear {
    listener: Arc<Listener>,
    /// The last seq it was given.
    position: Seq,
}

impl Ear {
    fn hear_answer(&mut self, after: Option<Seq>, joined: Joined) {
        if let Some(after) = after {
            // Everything is kept, so only a position that the shard has not heard of is refused.
            let expected = if joined.recovered { joined.offset == after } else { joined.offset < after };
            assert!(expected, "the shard is at {} and was asked for {after}", joined.offset);
        }
        joined.publications.iter().for_each(|publication| self.hear(publication.seq));
    }

    fn hear(&mut self, seq: Seq) {
        assert_eq!(seq, self.position + 1, "a message was lost, repeated or reordered");
        self.position = seq;
    }

    fn hear_until(&mut self, seq: Seq) {
        while self.position < seq {
            let publication = self.listener.outbox.take(None).expect("nobody ends the outbox");
            self.hear(publication.seq);
        }
    }
}

/// Two threads that commit, one message or two at a time, and two listeners: one stays, one leaves
/// and comes back where it was.
fn comings_and_goings(budget: usize) {
    let running = Running::start(budget);
    let threads = vec![
        running.go(|rig| {
            rig.publish(1);
            rig.publish(1);
        }),
        running.go(|rig| {
            rig.publish(1);
            rig.publish(2);
        }),
        running.go(|rig| {
            let mut ear = rig.listen(None);
            ear.hear_until(5);
            rig.hang_up(&ear);
        }),
        running.go(|rig| {
            let ear = rig.listen(None);
            rig.hang_up(&ear);
            let mut back = rig.listen(Some(ear.position));
            back.hear_until(5);
            rig.hang_up(&back);
        }),
    ];
    running.finish(threads);
}

#[test]
fn every_listener_hears_its_room_in_order_and_once() {
    explore(600, || comings_and_goings(1 << 20));
    let metrics = metrics();
    let fan_outs = |strategy, reason| metrics.fanouts_total.with_label_values(&[strategy, reason]).get();
    let counts = [fan_outs("inline", "small"), fan_outs("worker", "queued"), metrics.evictions_total.get()];
    assert!(counts.iter().all(|count| *count > 0), "a way of delivery was not tried: {counts:?}");
}

#[test]
fn a_full_outbox_is_served_from_the_log_then_live_again() {
    explore(600, || comings_and_goings(200));
    assert!(metrics().catch_ups_total.get() > 0, "no outbox was full");
}

/// Listeners that stay for a moment, so that the room is let go and comes back between the messages,
/// also while an answer to a question for its head is still under way.
#[test]
fn a_room_that_leaves_memory_comes_back_where_it_was() {
    explore(600, || {
        let running = Running::start(1 << 20);
        let threads = vec![
            running.go(|rig| {
                rig.publish(1);
                rig.publish(1);
            }),
            running.go(come_and_go),
            running.go(come_and_go),
        ];
        running.finish(threads);
    });
}

fn come_and_go(rig: &Rig) {
    let ear = rig.listen(None);
    rig.hang_up(&ear);
    let mut back = rig.listen(Some(ear.position));
    back.hear_until(2);
    rig.hang_up(&back);
}

/// Joins that are given up before their answer, beside one of the same room that stays: it is answered with
/// where the room is, and nothing is left of the others.
#[test]
fn joins_that_are_given_up_leave_nothing_behind() {
    explore(600, || {
        let running = Running::start(1 << 20);
        let give_up = |rig: &Rig| {
            let (listener, answer) = rig.ask(None);
            rig.engine.disconnect(&listener);
            listener.outbox.abort();
            while answer.try_recv().is_err() {
                thread::yield_now();
            }
        };
        let threads = vec![
            running.go(|rig| {
                rig.publish(1);
                rig.publish(1);
            }),
            running.go(move |rig| {
                give_up(rig);
                give_up(rig);
            }),
            running.go(come_and_go),
        ];
        running.finish(threads);
    });
}
