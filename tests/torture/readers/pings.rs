//! Pings while no reader is free.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::SimpleConnection;

use super::database::SLOW_COMMITS;
use super::{MIB, Siege, connect};
use crate::crowd::{Alarms, Crowd};
use crate::form::short_or_long;
use crate::support::server::TestServer;
use crate::support::{PATIENCE, TempDir, postgres};
use crate::swarm::{StopOnDrop, percentile};

/// Most readers, and those who publish by the API, each of whom keeps one while its commit lasts.
const READERS: usize = 4;
const CALLERS: usize = 32;

/// Clients that connect at a time, so that little time passes between the command and its reply.
const AT_A_TIME: usize = 100;

/// Rounds of pings while no reader is free.
const ROUNDS: usize = 2;

/// A crowd that only answers pings, and when each was due and came.
struct Pinged {
    crowd: Crowd,
    alarms: Alarms,
    interval: Duration,
    /// When its first ping is due, if the server connected it as soon as it asked.
    due: Vec<Instant>,
    pings: Vec<Vec<Instant>>,
}

impl Pinged {
    /// Silent clients, the first sockets of a server: so their numbers are known, and with them their spread.
    fn new(server: &TestServer, count: usize, interval: Duration) -> Self {
        let mut crowd = Crowd::default();
        crowd.open(server, count, true);
        crowd.upgrade(server);
        let alarms = Alarms::of(&crowd);
        let (due, pings) = (Vec::with_capacity(count), vec![Vec::new(); count]);
        let mut pinged = Self { crowd, alarms, interval, due, pings };
        while pinged.due.len() < count {
            let first = pinged.due.len();
            for number in first..(first + AT_A_TIME).min(count) {
                let spread = (number as u64 + 1).wrapping_mul(97) % 256;
                let half = interval / 2;
                pinged.due.push(Instant::now() + half + half * spread as u32 / 255);
                pinged.crowd.peers[number].send_text(&connect(number));
            }
            let asked = pinged.due.len() - first;
            let mut connected = 0;
            pinged.run_until("they are connected", |_, connects| {
                connected += connects;
                connected == asked
            });
        }
        pinged
    }

    /// Answers pings until a condition holds, which is told of those who connected meanwhile.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self, usize) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut connected = 0;
        while !done(self, connected) {
            assert!(Instant::now() < deadline, "it never came to this: {what}");
            connected = 0;
            for number in self.alarms.wait(Duration::from_millis(100)) {
                let peer = &mut self.crowd.peers[number];
                peer.fill();
                let (now, mut pinged) = (Instant::now(), 0);
                peer.take_frames(|line| match line {
                    "{}" => pinged += 1,
                    line => connected += usize::from(line.contains(r#""connect""#)),
                });
                assert_eq!((peer.ended, peer.closed), (false, None), "who answers pings is not hung up on");
                for _ in 0..pinged {
                    peer.send_text("{}");
                    self.pings[number].push(now);
                }
            }
        }
    }

    /// How late each ping of some rounds came, in microseconds; none is early.
    fn lateness(&self, rounds: std::ops::Range<usize>) -> Vec<u32> {
        let all = self.due.iter().zip(&self.pings);
        let late = all.flat_map(|(due, pings)| {
            rounds.clone().map(|round| {
                let due = *due + self.interval * round as u32;
                let late = pings[round].checked_duration_since(due).expect("no ping is early");
                late.as_micros() as u32
            })
        });
        late.collect()
    }
}

/// All readers wait for commits of the API, of half a second each, and as soon as one is through it is wanted again.
/// Pings come when they are due all the same, by an absolute clock: one that begins with connect.
#[test]
fn pings_come_while_no_reader_is_free() {
    let count = short_or_long(300, 19_000 - 2 * CALLERS);
    let interval = Duration::from_secs(short_or_long(4, 25));
    let settings = format!(
        "readers_max = {READERS}\n[database]\ncommit_lanes = 1\n[client]\nping_interval = \"{}s\"\npong_timeout = \"{}s\"\n",
        interval.as_secs(),
        short_or_long(3, 8),
    );
    let url = postgres::shared().database();
    let siege = Siege::of(TestServer::at(url.clone(), TempDir::new(), &settings));
    let server = &siege.server;
    let mut pinged = Pinged::new(server, count, interval);
    pinged.run_until("everybody was pinged", |pinged, _| pinged.pings.iter().all(|pings| !pings.is_empty()));
    let mut database = diesel::PgConnection::establish(&url).unwrap();
    database.batch_execute(SLOW_COMMITS).unwrap();
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let published: usize = thread::scope(|scope| {
        let publish = || {
            let mut published = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = server.post("/api/publish", "", r#"{"channel":"slow","data":"x"}"#);
                published += usize::from(answer.body.contains(r#""offset""#));
            }
            published
        };
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(publish)).collect();
        let stopping = StopOnDrop(&stop);
        pinged.run_until("everybody was pinged so often", |pinged, _| {
            pinged.pings.iter().all(|pings| pings.len() > ROUNDS)
        });
        drop(stopping);
        let finished = || callers.iter().all(thread::ScopedJoinHandle::is_finished);
        pinged.run_until("everybody has published", |_, _| finished());
        callers.into_iter().map(|caller| caller.join().unwrap()).sum()
    });
    let took = began.elapsed();
    let at_bound = server.metric("readers_exhausted_seconds_total") as f64 / took.as_secs_f64();
    let (mut quiet, mut late) = (pinged.lateness(0..1), pinged.lateness(1..1 + ROUNDS));
    let [quiet_p50, quiet_p99] = [50, 99].map(|percent| percentile(&mut quiet, percent));
    let [p50, p99] = [50, 99].map(|percent| percentile(&mut late, percent));
    eprintln!(
        "readers, pings: published={published} readers={} at_bound_percent={:.0} quiet_us_p50={quiet_p50} \
         p99={quiet_p99} ping_late_us_p50={p50} late_p99={p99} most={}",
        server.metric("readers"),
        100.0 * at_bound,
        late.last().unwrap(),
    );
    siege.judge("pings", count, took, 64 * MIB);
    assert_eq!(server.metric(r#"disconnects_total{code="3012"}"#), 0);
    assert!(at_bound > 0.5, "readers were free most of the time: {at_bound}");
    assert!(p99 < short_or_long(2_000_000, 100_000), "pings are {p99} us late");
}
