//! A listener that comes back after every cut and goes on where it was.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::Known;
use crate::support::PATIENCE;

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

/// See the module.
pub(super) struct Ear {
    pub(super) room: String,
    /// The text of message n at place n − 1.
    pub(super) heard: Vec<String>,
    epoch: String,
}

impl Ear {
    pub(super) fn new(room: &str) -> Self {
        Self { room: room.to_owned(), heard: Vec::new(), epoch: String::new() }
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
    fn resume(&mut self, server: SocketAddr, known: &Known) -> Option<WebSocket<TcpStream>> {
        let mut websocket = connect(server)?;
        OPEN.lock().unwrap().push((server, websocket.get_ref().try_clone().ok()?));
        let position = self.heard.len();
        let subscribe = json!({"id": 2, "subscribe": {
            "channel": self.room, "recover": true, "offset": position, "epoch": self.epoch}});
        websocket.send(Message::text(subscribe.to_string())).ok()?;
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
pub(super) fn connect(server: SocketAddr) -> Option<WebSocket<TcpStream>> {
    let socket = TcpStream::connect(server).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let url = format!("ws://{server}/connection/websocket");
    let (mut websocket, _) = tungstenite::client(url, socket).ok()?;
    websocket.send(Message::text(r#"{"id":1,"connect":{"data":{"user":"ann"}}}"#)).ok()?;
    websocket.read().ok()?;
    Some(websocket)
}

/// The lines of the next frame, pings answered; `None` when the connection has ended.
pub(super) fn lines(websocket: &mut WebSocket<TcpStream>) -> Option<Vec<Value>> {
    let message = match websocket.read() {
        Ok(message) => message,
        Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the server is silent, without even a ping");
        }
        Err(_) => return None,
    };
    let text = message.to_text().ok()?;
    if text == "{}" {
        websocket.send(Message::text("{}")).ok()?;
    }
    Some(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}
