//! The power fails: whatever the disk had not written, what was acknowledged is there and numbers are dense.
//!
//! A real server works under strace, which notes each write, each sync and each answer in the order in which the
//! kernel took them. The record is replayed into a disk in memory that loses its power at the end of every sync, as late as an
//! answer can be that the sync before made true. Each time the files are put together from what was synced and from
//! combinations of what was not, opened, and compared with the answers that had been given by then.

mod disk;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use serde_json::{Value, json};

use self::disk::{Disk, Files, combinations};
use self::record::Event;
use crate::form::{Random, seed, short_or_long};
use crate::support::TempDir;
use crate::support::server::TestServer;

const WRITERS: u64 = 4;

/// Ids of publishes are different all over the run: a writer's begin with its number.
const IDS_A_WRITER: u64 = 1_000_000;

/// Publishes of one frame.
const WINDOW_MAX: u64 = 3;

/// Answers between two cuts where syncs are rare.
const ANSWERS_A_CUT: usize = 3;

/// Pads of messages, in bytes, so that rows spread over pages.
const PAD_MAX: u64 = 2_000;

#[test]
fn no_power_cut_takes_an_acknowledged_message() {
    let run = Run::record("full");
    let counts = run.cut();
    assert_eq!(counts.lost, 0, "acknowledged messages are lost");
    assert_eq!(counts.called_forked, 0, "a database that lacks nothing is taken for an older one");
}

/// The same with less: numbers stay dense, no file is broken, and this test can see that messages are lost.
#[test]
fn a_power_cut_breaks_nothing_with_normal_durability() {
    let run = Run::record("normal");
    let counts = run.cut();
    assert!(counts.lost > 0, "nothing is lost, so nothing is measured");
    assert!(counts.called_forked > 0, "no mark was newer than its database, so nothing is measured");
}

/// What a server did.
struct Run {
    durability: &'static str,
    events: Vec<Event>,
    random: Random,
}

#[derive(Debug, Default)]
struct Counts {
    cuts: usize,
    images: usize,
    /// Acknowledged messages that were looked for in images.
    looked_for: usize,
    lost: usize,
    /// Images that lack acknowledged messages.
    images_behind: usize,
    /// Images with a mark that tells of a message, or a history, which is not in the database.
    called_forked: usize,
    restarts: usize,
}

impl Run {
    /// Writers publish until each has its acks; then the server stops, and checkpoints, in order.
    fn record(durability: &'static str) -> Self {
        let seed = seed();
        let (folder, records) = (TempDir::new(), TempDir::new());
        let path = folder.0.clone();
        let (url, record) = (url(&path), records.0.join("record"));
        let extras = format!("[database]\ndurability = \"{durability}\"\n");
        let mut server = TestServer::recorded(url, folder, &extras, record.clone());
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (server, dice) = (&server, Random::new(seed, writer));
                scope.spawn(move || publish(server, writer, dice));
            }
        });
        assert_eq!(server.stop(), Some(0));
        Self { durability, events: record::read(&record, &path), random: Random::new(seed, WRITERS) }
    }

    /// Cuts the power at the end of each sync; with `normal`, which syncs seldom, at answers too.
    fn cut(mut self) -> Counts {
        let (mut disk, mut acked, mut counts) = (Disk::default(), BTreeSet::new(), Counts::default());
        // The newest one: the others say less.
        let mut mark = Vec::new();
        let syncs_seldom = self.durability == "normal";
        let mut answers = 0_usize;
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Sent(bytes) => {
                    acked.extend(acks(&bytes));
                    answers += 1;
                    if syncs_seldom && answers.is_multiple_of(ANSWERS_A_CUT) {
                        counts.cut(&disk, &mark, &acked, &mut self.random);
                    }
                }
                Event::Changed(change) => disk.change(change),
                Event::Marked(bytes) => mark = bytes,
                Event::Synced { name, changes_before } => {
                    counts.cut(&disk, &mark, &acked, &mut self.random);
                    disk.sync(&name, changes_before);
                }
            }
        }
        assert!(acked.len() as u64 == WRITERS * messages_a_writer(), "{} answers in the record", acked.len());
        assert!(counts.cuts > acked.len() / 100, "{} cuts in the record", counts.cuts);
        eprintln!(
            "power cut, SQLite, durability {}: {counts:?}, acknowledged {}",
            self.durability,
            acked.len()
        );
        counts
    }
}

fn messages_a_writer() -> u64 {
    short_or_long(30, 1_200)
}

/// Publishes small frames, each after the last was answered.
fn publish(server: &TestServer, writer: u64, mut dice: Random) {
    let mut client = server.connect(&format!("writer {writer}"));
    let mut sent = 0;
    while sent < messages_a_writer() {
        let window = (1 + dice.below(WINDOW_MAX)).min(messages_a_writer() - sent);
        let ids = (sent..sent + window).map(|number| 1 + writer * IDS_A_WRITER + number);
        let frame: Vec<_> = ids
            .map(|id| {
                let text = format!("{id} {}", "x".repeat(dice.below(PAD_MAX) as usize));
                json!({"id": id, "publish": {"channel": format!("room{}", id % 3), "data": text}}).to_string()
            })
            .collect();
        client.send(&frame.join("\n"));
        for _ in 0..window {
            let reply: Value = serde_json::from_str(&client.next_reply()).unwrap();
            assert_eq!(reply["error"], Value::Null, "{reply}");
        }
        sent += window;
    }
}

