//! Those who publish: many at once in a frame, and one by one with a key over HTTP.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::ear::{connect, lines};
use super::{Known, ROOMS};
use crate::form::Random;
use crate::support::PATIENCE;

/// Most publishes of one frame.
const WINDOW_MAX: u64 = 64;

/// Publishes frames of 1 to 64 messages, each after the last was answered, until the connection ends
/// or everybody is to stop.
pub(super) fn pipeline(
    server: SocketAddr,
    round: u64,
    writer: u64,
    pad: u64,
    mut dice: Random,
    known: &Known,
) {
    let Some(mut websocket) = connect(server) else { return };
    let mut id = 1;
    while !known.stop.load(Ordering::Relaxed) {
        let window = if dice.one_in(3) { 1 } else { 1 + dice.below(WINDOW_MAX) };
        let mut open = HashMap::new();
        let mut frame = Vec::new();
        for _ in 0..window {
            id += 1;
            let room = ROOMS[dice.below(ROOMS.len() as u64) as usize];
            let text = format!("{round}-{writer}-{id} {}", "x".repeat(dice.below(pad) as usize));
            frame.push(json!({"id": id, "publish": {"channel": room, "data": text}}).to_string());
            open.insert(id, (room, text));
        }
        websocket.send_text(&frame.join("\n"));
        while !open.is_empty() {
            let Some(lines) = lines(&mut websocket) else { return };
            for line in lines.iter().filter(|line| line["id"].is_u64()) {
                let (room, text) = open.remove(&line["id"].as_u64().unwrap()).expect("one answer each");
                match &line["error"] {
                    Value::Null => known.acknowledge(room, text, None),
                    error => note_refusal(error, known),
                }
            }
        }
    }
}

fn note_refusal(error: &Value, known: &Known) {
    assert_eq!((&error["code"], &error["temporary"]), (&json!(100), &json!(true)), "{error}");
    known.refused.fetch_add(1, Ordering::Relaxed);
}

/// Publishes with a key and tries again, over all kills, until it is answered.
#[derive(Default)]
pub(super) struct Keyed {
    /// What was sent and not acknowledged.
    open: Option<(usize, String)>,
    count: usize,
}

impl Keyed {
    pub(super) fn write(&mut self, server: SocketAddr, round: u64, known: &Known) {
        while !known.stop.load(Ordering::Relaxed) {
            let (number, text) = self.open.take().unwrap_or_else(|| {
                self.count += 1;
                (self.count, format!("{round}-key-{}", self.count))
            });
            let room = ROOMS[number % ROOMS.len()];
            let body = json!({"channel": room, "data": text, "idempotency_key": format!("key-{number}")});
            let answer = post(server, &body.to_string());
            match answer.as_ref().map(|answer| &answer["result"]["offset"]) {
                Some(Value::Number(offset)) => known.acknowledge(room, text, offset.as_u64()),
                refused => {
                    self.open = Some((number, text));
                    if refused.is_none() {
                        return; // The server is gone; the next round tries again.
                    }
                    assert_eq!(answer.unwrap()["error"]["code"], 100);
                    known.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The answer of `publish`; `None` when the server went away.
fn post(server: SocketAddr, body: &str) -> Option<Value> {
    let mut socket = TcpStream::connect(server).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(body).ok()
}
