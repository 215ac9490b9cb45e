//! Durable before visible: what was acknowledged or seen is in the database, once, under its number.
//!
//! Writers and listeners work against the real process while it is killed, while PostgreSQL is killed
//! under it, and while its disk is full. After every round the database itself is read and compared
//! with what the outside world knows. Listeners come back and resume for the whole run, so each of them
//! ends with the exact sequence of its room across all kills.

mod database;
mod ear;
mod writers;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use self::database::Database;
use self::ear::Ear;
use self::writers::Keyed;
use crate::form::{Random, count, seed, short_or_long};
use crate::support::postgres::Cluster;
use crate::support::server::TestServer;
use crate::support::{TempDir, eventually};

const ROOMS: [&str; 4] = ["red", "green", "blue", "pale"];

/// Sets the number of kills.
const KILLS: &str = "ROOMCAST_TORTURE_KILLS";

/// Listeners of each room.
const EARS: usize = 2;

/// What the outside world knows and counts.
#[derive(Default)]
struct Known {
    /// Room, text and, where the acknowledgement tells it, number.
    acknowledged: Mutex<Vec<(String, String, Option<u64>)>>,
    acks: AtomicU64,
    /// Publications that arrived at listeners.
    seen: AtomicU64,
    /// Publishes answered by a temporary error.
    refused: AtomicU64,
    /// Writers finish what they are at and go.
    stop: AtomicBool,
}

impl Known {
    fn acknowledge(&self, room: &str, text: String, seq: Option<u64>) {
        self.acknowledged.lock().unwrap().push((room.to_owned(), text, seq));
        self.acks.fetch_add(1, Ordering::Relaxed);
    }

    /// Acks and arrivals so far: the clock of a run.
    fn events(&self) -> u64 {
        self.acks.load(Ordering::Relaxed) + self.seen.load(Ordering::Relaxed)
    }
}

/// One run: a server, its database as another program sees it, and everybody outside.
struct Siege {
    server: TestServer,
    database: Database,
    known: Arc<Known>,
    ears: Vec<Ear>,
    keyed: Keyed,
    random: Random,
    rounds: u64,
    /// Acknowledged messages that were compared with the database already.
    compared: usize,
    started: Instant,
    seed: u64,
}

impl Siege {
    fn new(server: TestServer, url: &str) -> Self {
        let seed = seed();
        let ears = ROOMS.iter().flat_map(|room| (0..EARS).map(|_| Ear::new(room))).collect();
        Self {
            database: Database::open(url),
            server,
            known: Arc::default(),
            ears,
            keyed: Keyed::default(),
            random: Random::new(seed, 0),
            rounds: 0,
            compared: 0,
            started: Instant::now(),
            seed,
        }
    }

    /// Everybody works while `harm` is done; then what is known is compared with what is stored.
    fn round(&mut self, writers: u64, pad: u64, harm: impl FnOnce(&mut TestServer, &mut Random, &Known)) {
        let (address, known, round) = (self.server.address, self.known.clone(), self.rounds);
        known.stop.store(false, Ordering::Relaxed);
        thread::scope(|scope| {
            for ear in &mut self.ears {
                let known = &known;
                scope.spawn(move || ear.listen(address, known));
            }
            for writer in 0..writers {
                let (known, dice) = (&known, Random::new(self.seed, 1 + round * writers + writer));
                scope.spawn(move || writers::pipeline(address, round, writer, pad, dice, known));
            }
            let (keyed, known) = (&mut self.keyed, &known);
            scope.spawn(move || keyed.write(address, round, known));
            let _all_go_home = Ending { address, known };
            harm(&mut self.server, &mut self.random, known);
        });
        self.rounds += 1;
    }

    /// Compares what is new with the database; no kill changes what was read from it before, or the end will show it.
    fn check(&mut self) {
        self.database.take_in_news();
        let acknowledged = self.known.acknowledged.lock().unwrap();
        self.database.compare(&acknowledged[self.compared..], &mut self.ears);
        self.compared = acknowledged.len();
    }

    /// Every listener comes to the head of its room; then everything is read and compared once more.
    fn finish(mut self, what: &str) {
        let heads: Vec<u64> = ROOMS.iter().map(|room| self.database.head(room)).collect();
        let address = self.server.address;
        for (ear, head) in self.ears.iter_mut().zip(heads.iter().flat_map(|head| [*head; EARS])) {
            ear.hear_until(address, head, &self.known);
        }
        self.database.start_over();
        self.compared = 0;
        self.ears.iter_mut().for_each(|ear| ear.compared = 0);
        self.check();
        let [acks, seen, refused] = [&self.known.acks, &self.known.seen, &self.known.refused]
            .map(|count| count.load(Ordering::Relaxed));
        assert!(seen > 0 && acks > 0);
        eprintln!(
            "{what}: rounds {}, acknowledged {acks}, stored {}, seen {seen}, refused {refused}, lost 0, repeated 0, \
             holes 0, {:.0?}, seed {}",
            self.rounds,
            self.database.rows(),
            self.started.elapsed(),
            self.seed
        );
    }
}

/// Lets everybody go when a round fails, so that the failure is told.
struct Ending<'a> {
    address: SocketAddr,
    known: &'a Known,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.known.stop.store(true, Ordering::Relaxed);
            ear::hang_up(self.address);
        }
    }
}