/// The ids of the publishes that these bytes acknowledge.
fn acks(bytes: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(bytes);
    let of_reply = |reply: &str| {
        let (id, answer) = reply.split_once(',')?;
        answer.starts_with("\"publish\":{").then(|| id.parse().ok()).flatten()
    };
    text.split("{\"id\":").skip(1).filter_map(of_reply).collect()
}

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("chat.db").display())
}

/// Opens what is looked at once and need not be kept.
fn open(folder: &Path) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(folder.join("chat.db").to_str().unwrap()).unwrap();
    connection.batch_execute("PRAGMA synchronous = OFF").unwrap();
    connection
}

fn write(files: &Files, folder: &Path) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = BigInt)]
    head_seq: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    data: String,
}

#[derive(QueryableByName)]
struct Verdict {
    #[diesel(sql_type = Text)]
    quick_check: String,
}

impl Counts {
    /// Cuts the power now, and looks at what may be left; now and then by starting a server.
    fn cut(&mut self, disk: &Disk, mark: &[u8], acked: &BTreeSet<u64>, random: &mut Random) {
        for left in combinations(disk.open(), random) {
            self.judge(&disk.after(&left), mark, acked);
        }
        self.cuts += 1;
        if self.cuts.is_multiple_of(short_or_long(20, 100)) {
            self.restart(&disk.after(&vec![disk::Left::Nothing; disk.open()]), mark);
        }
    }

    /// Opens what a power cut left: no page is broken, numbers are dense up to the head, and what was acknowledged is looked
    /// for. The mark tells of nothing that is not there, unless something is lost.
    fn judge(&mut self, files: &Files, mark: &[u8], acked: &BTreeSet<u64>) {
        let folder = TempDir::new();
        write(files, &folder.0);
        let mut connection = open(&folder.0);
        let verdict: Verdict = diesel::sql_query("PRAGMA quick_check").get_result(&mut connection).unwrap();
        assert_eq!(verdict.quick_check, "ok");
        let stored = stored(&mut connection);
        self.images += 1;
        self.looked_for += acked.len();
        let lost = acked.difference(&stored).count();
        self.lost += lost;
        self.images_behind += usize::from(lost > 0);
        self.called_forked += usize::from(tells_of_more(mark, &mut connection));
    }

    /// The server itself goes on where the numbers ended, under another epoch if something may be lost.
    fn restart(&mut self, files: &Files, mark: &[u8]) {
        let folder = TempDir::new();
        write(files, &folder.0);
        // The system has another run then.
        let text = std::str::from_utf8(mark).unwrap();
        let text = text
            .split_once("unsynced ")
            .map_or(text.to_owned(), |(line, _)| format!("{line}unsynced before\n"));
        std::fs::write(folder.0.join("chat.db-mark"), &text).unwrap();
        let mut connection = open(&folder.0);
        let before = heads(&rows(&mut connection));
        let is_doubted = text.contains("unsynced") || tells_of_more(mark, &mut connection);
        drop(connection);
        let server = TestServer::at(url(&folder.0), folder, "");
        for room in ["room0", "room1", "room2"] {
            let answer = server.api("publish", &format!(r#"{{"channel":"{room}","data":"after"}}"#));
            let answer: Value = serde_json::from_str(&answer).unwrap();
            let head = before.get(room).copied().unwrap_or(0);
            assert_eq!(answer["result"]["offset"].as_i64(), Some(head + 1), "{room}");
        }
        assert_eq!(server.metric("history_forks_total"), u64::from(is_doubted));
        self.restarts += 1;
    }
}

/// The rows of a database, in the order of rooms and numbers; none while it has no tables.
fn rows(connection: &mut SqliteConnection) -> Vec<Row> {
    if connection.batch_execute("SELECT 1 FROM messages").is_err() {
        return Vec::new();
    }
    let query =
        "SELECT name, head_seq, seq, data FROM rooms JOIN messages ON room_id = rooms.id ORDER BY name, seq";
    diesel::sql_query(query).load(connection).unwrap()
}

fn heads(rows: &[Row]) -> BTreeMap<String, i64> {
    rows.iter().map(|row| (row.name.clone(), row.head_seq)).collect()
}

/// True when a mark names another history than the database, or a message that it lacks.
fn tells_of_more(mark: &[u8], connection: &mut SqliteConnection) -> bool {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = BigInt)]
        found: i64,
    }
    let line = std::str::from_utf8(mark).unwrap().lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [_, epoch, position @ ..] = &*words else { return false };
    let is_there = match position {
        [] => String::new(),
        [seq, channel] => {
            format!(" AND EXISTS (SELECT 1 FROM rooms WHERE name = '{channel}' AND head_seq >= {seq})")
        }
        _ => panic!("{words:?}"),
    };
    let query =
        format!("SELECT count(*) AS found FROM meta WHERE name = 'epoch' AND value = '{epoch}'{is_there}");
    let found = diesel::sql_query(query).get_result::<Found>(connection);
    found.map_or(true, |Found { found }| found == 0)
}

/// The ids of the messages that are stored.
fn stored(connection: &mut SqliteConnection) -> BTreeSet<u64> {
    let rows = rows(connection);
    for room in rows.chunk_by(|a, b| a.name == b.name) {
        let dense = room.iter().map(|row| row.seq).filter(|seq| *seq > 0).eq(1..=room[0].head_seq);
        assert!(dense, "{} has holes below its head {}", room[0].name, room[0].head_seq);
    }
    let id = |row: &Row| row.data.trim_matches('"').split(' ').next().and_then(|id| id.parse().ok());
    rows.iter().filter(|row| row.seq > 0).map(|row| id(row).unwrap()).collect()
}
