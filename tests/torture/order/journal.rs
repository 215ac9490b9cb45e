//! What was published and what was heard, so that every delivery can be judged.
//!
//! A payload carries its writer, the writer's counter and a padding that follows from the two. A room
//! keeps, by offset, which payload somebody heard or was told to be there: whoever hears something
//! else under the same offset fails at once, and at the end the database must say the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use diesel::sql_types::{BigInt, Text};
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection};

/// The sequence of numbers one writer put into one room.
pub type Sent = HashMap<(usize, u64), Vec<u64>>;

/// A number that only grows, and that others wait for.
#[derive(Default)]
pub struct Meter {
    value: AtomicU64,
    lock: Mutex<()>,
    grown: Condvar,
}

impl Meter {
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Acquire)
    }

    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::AcqRel);
        self.grown.notify_all();
    }

    pub fn raise(&self, to: u64) {
        self.value.fetch_max(to, Ordering::AcqRel);
        self.grown.notify_all();
    }

    /// Waits until it has grown so far, or nothing more is to be expected.
    pub fn wait(&self, until: u64, over: impl Fn() -> bool) {
        let mut guard = self.lock.lock().unwrap();
        while self.get() < until && !over() {
            // A call that comes between the question and the sleep is lost; the next look finds it.
            guard = self.grown.wait_timeout(guard, Duration::from_millis(10)).unwrap().0;
        }
    }
}

/// Tells all threads of an attack when one of them fails, so that none waits for it.
#[derive(Default)]
pub struct Alarm(AtomicBool);

impl Alarm {
    pub fn rang(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    #[track_caller]
    pub fn check(&self) {
        assert!(!self.rang(), "another thread of this attack has failed");
    }

    /// Rings when the value is dropped by a panic.
    pub fn guard(&self) -> AlarmGuard<'_> {
        AlarmGuard(self)
    }
}

/// See [`Alarm::guard`].
pub struct AlarmGuard<'a>(&'a Alarm);

impl Drop for AlarmGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.0.store(true, Ordering::Release);
        }
    }
}

/// A room under attack.
pub struct Room {
    pub name: String,
    /// Messages that were acknowledged.
    pub acked: Meter,
    /// How far the listener is that never stops.
    pub witnessed: Meter,
    /// By offset minus one: the print of the payload, 0 for one that nobody has seen yet.
    prints: Mutex<Vec<u64>>,
}

impl Room {
    pub fn new(name: String) -> Self {
        Self { name, acked: Meter::default(), witnessed: Meter::default(), prints: Mutex::default() }
    }

    /// These payloads stand under the offsets from `first` on.
    #[track_caller]
    pub fn note(&self, first: u64, seen: &[u64]) {
        let mut prints = self.prints.lock().unwrap();
        let start = (first - 1) as usize;
        if prints.len() < start + seen.len() {
            prints.resize(start + seen.len(), 0);
        }
        for ((known, seen), offset) in prints[start..].iter_mut().zip(seen).zip(first..) {
            assert!(
                *known == 0 || known == seen,
                "{} holds two payloads under {offset}: {known:x}, {seen:x}",
                self.name
            );
            *known = *seen;
        }
    }

    /// Compares what was heard with what the database holds and what the writers have sent.
    pub fn compare(&self, number: usize, database: &Database, sent: &Sent, whole: bool) {
        let rows = database.messages(&self.name);
        let prints = self.prints.lock().unwrap();
        assert_eq!(rows.len() as u64, self.acked.get(), "messages kept and acknowledged in {}", self.name);
        assert!(prints.len() <= rows.len(), "{}: {} were heard of {}", self.name, prints.len(), rows.len());
        let mut kept = Sent::new();
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.seq, index as i64 + 1, "a hole in {}", self.name);
            let print = print_of(row.data.as_bytes());
            let heard = prints.get(index).copied().unwrap_or(0);
            let right = heard == print || heard == 0 && !whole;
            assert!(right, "{} {}: kept {print:x}, heard {heard:x}", self.name, row.seq);
            kept.entry((number, writer_of(print))).or_default().push(number_of(print));
        }
        for (key, numbers) in sent.iter().filter(|((room, _), _)| *room == number) {
            assert!(
                kept.get(key) == Some(numbers),
                "what writer {} sent to {} is not there",
                key.1,
                self.name
            );
            kept.remove(key);
        }
        assert!(kept.is_empty(), "{} holds messages that nobody sent: {:?}", self.name, kept.keys());
    }
}

/// The database behind the server, read without it.
pub enum Database {
    Sqlite(String),
    Postgres(String),
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Text)]
    data: String,
}

impl Database {
    fn messages(&self, room: &str) -> Vec<Row> {
        let query = diesel::sql_query(format!(
            "SELECT m.seq, m.data FROM messages m JOIN rooms r ON r.id = m.room_id WHERE r.name = '{room}' ORDER BY m.seq"
        ));
        match self {
            Self::Sqlite(file) => query.load(&mut SqliteConnection::establish(file).unwrap()).unwrap(),
            Self::Postgres(url) => query.load(&mut PgConnection::establish(url).unwrap()).unwrap(),
        }
    }
}

const NUMBER_BITS: u32 = 40;

/// Writer and number in one.
pub fn print(writer: u64, number: u64) -> u64 {
    writer << NUMBER_BITS | number
}

pub fn writer_of(print: u64) -> u64 {
    print >> NUMBER_BITS
}

pub fn number_of(print: u64) -> u64 {
    print & ((1 << NUMBER_BITS) - 1)
}

/// The payload of a writer's message of this number; writers and numbers begin at 1.
pub fn payload(writer: u64, number: u64) -> String {
    let (letter, length) = padding(writer, number);
    let padding = char::from(letter).to_string().repeat(length);
    format!(r#"{{"w":{writer},"n":{number},"p":"{padding}"}}"#)
}

/// Mostly short, sometimes larger than a frame, rarely larger than the budget of an outbox.
fn padding(writer: u64, number: u64) -> (u8, usize) {
    let hash = (print(writer, number) ^ 0x5851_F42D).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
    let length = match hash % 4096 {
        0 => 6000,
        1..=40 => hash / 4096 % 1500,
        _ => hash / 4096 % 48,
    };
    (b'a' + (hash % 26) as u8, length as usize)
}

/// What a payload says it is, checked to its last byte.
#[track_caller]
pub fn print_of(data: &[u8]) -> u64 {
    read_payload(data).unwrap_or_else(|| panic!("no payload of this test: {}", String::from_utf8_lossy(data)))
}

fn read_payload(data: &[u8]) -> Option<u64> {
    let (writer, rest) = digits(data.strip_prefix(br#"{"w":"#)?);
    let (number, rest) = digits(rest.strip_prefix(br#","n":"#)?);
    let padding_here = rest.strip_prefix(br#","p":""#)?.strip_suffix(br#""}"#)?;
    let (letter, length) = padding(writer, number);
    let right = padding_here.len() == length && padding_here.iter().all(|byte| *byte == letter);
    (right && writer > 0 && number > 0).then(|| print(writer, number))
}

/// The number a text begins with, and what follows.
pub fn digits(text: &[u8]) -> (u64, &[u8]) {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..count].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    (number, &text[count..])
}
