//! Bare chat rooms over WebSocket, the servers of the dialect `plain`: the path names the room, and what a
//! member sends goes to all members. One kind passes everything on, the other loses and repeats some.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

/// Which of a room's messages the unreliable kind passes on to nobody, which not to the first member, and
/// which twice to all.
const LOST: u64 = 15;
const WITHHELD: u64 = 17;
const REPEATED: u64 = 18;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Reliable,
    Unreliable,
}

#[derive(Default)]
struct Room {
    members: Vec<WebSocket<TcpStream>>,
    count: u64,
}

type Rooms = Mutex<HashMap<String, Room>>;

/// Starts it; it ends with the process.
pub(crate) fn start(kind: Kind) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rooms = Arc::new(Rooms::default());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let rooms = rooms.clone();
            thread::spawn(move || serve(socket.unwrap(), &rooms, kind));
        }
    });
    address
}

/// Until the client hangs up.
fn serve(socket: TcpStream, rooms: &Rooms, kind: Kind) {
    let (name, mut websocket) = join(socket, rooms);
    while let Ok(message) = websocket.read() {
        if message.is_text() {
            rooms.lock().unwrap().get_mut(&name).unwrap().pass_on(&message, kind);
        }
    }
}

/// A client that has the answer to its handshake is a member of its room, whoever publishes then.
fn join(socket: TcpStream, rooms: &Rooms) -> (String, WebSocket<TcpStream>) {
    let mut rooms = rooms.lock().unwrap();
    let writer = WebSocket::from_raw_socket(socket.try_clone().unwrap(), Role::Server, None);
    let mut name = String::new();
    #[allow(clippy::result_large_err, reason = "the signature is the library's")]
    let note_path = |request: &Request, response: Response| {
        name = request.uri().path().to_owned();
        Ok(response)
    };
    let websocket = tungstenite::accept_hdr(socket, note_path).unwrap();
    rooms.entry(name.clone()).or_default().members.push(writer);
    (name, websocket)
}

impl Room {
    fn pass_on(&mut self, message: &Message, kind: Kind) {
        self.count += 1;
        for (place, member) in self.members.iter_mut().enumerate() {
            let copies = match (kind, self.count) {
                (Kind::Unreliable, LOST) => 0,
                (Kind::Unreliable, WITHHELD) if place == 0 => 0,
                (Kind::Unreliable, REPEATED) => 2,
                _ => 1,
            };
            for _ in 0..copies {
                // One that has left gets nothing; the load generator counts what it should have had.
                let _ = member.send(message.clone());
            }
        }
    }
}
