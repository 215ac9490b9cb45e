//! A database that is slow, and the readers that wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use diesel::Connection;
use diesel::connection::SimpleConnection;

use super::{MIB, Siege, connect, expect_within};
use crate::crowd::Crowd;
use crate::form::short_or_long;
use crate::support::server::TestServer;
use crate::support::{TempDir, eventually, postgres};
use crate::swarm::{StopOnDrop, percentile};

/// As the settings of the server say.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// For those who need no commit, on a machine with other things to do.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Makes each statement that stores messages take half a second.
pub(super) const SLOW_COMMITS: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
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

/// Nobody can read messages, and everybody asks for some.
#[test]
fn a_locked_table_takes_no_thread_of_those_who_ask_for_history() {
    let question = r#""history":{"channel":"room","limit":10}"#;
    stand_still_on_postgres("messages", question, ("history", r#"{"channel":"room","limit":10}"#), None);
}

/// Nobody can read who belongs to which room. All the others go on, and their messages are stored.
#[test]
fn a_locked_table_takes_no_thread_of_those_who_ask_for_contacts() {
    let question = r#""rpc":{"method":"rooms.unread"}"#;
    stand_still_on_postgres("members", question, ("room_info", r#"{"channel":"room"}"#), Some("room"));
}

/// SQLite's writer is locked, and everybody wants to change something.
#[test]
fn a_locked_file_takes_no_thread_of_those_who_change_contacts() {
    let question = r#""rpc":{"method":"contacts.add","data":{"user":"bob"}}"#;
    let siege = Siege::with(STAND_STILL);
    siege.server.connect("writer").publish("room", "1");
    let lock = Box::new(siege.server.lock_sqlite());
    stand_still(&siege, lock, question, ("contact_add", r#"{"user":"ann","contact":"bob"}"#), None);
}

/// Queries at a time, as many as there are connections that read.
const SLOTS: usize = 4;

const STAND_STILL: &str = "[client]\nping_interval = \"1s\"\npong_timeout = \"900ms\"\n";

fn stand_still_on_postgres(table: &str, question: &str, request: (&str, &str), stored: Option<&str>) {
    let url = postgres::shared().database();
    let siege = Siege::of(TestServer::at(url.clone(), TempDir::new(), STAND_STILL));
    siege.server.connect("writer").publish("room", "1");
    let mut lock = Box::new(diesel::PgConnection::establish(&url).unwrap());
    lock.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).unwrap();
    stand_still(&siege, lock, question, request, stored);
}

/// Many ask what the database does not tell while `lock` lives, by WebSocket and by HTTP. Each waits without a thread
/// and hears after three seconds that it was in vain, but for the few who ask the database meanwhile; others go on,
/// also one who publishes to a `stored` room.
fn stand_still(
    siege: &Siege,
    lock: Box<dyn SimpleConnection>,
    question: &str,
    (method, params): (&str, &str),
    stored: Option<&str>,
) {
    let count = short_or_long(200, 1_000);
    let server = &siege.server;
    let (mut crowd, mut callers) = (Crowd::default(), Crowd::default());
    crowd.open(server, count, true);
    crowd.upgrade(server);
    crowd.ask(1, connect);
    callers.open(server, count / 10, true);
    let all = count + callers.peers.len();
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    crowd.peers.iter_mut().for_each(|peer| peer.send_text(&format!(r#"{{"id":2,{question}}}"#)));
    let length = params.len();
    let request =
        format!("POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{params}");
    callers.peers.iter_mut().for_each(|peer| peer.send(request.as_bytes()));
    let (mut refused, mut pings, mut answers) = (0, 0, 0);
    let (typing, health, publishing) = thread::scope(|scope| {
        let typing = scope.spawn(|| type_until(&stop, server));
        let health = scope.spawn(|| repeat_until(&stop, || drop(server.get("/health"))));
        let publishing = stored.map(|room| {
            let mut client = server.connect("publisher");
            let stop = &stop;
            scope.spawn(move || repeat_until(stop, || client.publish(room, "1")))
        });
        let stopping = StopOnDrop(&stop);
        crowd.run_until("all but those who ask are told that it is in vain", |crowd| {
            for peer in &mut crowd.peers {
                let mut pinged = 0;
                peer.take_frames(|line| {
                    pinged += usize::from(line == "{}");
                    refused += usize::from(line.contains(r#"{"code":100,"#));
                });
                (0..pinged).for_each(|_| peer.send_text("{}"));
                pings += pinged;
                assert_eq!((peer.ended, peer.closed), (false, None), "who waits is not hung up on");
            }
            callers.turn();
            let heads = callers.peers.iter_mut().filter_map(|peer| peer.received.next_head());
            answers += heads.inspect(|head| assert!(head.starts_with("HTTP/1.1 200 "), "{head}")).count();
            refused + answers >= all - SLOTS
        });
        drop(stopping);
        let publishing = publishing.map(|publishing| publishing.join().unwrap());
        (typing.join().unwrap(), health.join().unwrap(), publishing)
    });
    let took = began.elapsed();
    eprintln!(
        "readers, {method} locked: pings={pings} typing={typing:?} health={health:?} publishing={publishing:?}"
    );
    siege.judge(&format!("{method} locked"), all, took, 16 * MIB);
    assert!(took >= Duration::from_secs(3), "{took:?}");
    expect_within(Duration::from_secs(3), took, typing.1.max(crowd.longest_wait()));
    // The database itself gives up on those who ask it, after a second at the earliest.
    let told_by_the_database = SLOTS * (took.as_secs() as usize + 2);
    let refused_in_line = server.metric("queries_refused_total") as usize;
    assert!(refused_in_line >= all.saturating_sub(told_by_the_database), "{refused_in_line} of {all}");
    assert_eq!(server.metric("readers_exhausted_total"), 0);
    assert!(pings >= count && typing.0 > 0 && health.0 > 0, "somebody stood still");
    let slowest = typing.1.max(publishing.map_or(Duration::ZERO, |(_, slowest)| slowest));
    assert!(slowest < LONGEST_WAIT, "{slowest:?}");
    drop(lock);
    eventually("nobody waits", || server.metric("queries_waiting") == 0);
    eventually("the database answers", || server.get("/health").status == 200);
    let answer = server.connect("late").ask(&format!("{{{question}}}"));
    assert!(!answer.contains("error"), "{answer}");
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
