//! Roomcast's own protocol, which is Centrifuge's in JSON: commands with ids, replies
//! with the same ids, pushes without; several lines in a frame.

use super::{Dialect, Event, Outcome, delivery, refused};
use serde_json::Value;

pub(crate) struct Roomcast;

const CONNECT: u64 = 1;
const SUBSCRIBE: u64 = 2;
/// Ids of publications count from here.
const PUBLISH: u64 = 3;

impl Dialect for Roomcast {
    fn path(&self, _: &str) -> String {
        "/connection/websocket".to_owned()
    }

    fn acks(&self) -> bool {
        true
    }

    fn opened(&self, _: &str, outcome: &mut Outcome) {
        outcome.reply(format!(r#"{{"id":{CONNECT},"connect":{{}}}}"#));
    }

    fn received(&self, room: &str, _: &mut Vec<u8>, frame: &[u8], outcome: &mut Outcome) {
        for line in frame.split(|byte| *byte == b'\n') {
            if line == b"{}" {
                outcome.reply("{}");
            } else if line.starts_with(br#"{"push":"#) {
                push(line, outcome);
            } else if !line.is_empty() {
                reply(room, line, outcome);
            }
        }
    }

    fn publish(&self, room: &str, number: u32, data: &[u8], frame: &mut Vec<u8>) {
        let id = PUBLISH + u64::from(number);
        frame.extend_from_slice(format!(r#"{{"id":{id},"publish":{{"channel":"{room}","data":"#).as_bytes());
        frame.extend_from_slice(data);
        frame.extend_from_slice(b"}}");
    }
}

/// A message, or a join, which is passed over, or the end of the subscription.
fn push(line: &[u8], outcome: &mut Outcome) {
    let before = outcome.events.len();
    delivery(line, outcome);
    let ends = |word: &[u8]| crate::websocket::find(line, word).is_some();
    if outcome.events.len() == before && (ends(br#""unsubscribe""#) || ends(br#""disconnect""#)) {
        outcome.event(refused(line));
    }
}

fn reply(room: &str, line: &[u8], outcome: &mut Outcome) {
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    match value.get("id").and_then(Value::as_u64) {
        _ if value.get("error").is_some() => outcome.event(refused(line)),
        Some(CONNECT) => {
            let subscribe = format!(r#"{{"id":{SUBSCRIBE},"subscribe":{{"channel":"{room}"}}}}"#);
            outcome.reply(subscribe);
        }
        Some(SUBSCRIBE) => outcome.event(Event::Ready),
        Some(_) => outcome.event(Event::Ack),
        None => outcome.event(refused(line)),
    }
}
