//! A listener that comes back after every cut and goes on where it was.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Known;
use crate::support::frames::CLOSE;
use crate::support::websocket::WebSocket;

/// Sockets of listeners, to hang up from our side; by the address of their server.
static OPEN: Mutex<Vec<(SocketAddr, TcpStream)>> = Mutex::new(Vec::new());

/// Ends the rounds of all listeners of a server, once they have heard what was sent to them.
pub(super) fn hang_up(server: SocketAddr) {
    let mut open = OPEN.lock().unwrap();
    open.retain(|(address, socket)| {
        let ours = *address == server;
        if ours {
            let _ = socket.shutdown(Shutdown::Both);
        }
        !ours
    });
}

/// A listener of one room, and all it has heard.
pub(super) struct Ear {
    pub(super) room: String,
    /// The text of message n at place n − 1.
    pub(super) heard: Vec<String>,
    /// How many of them were compared with the database already.
    pub(super) compared: usize,
    epoch: String,
}

impl Ear {
    pub(super) fn new(room: &str) -> Self {
        Self { room: room.to_owned(), heard: Vec::new(), compared: 0, epoch: String::new() }
    }

    /// Resumes and listens until the connection ends.
    pub(super) fn listen(&mut self, server: SocketAddr, known: &Known) {
        let Some(mut websocket) = self.resume(server, known) else { return };
        while let Some(lines) = lines(&mut websocket) {
            lines.iter().for_each(|line| self.note(line, known));
        }
    }

    /// Resumes and listens until message `head` was heard.
    pub(super) fn hear_until(&mut self, server: SocketAddr, head: u64, known: &Known) {
        let mut websocket = self.resume(server, known).expect("a healthy server");
        while (self.heard.len() as u64) < head {
            let lines = lines(&mut websocket).expect("the rest of the room");
            lines.iter().for_each(|line| self.note(line, known));
        }
        assert_eq!(self.heard.len() as u64, head, "more than there is in {}", self.room);
    }

    /// `None` when the server goes away meanwhile.
    fn resume(&mut self, server: SocketAddr, known: &Known) -> Option<WebSocket> {
        let mut websocket = connect(server)?;
        OPEN.lock().unwrap().push((server, websocket.socket.try_clone().ok()?));
        let position = self.heard.len();
        let subscribe = json!({"id": 2, "subscribe": {
            "channel": self.room, "recover": true, "offset": position, "epoch": self.epoch}});
        websocket.send_text(&subscribe.to_string());
        loop {
            let mut subscribed = false;
            for line in lines(&mut websocket)? {
                if line["id"] == 2 {
                    let result = &line["subscribe"];
                    assert_eq!(result["recovered"], true, "everything is kept: {line}");
                    self.epoch = result["epoch"].as_str().unwrap().to_owned();
                    for publication in result["publications"].as_array().into_iter().flatten() {
                        self.hear(publication, known);
                    }
                    subscribed = true;
                } else {
                    self.note(&line, known);
                }
            }
            if subscribed {
                return Some(websocket);
            }
        }
    }

    fn note(&mut self, line: &Value, known: &Known) {
        let publication = &line["push"]["pub"];
        if publication.is_object() {
            assert_eq!(line["push"]["channel"], *self.room);
            self.hear(publication, known);
        }
        assert!(line["push"]["unsubscribe"].is_null(), "a listener was given up: {line}");
    }

    fn hear(&mut self, publication: &Value, known: &Known) {
        let next = self.heard.len() as u64 + 1;
        assert_eq!(
            publication["offset"].as_u64(),
            Some(next),
            "lost, repeated or reordered in {}",
            self.room
        );
        self.heard.push(publication["data"].as_str().unwrap().to_owned());
        known.seen.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client that completed `connect`; `None` when the server goes away meanwhile.
pub(super) fn connect(server: SocketAddr) -> Option<WebSocket> {
    let mut websocket = WebSocket::reach(server)?;
    websocket.send_text(r#"{"id":1,"connect":{"data":{"user":"ann"}}}"#);
    lines(&mut websocket)?;
    Some(websocket)
}

/// The lines of the next frame, pings answered; `None` when the connection has ended.
pub(super) fn lines(websocket: &mut WebSocket) -> Option<Vec<Value>> {
    let frame = websocket.read().filter(|frame| frame.opcode != CLOSE)?;
    let text = std::str::from_utf8(&frame.payload).unwrap();
    if text == "{}" {
        websocket.send_text("{}");
    }
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}
