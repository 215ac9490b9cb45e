//! A listener that judges every message it hears, and knows many ways to come and go.

use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Run;
use super::journal::{digits, number_of, print_of, writer_of};
use super::wire::Wire;
use super::writer::{API_WRITER, user_of};
use crate::support::PATIENCE;

/// Where a listener stands in a room.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    /// The last offset it heard, or where it began; `None` before its first visit.
    position: Option<u64>,
    inside: bool,
    /// It asked to be let out and has not read the answer yet.
    leaving: bool,
}

/// A command whose reply is awaited.
enum Asked {
    Subscribe { room: usize, recover: bool, glance: bool },
    Unsubscribe(usize),
    Question,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    subscribe: Joined<'a>,
}

#[derive(Deserialize)]
struct Joined<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    recovered: bool,
    #[serde(default, borrow)]
    publications: Vec<Missed<'a>>,
}

#[derive(Deserialize)]
struct Missed<'a> {
    offset: u64,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// See the module.
pub struct Listener<'a> {
    run: &'a Run,
    user: String,
    wire: Wire<'a>,
    seats: Vec<Seat>,
    /// The last number heard of a writer in a room that keeps nothing.
    passing: HashMap<(usize, u64), u64>,
    pending: HashMap<u32, Asked>,
    last_id: u32,
    frame: Vec<u8>,
    /// Messages of one room that were heard in a row and are not noted yet.
    row: Row,
    is_witness: bool,
    /// Messages heard, by the listener's own count.
    pub heard: u64,
}

#[derive(Default)]
struct Row {
    room: usize,
    first: u64,
    prints: Vec<u64>,
}

impl<'a> Listener<'a> {
    pub fn new(run: &'a Run, user: String, is_witness: bool) -> Self {
        Self {
            run,
            wire: Wire::open(run.address, &user, &run.alarm),
            user,
            seats: vec![Seat::default(); run.rooms.len()],
            passing: HashMap::new(),
            pending: HashMap::new(),
            last_id: 1,
            frame: Vec::new(),
            row: Row::default(),
            is_witness,
            heard: 0,
        }
    }

    // ---- what it does ----

    pub fn is_inside(&self, room: usize) -> bool {
        self.seats[room].inside
    }

    pub fn was_inside(&self, room: usize) -> bool {
        self.seats[room].position.is_some()
    }

    pub fn position(&self, room: usize) -> u64 {
        self.seats[room].position.unwrap_or(0)
    }

    /// Subscribes from where it was when it was last here, or from the first message.
    pub fn resume(&mut self, rooms: &[usize]) {
        self.run.tally.resumes.add(rooms.len() as u64);
        let texts: Vec<_> = rooms.iter().map(|room| self.subscribe(*room, true, false)).collect();
        self.send_and_settle(&texts);
    }

    /// Subscribes from the head.
    pub fn join(&mut self, room: usize) {
        self.run.tally.joins.add(1);
        let text = self.subscribe(room, false, false);
        self.send_and_settle(&[text]);
    }

    pub fn leave(&mut self, room: usize) {
        let text = self.unsubscribe(room);
        self.send_and_settle(&[text]);
    }

    pub fn leave_if_inside(&mut self, room: usize) {
        if self.is_inside(room) {
            self.leave(room);
        }
    }

    /// Subscribes and changes its mind in the same frame.
    pub fn look_in(&mut self, room: usize) {
        self.run.tally.glances.add(1);
        let recover = self.run.keeps(room) && self.was_inside(room);
        let texts = [self.subscribe(room, recover, true), self.unsubscribe(room)];
        self.send_and_settle(&texts);
        assert!(!self.is_inside(room), "it is still in {}", self.run.rooms[room].name);
    }

    /// Loses its connection and comes back to every room it was in.
    pub fn cut(&mut self) {
        self.run.tally.cuts.add(1);
        assert!(self.pending.is_empty());
        let inside: Vec<_> = (0..self.seats.len()).filter(|room| self.seats[*room].inside).collect();
        self.wire = Wire::open(self.run.address, &self.user, &self.run.alarm);
        self.passing.clear();
        self.last_id = 1;
        inside.iter().for_each(|room| self.seats[*room].inside = false);
        let (kept, passing): (Vec<_>, Vec<_>) = inside.into_iter().partition(|room| self.run.keeps(*room));
        self.resume(&kept);
        passing.into_iter().for_each(|room| self.join(room));
    }

