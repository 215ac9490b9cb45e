//! Writers: bursts and single messages over WebSocket, broadcasts over the HTTP API. Each remembers
//! what it sent where, in order.

use std::collections::HashMap;
use std::time::Instant;

use super::journal::{Sent, digits, payload, print};
use super::wire::Wire;
use super::{Kind, Run};
use crate::form::Random;
use crate::support::PATIENCE;
use crate::support::http::HttpConnection;

/// Writers from this number on use the HTTP API, whose messages name no sender.
pub const API_WRITER: u64 = 100;

/// How many messages a room may be ahead of its witness before its writers wait.
const LEAD_MAX: u64 = 1500;

/// The user id of a writer.
pub fn user_of(writer: u64) -> String {
    format!("writer{writer}")
}

/// A writer over WebSocket.
pub struct Writer<'a> {
    run: &'a Run,
    wire: Wire<'a>,
    number: u64,
    counters: HashMap<usize, u64>,
    pub sent: Sent,
    /// Commands that were sent and not acknowledged, in order: their id and room.
    pending: HashMap<u64, usize>,
    last_id: u64,
    frame: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(run: &'a Run, number: u64) -> Self {
        Self {
            run,
            wire: Wire::open(run.address, &user_of(number), &run.alarm),
            number,
            counters: HashMap::new(),
            sent: Sent::new(),
            pending: HashMap::new(),
            last_id: 1,
            frame: Vec::new(),
        }
    }

    /// Writes at random until the attack is over; what it sent.
    pub fn write_at_random(mut self, mut random: Random) -> Sent {
        while !self.run.is_over() {
            let room = self.run.draw_room(&mut random);
            if random.one_in(3) {
                self.publish_at(room);
            } else {
                let count = if random.one_in(2) { 1 } else { 1 + random.below(60) };
                let rooms: Vec<_> = match random.one_in(3) {
                    true => (0..count).map(|_| self.run.draw_room(&mut random)).collect(),
                    false => vec![room; count as usize],
                };
                self.publish(&rooms);
                self.await_acks();
            }
            self.run.hold_back(room);
        }
        self.sent
    }

    /// Publishes a message in each of the rooms, in one frame, and does not wait.
    pub fn publish(&mut self, rooms: &[usize]) {
        let commands: Vec<_> = rooms
            .iter()
            .map(|&room| {
                let data = self.next_payload(room);
                self.last_id += 1;
                self.pending.insert(self.last_id, room);
                let channel = &self.run.rooms[room].name;
                format!(r#"{{"id":{},"publish":{{"channel":"{channel}","data":{data}}}}}"#, self.last_id)
            })
            .collect();
        self.wire.send(&commands.join("\n"));
    }

    /// Waits until all that was published is acknowledged.
    #[track_caller]
    pub fn await_acks(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.pending.is_empty() {
            assert!(Instant::now() < deadline, "publishes are not acknowledged");
            let frame = self.next_frame();
            for line in frame.split(|byte| *byte == b'\n') {
                let shown = || String::from_utf8_lossy(line).into_owned();
                let (id, rest) =
                    digits(line.strip_prefix(br#"{"id":"#).unwrap_or_else(|| panic!("{}", shown())));
                assert_eq!(rest, br#","publish":{}}"#, "{}", shown());
                let room = self.pending.remove(&id).unwrap_or_else(|| panic!("nobody asked for {}", shown()));
                self.run.acknowledged(room);
            }
            self.frame = frame;
        }
    }

    /// Publishes one message by rpc, which tells its offset; 0 in a room that keeps nothing.
    #[track_caller]
    pub fn publish_at(&mut self, room: usize) -> u64 {
        let data = self.next_payload(room);
        self.last_id += 1;
        let channel = &self.run.rooms[room].name;
        self.wire.send(&format!(
            r#"{{"id":{},"rpc":{{"method":"publish","data":{{"channel":"{channel}","data":{data}}}}}}}"#,
            self.last_id
        ));
        let frame = self.next_frame();
        let start = format!(r#"{{"id":{},"rpc":{{"data":{{"#, self.last_id);
        let rest = frame.strip_prefix(start.as_bytes());
        let rest = rest.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&frame)));
        let offset = rest.strip_prefix(br#""offset":"#).map_or(0, |rest| digits(rest).0);
        assert_eq!(offset > 0, self.run.keeps(room), "{}", String::from_utf8_lossy(&frame));
        if offset > 0 {
            self.run.rooms[room].note(offset, &[print(self.number, self.counters[&room])]);
        }
        self.run.acknowledged(room);
        self.frame = frame;
        offset
    }

    fn next_payload(&mut self, room: usize) -> String {
        let number = self.counters.entry(room).and_modify(|number| *number += 1).or_insert(1);
        self.sent.entry((room, self.number)).or_default().push(*number);
        payload(self.number, *number)
    }

    #[track_caller]
    fn next_frame(&mut self) -> Vec<u8> {
        let mut frame = std::mem::take(&mut self.frame);
        self.wire.expect_frame(&mut frame);
        frame
    }
}

/// A backend that broadcasts over the HTTP API until the attack is over; what it sent.
pub fn broadcast_at_random(run: &Run, number: u64, mut random: Random) -> Sent {
    let mut http = HttpConnection::open(run.address);
    let mut sent = Sent::new();
    let mut count = 0;
    while !run.is_over() {
        let mut rooms: Vec<_> = (0..1 + random.below(6)).map(|_| run.draw_room(&mut random)).collect();
        rooms.sort_unstable();
        rooms.dedup();
        count += 1;
        for (room, offset) in rooms.iter().zip(broadcast(run, &mut http, &rooms, &payload(number, count))) {
            sent.entry((*room, number)).or_default().push(count);
            if offset > 0 {
                run.rooms[*room].note(offset, &[print(number, count)]);
            }
            run.acknowledged(*room);
        }
        rooms.iter().for_each(|room| run.hold_back(*room));
    }
    sent
}

/// One broadcast; the offsets it got, 0 in rooms that keep nothing.
fn broadcast(run: &Run, http: &mut HttpConnection, rooms: &[usize], data: &str) -> Vec<u64> {
    let names: Vec<_> = rooms.iter().map(|room| format!("\"{}\"", run.rooms[*room].name)).collect();
    let body = format!(r#"{{"channels":[{}],"data":{data}}}"#, names.join(","));
    http.send(&format!(
        "POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = http.read(true);
    assert!(answer.status == 200 && !answer.body.contains("error"), "{}", answer.body);
    let answer: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let responses = answer["result"]["responses"].as_array().unwrap();
    assert_eq!(responses.len(), rooms.len());
    let offsets = responses.iter().map(|response| response["result"]["offset"].as_u64().unwrap_or(0));
    offsets
        .zip(rooms)
        .map(|(offset, room)| (offset, run.keeps(*room)))
        .inspect(|(offset, keeps)| assert_eq!(*offset > 0, *keeps))
        .map(|(offset, _)| offset)
        .collect()
}

impl Run {
    /// A room to write to: the busy ones often, the shy ones seldom.
    pub fn draw_room(&self, random: &mut Random) -> usize {
        let kind = match random.below(100) {
            0..30 => Kind::Big,
            30..60 => Kind::Medium,
            60..85 => Kind::Small,
            85..95 => Kind::Shy,
            _ => Kind::Passing,
        };
        self.one_of(kind, random)
    }

    fn acknowledged(&self, room: usize) {
        self.rooms[room].acked.add(1);
        self.published.add(1);
    }

    /// Waits until the witness of a room is not far behind.
    fn hold_back(&self, room: usize) {
        if self.has_witness(room) {
            let room = &self.rooms[room];
            let needed = room.acked.get().saturating_sub(LEAD_MAX);
            room.witnessed.wait(needed, || self.is_over());
        }
    }
}
