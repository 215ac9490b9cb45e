//! The process is killed under load again and again. What was acknowledged, and what anybody saw,
//! is in the database, under the same number, once; and numbers are dense.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value;
use tungstenite::{Message, WebSocket};

use crate::support::server::TestServer;
use crate::support::{PATIENCE, eventually};

const ROOMS: [&str; 3] = ["red", "green", "blue"];
const WRITERS: u64 = 4;
const KILLS: u64 = 5;
/// Publishes a writer sends at once.
const WINDOW: u64 = 16;

/// What the outside world knows: texts that were acknowledged, and who saw what under which number.
#[derive(Default)]
struct Known {
    acknowledged: Mutex<Vec<(String, String)>>,
    seen: Mutex<Vec<(String, u64, String)>>,
    count: AtomicU64,
}

on_both_databases! {
    what_was_acknowledged_or_seen_survives(server) {
        let known = Known::default();
        for round in 0..KILLS {
            let enough = known.count.load(Ordering::Relaxed) + 100 + 150 * round;
            thread::scope(|scope| {
                let (known, address) = (&known, server.address);
                let listener = listen(address);
                scope.spawn(move || note_pushes(listener, known));
                for writer in 0..WRITERS {
                    scope.spawn(move || write_until_killed(address, round, writer, known));
                }
                eventually("enough is acknowledged", || known.count.load(Ordering::Relaxed) >= enough);
                server.kill9();
            });
            server.run();
            check(&server, &known);
        }
        assert!(!known.seen.lock().unwrap().is_empty());
    }
}

/// A connected client; `None` when the server was killed meanwhile.
fn connect(address: std::net::SocketAddr, name: &str) -> Option<WebSocket<TcpStream>> {
    let socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let url = format!("ws://{address}/connection/websocket");
    let (mut websocket, _) = tungstenite::client(url, socket).ok()?;
    let connect = format!(r#"{{"id":1,"connect":{{"data":{{"user":"{name}"}}}}}}"#);
    websocket.send(Message::text(connect)).ok()?;
    websocket.read().ok()?;
    Some(websocket)
}

fn listen(address: std::net::SocketAddr) -> WebSocket<TcpStream> {
    let mut websocket = connect(address, "listener").expect("a running server");
    for (number, room) in ROOMS.iter().enumerate() {
        let subscribe = format!(r#"{{"id":{},"subscribe":{{"channel":"{room}"}}}}"#, number + 2);
        websocket.send(Message::text(subscribe)).unwrap();
    }
    websocket
}

/// The lines of the next frame; `None` when the server is gone.
fn lines(websocket: &mut WebSocket<TcpStream>) -> Option<Vec<Value>> {
    let message = websocket.read().ok()?;
    let text = message.to_text().ok()?.to_owned();
    Some(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn note_pushes(mut websocket: WebSocket<TcpStream>, known: &Known) {
    while let Some(lines) = lines(&mut websocket) {
        for line in lines {
            let push = &line["push"];
            if let (Some(room), Some(seq)) = (push["channel"].as_str(), push["pub"]["offset"].as_u64()) {
                let text = push["pub"]["data"].as_str().unwrap().to_owned();
                known.seen.lock().unwrap().push((room.to_owned(), seq, text));
            }
        }
    }
}

fn write_until_killed(address: std::net::SocketAddr, round: u64, writer: u64, known: &Known) {
    let Some(mut websocket) = connect(address, "writer") else { return };
    let mut sent: HashMap<u64, (String, String)> = HashMap::new();
    for first in (2..).step_by(WINDOW as usize) {
        let mut frame = Vec::new();
        for id in first..first + WINDOW {
            let room = ROOMS[(id % 3) as usize];
            let text = format!("{round}-{writer}-{id}");
            frame.push(format!(r#"{{"id":{id},"publish":{{"channel":"{room}","data":"{text}"}}}}"#));
            sent.insert(id, (room.to_owned(), text));
        }
        if websocket.send(Message::text(frame.join("\n"))).is_err() {
            return;
        }
        let mut open = WINDOW;
        while open > 0 {
            let Some(lines) = lines(&mut websocket) else { return };
            for line in lines.iter().filter(|line| line["id"].is_u64()) {
                assert!(line["publish"].is_object(), "{line}");
                open -= 1;
                let message = sent.remove(&line["id"].as_u64().unwrap()).unwrap();
                known.acknowledged.lock().unwrap().push(message);
                known.count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Compares what is known with what is stored.
fn check(server: &TestServer, known: &Known) {
    let mut stored: HashMap<(String, String), u64> = HashMap::new();
    for room in ROOMS {
        for (seq, text) in history(server, room) {
            let twice = stored.insert((room.to_owned(), text.clone()), seq);
            assert_eq!(twice, None, "{text} is stored twice");
        }
    }
    for message in known.acknowledged.lock().unwrap().iter() {
        assert!(stored.contains_key(message), "{message:?} was acknowledged and is lost");
    }
    for (room, seq, text) in known.seen.lock().unwrap().iter() {
        let place = stored.get(&(room.clone(), text.clone()));
        assert_eq!(place, Some(seq), "{text} was seen in {room}");
    }
}

/// Everything a room holds; its numbers must be 1, 2, 3 ….
fn history(server: &TestServer, room: &str) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    loop {
        let since = all.len();
        let params = format!(r#"{{"channel":"{room}","limit":-1,"since":{{"offset":{since}}}}}"#);
        let answer: Value = serde_json::from_str(&server.api("history", &params)).unwrap();
        let page = answer["result"]["publications"].as_array().unwrap().clone();
        if page.is_empty() {
            assert_eq!(answer["result"]["offset"].as_u64(), Some(since as u64), "the head of {room}");
            return all;
        }
        for publication in page {
            let seq = publication["offset"].as_u64().unwrap();
            assert_eq!(seq, all.len() as u64 + 1, "a hole in {room}");
            all.push((seq, publication["data"].as_str().unwrap().to_owned()));
        }
    }
}
