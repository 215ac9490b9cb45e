//! No listener harms another: who reads slowly, or not at all, costs the others nothing, costs the
//! server little memory, and misses nothing itself.

use std::ops::Range;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use crate::form::short_or_long;
use crate::support::server::TestServer;
use crate::swarm::{Pace, Swarm, Writer, percentile, resident_bytes};

const MIB: u64 = 1024 * 1024;

/// Bytes of a message.
const MESSAGE_BYTES: usize = 8 * 1024;

/// Messages a room gets in a round; the next round begins when all fast listeners have them.
const ROUND: usize = 4;

/// Small, so that a queue without a bound would stand out.
const BUDGET_BYTES: usize = 64 * 1024;

/// Bytes a frame for one listener may have when it is put into an empty outbox: a chunk of the log,
/// and one message that begins within it.
const CHUNK_BYTES: usize = 64 * 1024 + MESSAGE_BYTES + 256;

/// What the server may take beside outboxes: the page cache (16 MiB), the databases' own, tails, and
/// what an allocator keeps.
const SLACK_BYTES: u64 = 32 * MIB;

/// Slow readers are no dead ones; the limits for those have their own test.
const PATIENT: &str =
    "[client]\noutbox_bytes_max = \"64KiB\"\nstall_timeout = \"30m\"\nping_interval = \"30m\"\n";

#[test]
fn slow_readers_harm_nobody_and_end_complete() {
    let mut alone = Audience::new(false);
    alone.publish(short_or_long(50, 250));
    let (p50, p99) = alone.lags();
    eprintln!("slow, without: fast={} p50_us={p50} p99_us={p99}", alone.fast.end);
    drop(alone);

    let mut mixed = Audience::new(true);
    let base = resident_bytes(&mixed.server);
    let backlog = mixed.publish(short_or_long(500, 250));
    let (p50_mixed, p99_mixed) = mixed.lags();
    let slow = mixed.slow.len() as u64;
    let bound = base + slow * BUDGET_BYTES as u64 + SLACK_BYTES;
    assert!(backlog > bound - base + 16 * MIB, "a queue without a bound would not be seen");
    assert!(mixed.peak <= bound, "{} MiB, started at {} MiB", mixed.peak / MIB, base / MIB);
    let queued = mixed.server.metric("outbox_bytes");
    let most = slow * (BUDGET_BYTES.max(CHUNK_BYTES) as u64);
    assert!(queued <= most, "{queued} bytes wait for {slow} slow readers");
    assert_eq!(mixed.server.metric("catch_ups_active"), slow * mixed.rooms.len() as u64, "all lag");
    eprintln!(
        "slow, with: fast={} slow={slow} p50_us={p50_mixed} p99_us={p99_mixed} p99_ratio={:.2} \
         backlog_each_mib={} outbox_kib={} rss_base_mib={} rss_peak_mib={} rss_bound_mib={}",
        mixed.fast.end,
        f64::from(p99_mixed) / f64::from(p99),
        backlog / MIB,
        queued / 1024,
        base / MIB,
        mixed.peak / MIB,
        bound / MIB,
    );
    mixed.lift_limits();
}

