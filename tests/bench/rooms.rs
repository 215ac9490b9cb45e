//! What the servers of other dialects than our own have in common here: real WebSockets, and rooms whose
//! members get what is sent to them.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

#[derive(Default)]
struct Rooms {
    /// The writing side of every connection. All writing is done under the lock, so that frames stay whole.
    writers: Vec<WebSocket<TcpStream>>,
    by_name: HashMap<String, Room>,
}

#[derive(Default)]
struct Room {
    /// Indices of `writers`.
    members: Vec<usize>,
    /// Messages that were sent to it.
    count: u64,
}

/// A connection as its server sees it.
pub(crate) struct Client {
    /// Path and query of the handshake.
    pub(crate) path: String,
    reader: WebSocket<TcpStream>,
    index: usize,
    rooms: Arc<Mutex<Rooms>>,
}

/// Starts a server that treats each connection, in a thread of its own, with `serve`; it ends with the process.
pub(crate) fn start(serve: impl Fn(Client) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rooms = Arc::<Mutex<Rooms>>::default();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let rooms = rooms.clone();
            thread::spawn(move || serve(Client::accept(socket.unwrap(), rooms)));
        }
    });
    address
}

impl Client {
    /// A client that has the answer to its handshake is a member of the room its path names, whoever publishes
    /// then.
    fn accept(socket: TcpStream, rooms: Arc<Mutex<Rooms>>) -> Self {
        let mut locked = rooms.lock().unwrap();
        let writer = WebSocket::from_raw_socket(socket.try_clone().unwrap(), Role::Server, None);
        let mut path = String::new();
        #[allow(clippy::result_large_err, reason = "the signature is the library's")]
        let note_path = |request: &Request, response: Response| {
            path = request.uri().to_string();
            Ok(response)
        };
        let reader = tungstenite::accept_hdr(socket, note_path).unwrap();
        let index = locked.writers.len();
        locked.writers.push(writer);
        locked.join(&path, index);
        drop(locked);
        Self { path, reader, index, rooms }
    }

    /// The next message with data; `None` once the client has hung up.
    pub(crate) fn read(&mut self) -> Option<Message> {
        loop {
            let message = self.reader.read().ok()?;
            if message.is_text() || message.is_binary() {
                return Some(message);
            }
        }
    }

    pub(crate) fn join(&self, room: &str) {
        self.rooms.lock().unwrap().join(room, self.index);
    }

    /// Sends to this client alone.
    pub(crate) fn send(&self, message: Message) {
        self.rooms.lock().unwrap().send(self.index, message);
    }

    /// Sends to all members of a room, without another message in between.
    pub(crate) fn publish(&self, room: &str, messages: &[Message]) {
        self.publish_copies(room, messages, |_, _| 1);
    }

    /// The same as many times as `copies` says of the room's message, counted from 1, and the member,
    /// counted from 0.
    pub(crate) fn publish_copies(
        &self,
        room: &str,
        messages: &[Message],
        copies: impl Fn(u64, usize) -> usize,
    ) {
        let mut rooms = self.rooms.lock().unwrap();
        let Some(room) = rooms.by_name.get_mut(room) else { return };
        room.count += 1;
        let (count, members) = (room.count, room.members.clone());
        for (number, member) in members.into_iter().enumerate() {
            for message in (0..copies(count, number)).flat_map(|_| messages) {
                rooms.send(member, message.clone());
            }
        }
    }
}

impl Rooms {
    fn join(&mut self, room: &str, index: usize) {
        self.by_name.entry(room.to_owned()).or_default().members.push(index);
    }

    fn send(&mut self, index: usize, message: Message) {
        // One that has left gets nothing; the load generator counts what it should have had.
        let _ = self.writers[index].send(message);
    }
}