    /// Reads until it has heard this offset.
    #[track_caller]
    pub fn read_to(&mut self, room: usize, offset: u64) {
        let mut deadline = Instant::now() + PATIENCE;
        while self.position(room) < offset {
            if self.read() {
                deadline = Instant::now() + PATIENCE;
            }
            let name = &self.run.rooms[room].name;
            let position = self.position(room);
            assert!(Instant::now() < deadline, "{} waits in {name} at {position} for {offset}", self.user);
        }
    }

    /// Reads one frame, if there is one.
    #[track_caller]
    pub fn read(&mut self) -> bool {
        self.run.alarm.check();
        let mut frame = std::mem::take(&mut self.frame);
        let came = self.wire.read_frame(&mut frame);
        if came {
            frame.split(|byte| *byte == b'\n').for_each(|line| self.take_in(line));
            self.note_row();
        }
        self.frame = frame;
        came
    }

    /// Goes back to every room it ever was in, hears all there is, and then nothing more.
    pub fn finish(&mut self, heads: &[u64]) {
        self.wire.hurry();
        let known: Vec<_> =
            (0..heads.len()).filter(|room| self.run.keeps(*room) && self.was_inside(*room)).collect();
        let outside: Vec<_> = known.iter().copied().filter(|room| !self.is_inside(*room)).collect();
        self.resume(&outside);
        for room in &known {
            self.read_to(*room, heads[*room]);
        }
        // This goes through the shards of the rooms, behind everything that was published.
        let questions: Vec<_> = known.iter().map(|room| self.question(*room)).collect();
        self.send_and_settle(&questions);
        for room in known {
            assert_eq!(self.position(room), heads[room], "{} in {}", self.user, self.run.rooms[room].name);
        }
    }

    // ---- commands ----

