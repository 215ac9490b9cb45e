//! A database that is slow, and the readers that wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::SimpleConnection;

use super::{MIB, Siege, connect};
use crate::crowd::Crowd;
use crate::form::short_or_long;
use crate::support::server::TestServer;
use crate::support::{TempDir, postgres};
use crate::swarm::{StopOnDrop, percentile};

/// As the settings of the server say.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// For those who need no commit, on a machine with other things to do.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Makes each statement that stores messages take half a second.
const SLOW_COMMITS: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
     'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END'; \
     CREATE TRIGGER slow AFTER INSERT ON messages FOR EACH STATEMENT EXECUTE FUNCTION slow()";

/// A commit takes half a second, 2,000 wait for theirs, and there are 64 threads at most: pings are on time, nobody
/// who answers them is taken for dead, and others go on. With a thread for each commit nobody would be served for
/// half a minute.
#[test]
fn a_slow_database_delays_no_ping() {
    let (count, silent) = short_or_long((300, 100), (2_000, 17_000));
    let url = postgres::shared().database();
    let readers_max = short_or_long(8, 64);
    let settings = format!(
        "readers_max = {readers_max}\n[database]\ncommit_lanes = 1\n[client]\nping_interval = \"6s\"\npong_timeout = \"4s\"\n"
    );
    let siege = Siege::of(TestServer::at(url.clone(), TempDir::new(), &settings));
    let server = &siege.server;
    let mut crowd = Crowd::default();
    crowd.open(server, count + silent, true);
    crowd.upgrade(server);
    crowd.ask(1, connect);
    let mut database = diesel::PgConnection::establish(&url).unwrap();
    database.batch_execute(SLOW_COMMITS).unwrap();
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let mut pings: Vec<Vec<Instant>> = vec![Vec::new(); count + silent];
    let mut acks = 0;
    let publish = r#"{"id":2,"publish":{"channel":"slow","data":"x"}}"#;
    crowd.peers.iter_mut().take(count).for_each(|peer| peer.send_text(publish));
    let (typing, health) = thread::scope(|scope| {
        let typing = scope.spawn(|| type_until(&stop, server));
        let health = scope.spawn(|| repeat_until(&stop, || assert_eq!(server.get("/health").status, 200)));
        let stopping = StopOnDrop(&stop);
        crowd.run_until("everybody was pinged a few times", |crowd| {
            for (peer, pings) in crowd.peers.iter_mut().zip(&mut pings) {
                let (mut pinged, mut acked) = (0, 0);
                peer.take_frames(|line| match line {
                    "{}" => pinged += 1,
                    _ => acked += usize::from(line == r#"{"id":2,"publish":{}}"#),
                });
                assert_eq!((peer.ended, peer.closed), (false, None), "who answers pings is not hung up on");
                (0..pinged).for_each(|_| peer.send_text("{}"));
                (0..acked).for_each(|_| peer.send_text(publish));
                pings.extend((0..pinged).map(|_| Instant::now()));
                acks += acked;
            }
            pings.iter().all(|pings| pings.len() >= 4)
        });
        drop(stopping);
        (typing.join().unwrap(), health.join().unwrap())
    });
    let mut late: Vec<u32> = pings.iter().flat_map(|pings| pings.windows(2)).map(lateness_ms).collect();
    let (p50, p99) = (percentile(&mut late, 50), percentile(&mut late, 99));
    eprintln!(
        "readers, slow database: acks={acks} ping_late_ms_p50={p50} p99={p99} most={} typing={typing:?} \
         health={health:?} exhausted={}",
        late.last().unwrap(),
        server.metric("readers_exhausted_total"),
    );
    siege.judge("slow database", count + silent, began.elapsed(), 64 * MIB);
    assert_eq!(server.metric(r#"disconnects_total{code="3012"}"#), 0);
    assert!(acks > 0 && typing.0 > 0 && health.0 > 0, "somebody stood still");
    assert!(typing.1.max(health.1) < LONGEST_WAIT, "{typing:?}, {health:?}");
    assert!(p99 < 2_000, "pings are {p99} ms late");
}

/// How much later than an interval after the one before a ping came.
fn lateness_ms(two: &[Instant]) -> u32 {
    (two[1] - two[0]).saturating_sub(PING_INTERVAL).as_millis() as u32
}

/// Somebody types in a room that is not stored, and hears himself; how often, and the slowest.
fn type_until(stop: &AtomicBool, server: &TestServer) -> (usize, Duration) {
    let mut client = server.connect("typist");
    client.join("typing:room");
    repeat_until(stop, || {
        client.publish("typing:room", "1");
        client.next_push();
    })
}

fn repeat_until(stop: &AtomicBool, mut work: impl FnMut()) -> (usize, Duration) {
    let (mut done, mut slowest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        work();
        (done, slowest) = (done + 1, slowest.max(began.elapsed()));
        thread::sleep(Duration::from_millis(10));
    }
    (done, slowest)
}