/// Kills the process at random moments, most of them under load, some of them right after its start.
fn kill_the_process(mut siege: Siege, what: &str) {
    for _ in 0..count(KILLS, 10, 100) {
        siege.round(4, 400, |server, random, known| {
            let more = if random.one_in(6) { 0 } else { 200 + random.below(3000) };
            let enough = known.events() + more;
            eventually("enough happens before the kill", || known.events() >= enough);
            server.kill9();
        });
        siege.server.run();
        siege.check();
    }
    siege.finish(what);
}

#[test]
fn kills_of_the_process_on_sqlite() {
    let folder = TempDir::new();
    let url = format!("sqlite:{}", folder.0.join("chat.db").display());
    let siege = Siege::new(TestServer::at(url.clone(), folder, ""), &url);
    kill_the_process(siege, "SIGKILL, SQLite");
}

#[test]
fn kills_of_the_process_on_postgres() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let siege = Siege::new(TestServer::at(url.clone(), TempDir::new(), ""), &url);
    kill_the_process(siege, "SIGKILL, PostgreSQL");
}

/// PostgreSQL dies without a word and comes back; the server stays, and nobody is cut off.
#[test]
fn kills_of_postgres() {
    let mut cluster = Cluster::start();
    let url = cluster.database();
    let mut siege = Siege::new(TestServer::at(url.clone(), TempDir::new(), ""), &url);
    for _ in 0..count(KILLS, 3, 30) {
        siege.round(4, 400, |server, random, known| {
            let enough = known.events() + 200 + random.below(3000);
            eventually("enough happens before the kill", || known.events() >= enough);
            let refused = known.refused.load(Ordering::Relaxed);
            cluster.crash();
            eventually("publishes are refused", || known.refused.load(Ordering::Relaxed) > refused);
            cluster.run();
            heal(server, known);
        });
        siege.database.reconnect();
        siege.check();
    }
    siege.finish("PostgreSQL killed");
}

/// Publishes are acknowledged again; then everybody comes to rest, with nothing left in doubt.
fn heal(server: &TestServer, known: &Known) {
    let acks = known.acks.load(Ordering::Relaxed) + 100;
    eventually("publishes are acknowledged again", || known.acks.load(Ordering::Relaxed) >= acks);
    known.stop.store(true, Ordering::Relaxed);
    // A commit of unknown outcome is settled by the next one of its lane, which is of the same room.
    for room in ROOMS {
        let text = format!("rest {}", known.events());
        // Other lanes may have healed before; with a key, trying again stores it once.
        let params = format!(r#"{{"channel":"{room}","data":"{text}","idempotency_key":"{text}"}}"#);
        let mut offset = None;
        eventually("the lane of the room has healed", || {
            let answer: serde_json::Value = serde_json::from_str(&server.api("publish", &params)).unwrap();
            offset = answer["result"]["offset"].as_u64();
            offset.is_some()
        });
        known.acknowledge(room, text, offset);
    }
    ear::hang_up(server.address);
}

/// A small file system in memory that is really full.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self(TempDir::new());
        // The messages of all rounds must fit, at whatever rate they come.
        let size = short_or_long("size=512m", "size=4g");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(disk.path()).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "this test mounts a tmpfs: run it as root with the right to mount (docker run --cap-add SYS_ADMIN)"
        );
        disk
    }

    fn path(&self) -> &Path {
        &self.0.0
    }

    /// Leaves `bytes` free.
    fn fill(&self, bytes: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize;
        let ballast = vec![b'x'; usize::try_from(free.saturating_sub(bytes)).unwrap()];
        match std::fs::write(self.path().join("ballast"), ballast) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {} // The server was faster.
            other => other.unwrap(),
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// The disk is full again and again, and has free space again.
fn fill_the_disk(disk: &SmallDisk, mut siege: Siege, what: &str) {
    for _ in 0..short_or_long(2, 10) {
        siege.round(4, 8000, |server, random, known| {
            let enough = known.events() + 50 + random.below(200);
            eventually("enough happens before the disk is full", || known.events() >= enough);
            let refused = known.refused.load(Ordering::Relaxed);
            disk.fill(random.below(1 << 20));
            eventually("publishes are refused", || known.refused.load(Ordering::Relaxed) > refused + 20);
            eventually("health says so", || server.get("/health").status == 503);
            disk.free();
            heal(server, known);
            eventually("health says so", || server.get("/health").status == 200);
        });
        siege.check();
    }
    siege.finish(what);
}

#[test]
fn a_full_disk_under_load() {
    let disk = SmallDisk::mount();
    let url = format!("sqlite:{}", disk.path().join("chat.db").display());
    let siege = Siege::new(TestServer::at(url.clone(), TempDir::new(), ""), &url);
    fill_the_disk(&disk, siege, "disk full (ENOSPC)");
}

/// The tables of PostgreSQL are on the disk that is full. Small messages may find a page that has space for them.
#[test]
fn a_full_tablespace_under_load() {
    let disk = SmallDisk::mount();
    let tables = disk.path().join("tables");
    std::fs::create_dir(&tables).unwrap();
    let cluster = Cluster::start();
    let url = cluster.database_in(&tables);
    let siege = Siege::new(TestServer::at(url.clone(), TempDir::new(), ""), &url);
    fill_the_disk(&disk, siege, "tablespace full (ENOSPC), PostgreSQL");
}