    fn command(&mut self, asked: Asked, method: &str, params: &str) -> String {
        self.last_id += 1;
        self.pending.insert(self.last_id, asked);
        format!(r#"{{"id":{},"{method}":{{{params}}}}}"#, self.last_id)
    }

    fn subscribe(&mut self, room: usize, recover: bool, glance: bool) -> String {
        let channel = format!(r#""channel":"{}""#, self.run.rooms[room].name);
        let recovery = format!(r#","recover":true,"offset":{}"#, self.position(room));
        let recovery = if recover { recovery.as_str() } else { "" };
        self.command(Asked::Subscribe { room, recover, glance }, "subscribe", &format!("{channel}{recovery}"))
    }

    fn unsubscribe(&mut self, room: usize) -> String {
        self.seats[room].leaving = true;
        let channel = format!(r#""channel":"{}""#, self.run.rooms[room].name);
        self.command(Asked::Unsubscribe(room), "unsubscribe", &channel)
    }

    fn question(&mut self, room: usize) -> String {
        let channel = format!(r#""channel":"{}""#, self.run.rooms[room].name);
        self.command(Asked::Question, "presence_stats", &channel)
    }

    #[track_caller]
    fn send_and_settle(&mut self, commands: &[String]) {
        if !commands.is_empty() {
            self.wire.send(&commands.join("\n"));
        }
        let mut deadline = Instant::now() + PATIENCE;
        while !self.pending.is_empty() {
            if self.read() {
                deadline = Instant::now() + PATIENCE;
            }
            assert!(Instant::now() < deadline, "{} gets no answer", self.user);
        }
    }

    // ---- what it hears ----

    fn take_in(&mut self, line: &[u8]) {
        if let Some(rest) = line.strip_prefix(br#"{"push":{"channel":""#) {
            self.push(rest).unwrap_or_else(|| panic!("no push: {}", String::from_utf8_lossy(line)));
        } else if line == b"{}" {
            self.wire.send("{}");
        } else {
            self.note_row();
            self.reply(line);
        }
    }

    fn push(&mut self, rest: &[u8]) -> Option<()> {
        let end = rest.iter().position(|byte| *byte == b'"')?;
        let room = *self.run.by_name.get(&rest[..end]).expect("a room of this test");
        let seat = &mut self.seats[room];
        let name = &self.run.rooms[room].name;
        let shown = || String::from_utf8_lossy(rest).into_owned();
        assert!(seat.inside, "{} is not in {name} and hears from there: {}", self.user, shown());
        let Some(rest) = rest[end..].strip_prefix(br#"","pub":{"data":"#) else {
            return [&br#"","join":"#[..], br#"","leave":"#]
                .iter()
                .find_map(|kind| rest[end..].strip_prefix(*kind))
                .map(|_| ());
        };
        let end = rest.iter().position(|byte| *byte == b'}')? + 1;
        let print = print_of(&rest[..end]);
        let rest = sender_checked(&rest[end..], writer_of(print))?;
        self.heard += 1;
        if !self.run.keeps(room) {
            assert_eq!(rest, b"}}}");
            let last = self.passing.insert((room, writer_of(print)), number_of(print)).unwrap_or(0);
            assert!(
                last < number_of(print),
                "{name}: {} of {} after {last}",
                number_of(print),
                writer_of(print)
            );
            return Some(());
        }
        let (offset, rest) = digits(rest.strip_prefix(br#","offset":"#)?);
        assert_eq!(rest, b"}}}");
        let position = seat.position.unwrap_or(0);
        assert_eq!(offset, position + 1, "{} in {name} hears this after {position}", self.user);
        seat.position = Some(offset);
        self.hear(room, offset, print);
        Some(())
    }

    fn hear(&mut self, room: usize, offset: u64, print: u64) {
        if self.row.room != room || self.row.first + self.row.prints.len() as u64 != offset {
            self.note_row();
            (self.row.room, self.row.first) = (room, offset);
        }
        self.row.prints.push(print);
    }

    fn note_row(&mut self) {
        if self.row.prints.is_empty() {
            return;
        }
        let room = &self.run.rooms[self.row.room];
        room.note(self.row.first, &self.row.prints);
        self.run.tally.deliveries.add(self.row.prints.len() as u64);
        if self.is_witness {
            room.witnessed.raise(self.row.first + self.row.prints.len() as u64 - 1);
        }
        self.row.prints.clear();
    }

    fn reply(&mut self, line: &[u8]) {
        let shown = || String::from_utf8_lossy(line).into_owned();
        let (id, rest) =
            digits(line.strip_prefix(br#"{"id":"#).unwrap_or_else(|| panic!("what is {}", shown())));
        match self.pending.remove(&(id as u32)).unwrap_or_else(|| panic!("nobody asked for {}", shown())) {
            Asked::Unsubscribe(room) => {
                assert_eq!(rest, br#","unsubscribe":{}}"#, "{}", shown());
                self.seats[room].inside = false;
                self.seats[room].leaving = false;
            }
            Asked::Question => assert!(rest.starts_with(br#","presence_stats":{"#), "{}", shown()),
            // A subscribe whose unsubscribe came before the room was known.
            Asked::Subscribe { room, glance: true, .. } if rest.starts_with(br#","error":{"code":111,"#) => {
                assert!(self.seats[room].leaving, "{}", shown());
            }
            Asked::Subscribe { room, recover, glance } => {
                assert!(rest.starts_with(br#","subscribe":{"#), "{}", shown());
                let reply: Reply<'_> = serde_json::from_slice(line).unwrap();
                self.joined(room, recover, glance, &reply.subscribe);
            }
        }
    }

    fn joined(&mut self, room: usize, recover: bool, glance: bool, joined: &Joined<'_>) {
        let name = &self.run.rooms[room].name;
        let seat = &mut self.seats[room];
        let position = seat.position.unwrap_or(0);
        if glance && (!seat.leaving || recover && !joined.recovered) {
            return; // It was out before it was in: whatever the answer says, nothing more may come.
        }
        seat.inside = true;
        if !self.run.keeps(room) {
            return;
        }
        assert_eq!(joined.recovered, recover, "{} in {name} after {position}", self.user);
        if !recover {
            assert!(joined.publications.is_empty());
            assert!(joined.offset >= position, "{} starts in {name} before {position}", self.user);
            seat.position = Some(joined.offset);
            return;
        }
        assert_eq!(joined.offset, position, "{} in {name}", self.user);
        seat.position = Some(position + joined.publications.len() as u64);
        for (missed, expected) in joined.publications.iter().zip(position + 1..) {
            assert_eq!(missed.offset, expected, "{} recovers in {name} after {position}", self.user);
            self.heard += 1;
            self.hear(room, expected, print_of(missed.data.get().as_bytes()));
        }
        self.note_row();
    }
}

/// What follows the sender of a message, who must be the one the payload names.
fn sender_checked(rest: &[u8], writer: u64) -> Option<&[u8]> {
    if writer >= API_WRITER {
        return Some(rest);
    }
    let user = format!(r#","info":{{"user":"{}","client":""#, user_of(writer));
    let rest = rest.strip_prefix(user.as_bytes())?;
    let end = rest.iter().position(|byte| *byte == b'}')?;
    Some(&rest[end + 1..])
}
