//! A server that loses a message, repeats one, swaps two and leaves one without an answer, to see whether
//! the load generator notices. What is allowed it does in its own way: it writes JSON in another order, sends
//! a message in two frames, and wants pongs.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Bytes, Message, WebSocket};

/// The offset that is not sent, the one that is sent twice, and the one that is sent behind the next.
const LOST: u64 = 15;
const REPEATED: u64 = 18;
const SWAPPED: u64 = 21;
/// The message that is delivered but not acknowledged.
pub(crate) const UNANSWERED: u64 = 25;

/// The only room there is.
#[derive(Default)]
struct Room {
    listeners: Vec<WebSocket<TcpStream>>,
    head: u64,
    held_back: Option<String>,
    pongs: u64,
}

/// The server, and the room it has.
pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    room: Arc<Mutex<Room>>,
}

/// Starts it; it ends with the process.
pub(crate) fn start() -> Liar {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let room = Arc::new(Mutex::new(Room::default()));
    let liar = Liar { address, room: room.clone() };
    thread::spawn(move || {
        for socket in listener.incoming() {
            let room = room.clone();
            thread::spawn(move || serve(socket.unwrap(), &room));
        }
    });
    liar
}

impl Liar {
    /// Answers to its pings.
    pub(crate) fn pongs(&self) -> u64 {
        self.room.lock().unwrap().pongs
    }
}

/// Until the client hangs up.
fn serve(socket: TcpStream, room: &Mutex<Room>) {
    let writer = socket.try_clone().unwrap();
    let mut websocket = tungstenite::accept(socket).unwrap();
    let mut writer = Some(writer);
    while let Ok(message) = websocket.read() {
        room.lock().unwrap().pongs += u64::from(message.is_pong());
        for line in message.to_text().unwrap_or_default().lines() {
            let command: Value = serde_json::from_str(line).unwrap();
            let reply = if command["connect"].is_object() {
                json!({"id": command["id"], "connect": {"client": "c", "version": "0"}})
            } else if command["subscribe"].is_object() {
                json!({"id": command["id"], "subscribe": {"positioned": true, "recoverable": true, "epoch": "e"}})
            } else {
                if room.lock().unwrap().publish(&command["publish"]["data"]) == UNANSWERED {
                    continue;
                }
                json!({"id": command["id"], "publish": {}})
            };
            websocket.send(Message::text(reply.to_string())).unwrap();
            if command["subscribe"].is_object() {
                let listener = WebSocket::from_raw_socket(writer.take().unwrap(), Role::Server, None);
                room.lock().unwrap().listeners.push(listener);
            }
        }
    }
}

impl Room {
    /// Returns the offset.
    fn publish(&mut self, data: &Value) -> u64 {
        self.head += 1;
        let push = json!({"push": {"channel": "r", "pub": {"data": data, "offset": self.head}}}).to_string();
        match self.head {
            LOST => {}
            SWAPPED => self.held_back = Some(push),
            REPEATED => self.send(&[&push, &push]),
            _ => match self.held_back.take() {
                Some(before) => self.send(&[&push, &before]),
                None => self.send(&[&push]),
            },
        }
        self.head
    }

    fn send(&mut self, pushes: &[&str]) {
        for listener in &mut self.listeners {
            for push in pushes {
                let (begin, end) = push.split_at(push.len() / 2);
                let begin = Frame::message(begin.to_owned(), OpCode::Data(Data::Text), false);
                let end = Frame::message(end.to_owned(), OpCode::Data(Data::Continue), true);
                for message in [Message::Ping(Bytes::new()), Message::Frame(begin), Message::Frame(end)] {
                    listener.send(message).unwrap();
                }
            }
        }
    }
}