#[test]
fn only_a_listener_that_takes_no_byte_is_closed() {
    let extras = "[client]\noutbox_bytes_max = \"64KiB\"\nstall_timeout = \"3s\"\n";
    let server = TestServer::with(extras);
    let mut swarm = Swarm::new(&server);
    let others = short_or_long(20, 200);
    for _ in 0..others {
        swarm.add(Pace::Free, &["room"]);
    }
    let stalled = swarm.add(Pace::Stopped, &["room"]);
    swarm.run_until("all joined", |swarm| swarm.all_joined(0..stalled + 1));
    let mut writer = Writer::new(&server, &["room"], MESSAGE_BYTES);
    writer.publish(100);
    swarm.run_until("the others hear everything", |swarm| swarm.all_at(0..others, 100));
    // The metric is the event that is waited for; the others go on listening meanwhile.
    let mut ask_at = Instant::now();
    swarm.run_until("the stalled one is disconnected", |_| {
        if ask_at > Instant::now() {
            return false;
        }
        ask_at = Instant::now() + Duration::from_millis(50);
        server.metric("stalled_total") == 1
    });
    writer.publish(10);
    swarm.run_until("the others still hear", |swarm| swarm.all_at(0..others, 110));
    let gone = &mut swarm.listeners[stalled];
    gone.may_be_closed = true;
    swarm.set_pace(stalled, Pace::Free);
    swarm.run_until("the end of the stalled one", |swarm| swarm.listeners[stalled].closed.is_some());
    assert_eq!(server.metric("stalled_total"), 1);
    assert_eq!(server.metric(r#"disconnects_total{code="3008"}"#), 1);
    assert_eq!(server.metric("connections"), others as u64 + 1);
    swarm.reopen(stalled..stalled + 1);
    swarm.run_until("it resumes", |swarm| swarm.all_at(stalled..stalled + 1, 110));
}

/// While a thousand are behind and read the log, others publish and hear; and each of them gets on.
#[test]
fn a_thousand_lagging_listeners_starve_nobody() {
    let lagging = short_or_long(100, 1_000);
    let server = TestServer::with(PATIENT);
    let mut swarm = Swarm::new(&server);
    for _ in 0..lagging {
        swarm.add(Pace::Stopped, &["crowd"]);
    }
    let fast = swarm.add(Pace::Free, &["quiet"]);
    swarm.run_until("all joined", |swarm| swarm.all_joined(0..fast + 1));
    let mut crowd = Writer::new(&server, &["crowd"], MESSAGE_BYTES);
    crowd.publish(100);
    let mut active = 0;
    crate::support::eventually("all lag", || {
        active = server.metric("catch_ups_active").max(active);
        active == lagging as u64
    });
    for index in 0..lagging {
        swarm.set_pace(index, Pace::Free);
    }
    let started = Instant::now();
    let (mut quiet, mut quiet_acked, mut spread) = (Writer::new(&server, &["quiet"], 100), 0, None);
    let mut crowd = std::thread::scope(|scope| {
        let (go, rounds) = bounded::<()>(1);
        let publishing = scope.spawn(move || {
            while rounds.recv().is_ok() {
                quiet.publish(1);
                // Those who are behind must get this once, and after what they missed.
                if crowd.head() < 120 {
                    crowd.publish(1);
                }
            }
            crowd
        });
        swarm.run_until("all lagging ones are complete", |swarm| {
            // The next message to the quiet room goes out when the last one was heard.
            if swarm.listeners[fast].is_at(quiet_acked) && go.try_send(()).is_ok() {
                quiet_acked += 1;
            }
            let progress = || swarm.listeners[0..lagging].iter().map(|one| one.rooms[0].last);
            if spread.is_none() && progress().max() == Some(120) {
                spread = progress().min();
            }
            swarm.all_at(0..lagging, 120)
        });
        drop(go);
        swarm.run_until("the quiet room is complete", |swarm| swarm.listeners[fast].is_at(quiet_acked));
        publishing.join().unwrap()
    });
    assert!(quiet_acked > 1, "the quiet room stood still");
    let (p50, p99) = fast_lags(&mut swarm, "quiet");
    eprintln!(
        "lagging: listeners={lagging} messages_each=120 seconds={:.2} pages={} quiet_messages={quiet_acked} \
         least_progress_when_first_done={} quiet_p50_us={p50} quiet_p99_us={p99} lost=0",
        started.elapsed().as_secs_f64(),
        server.metric("catch_up_pages_total"),
        spread.unwrap_or_default(),
    );
    crowd.publish(1);
    swarm.run_until("all are live again", |swarm| swarm.all_at(0..lagging, 121));
}

/// Fast listeners, each in one of some rooms, and perhaps slow ones, each in all of them.
struct Audience {
    server: TestServer,
    swarm: Swarm,
    rooms: Vec<String>,
    fast: Range<usize>,
    slow: Range<usize>,
    writer: Writer,
    /// Most memory the server was seen to have.
    peak: u64,
}

impl Audience {
    fn new(with_slow: bool) -> Self {
        let server = TestServer::with(PATIENT);
        let mut swarm = Swarm::new(&server);
        let rooms: Vec<_> = (0..short_or_long(4, 10)).map(|room| format!("room{room}")).collect();
        let names: Vec<_> = rooms.iter().map(String::as_str).collect();
        let fast = 0..short_or_long(40, 500);
        for index in fast.clone() {
            swarm.add(Pace::Free, &[names[index % names.len()]]);
        }
        let slow = fast.end..fast.end + if with_slow { short_or_long(6, 51) } else { 0 };
        for index in slow.clone() {
            let pace = if index == slow.start { Pace::Stopped } else { Pace::BytesPerSecond(1024) };
            swarm.add(pace, &names);
        }
        swarm.run_until("all joined", |swarm| swarm.all_joined(0..slow.end));
        let writer = Writer::new(&server, &names, MESSAGE_BYTES);
        Self { server, swarm, fast, slow, writer, rooms, peak: 0 }
    }

    /// Publishes in rounds, each when the fast ones have heard the one before; the bytes a slow
    /// one missed.
    fn publish(&mut self, rounds: usize) -> u64 {
        let Self { server, swarm, fast, writer, peak, rooms, .. } = self;
        let each_round = (fast.len() * ROUND) as u64;
        let mut round = 0;
        std::thread::scope(|scope| {
            let (go, next) = bounded::<()>(1);
            let publishing = scope.spawn(move || {
                while next.recv().is_ok() {
                    writer.publish(ROUND);
                }
            });
            swarm.run_until("the fast ones hear everything", |swarm| {
                let heard = swarm.prompt_deliveries() == each_round * round as u64;
                if heard && round < rounds {
                    go.send(()).unwrap();
                    round += 1;
                    if round % 10 == 0 {
                        *peak = (*peak).max(resident_bytes(server));
                    }
                    return false;
                }
                heard
            });
            drop(go);
            publishing.join().unwrap();
        });
        *peak = (*peak).max(resident_bytes(server));
        assert!(swarm.all_at(fast.clone(), self.writer.head()));
        (rounds * ROUND * rooms.len() * MESSAGE_BYTES) as u64
    }

    fn lags(&mut self) -> (u32, u32) {
        fast_lags(&mut self.swarm, "fast")
    }

    /// The slow ones read freely at last, and so does the stalled one: nothing is missing.
    fn lift_limits(&mut self) {
        let started = Instant::now();
        for index in self.slow.clone() {
            self.swarm.set_pace(index, Pace::Free);
        }
        let (slow, head) = (self.slow.clone(), self.writer.head());
        self.swarm.run_until("the slow ones are complete", |swarm| swarm.all_at(slow.clone(), head));
        let everybody = (self.fast.len() + slow.len() * self.rooms.len()) as u64;
        assert_eq!(self.swarm.deliveries(), everybody * head);
        eprintln!(
            "slow, after: seconds={:.2} deliveries={} pages={} hits={} rss_mib={} lost=0",
            started.elapsed().as_secs_f64(),
            self.swarm.deliveries(),
            self.server.metric("catch_up_pages_total"),
            self.server.metric("catch_up_page_hits_total"),
            resident_bytes(&self.server) / MIB,
        );
        assert_eq!(self.server.metric("stalled_total"), 0);
        self.writer.publish(1);
        self.swarm.run_until("all are live again", |swarm| swarm.all_at(0..slow.end, head + 1));
    }
}

/// The median and the 99th percentile of what the fast ones measured since the last time.
fn fast_lags(swarm: &mut Swarm, who: &str) -> (u32, u32) {
    let mut lags = swarm.take_lags();
    assert!(!lags.is_empty(), "nothing was measured of {who}");
    (percentile(&mut lags, 50), percentile(&mut lags, 99))
}
