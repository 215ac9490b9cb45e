//! The rooms: who is in them and how a message gets from one socket to the others.

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::any;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc};

/// Messages a slow listener may be behind in a room before it loses some, which is
/// far more than the benchmark ever has in flight.
const ROOM_CAPACITY: usize = 4096;

/// How a message is passed to the listeners of its room.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Passing {
    /// One ring for each room, from which every listener's task takes its copy.
    Broadcast,
    /// One queue for each listener, which the sender's task fills.
    Mpsc,
}

type Queue = mpsc::UnboundedSender<Utf8Bytes>;

struct Room {
    ring: broadcast::Sender<Utf8Bytes>,
    queues: Mutex<HashMap<u64, Queue>>,
}

/// All rooms; they come into being with their first listener and stay.
#[derive(Clone)]
pub(crate) struct Chat {
    passing: Passing,
    rooms: Arc<Mutex<HashMap<String, Arc<Room>>>>,
    next_listener: Arc<std::sync::atomic::AtomicU64>,
}

pub(crate) fn router(chat: Chat) -> Router {
    Router::new().route("/room/{name}", any(upgrade)).with_state(chat)
}

async fn upgrade(ws: WebSocketUpgrade, Path(name): Path<String>, State(chat): State<Chat>) -> Response {
    // The read buffer is there from the start, 128 KiB by default, which is for large
    // messages; a chat that cares for its memory asks for less.
    ws.read_buffer_size(4096).on_upgrade(move |socket| chat.serve(socket, name))
}

impl Chat {
    pub(crate) fn new(passing: Passing) -> Self {
        Self { passing, rooms: Arc::default(), next_listener: Arc::default() }
    }

    fn room(&self, name: String) -> Arc<Room> {
        let room = || Room { ring: broadcast::channel(ROOM_CAPACITY).0, queues: Mutex::default() };
        locked(&self.rooms).entry(name).or_insert_with(|| Arc::new(room())).clone()
    }

    async fn serve(self, socket: WebSocket, name: String) {
        let room = self.room(name);
        let (sink, stream) = socket.split();
        match self.passing {
            Passing::Broadcast => {
                let writer = tokio::spawn(copy_ring(room.ring.subscribe(), sink));
                read(stream, |text| drop(room.ring.send(text))).await;
                writer.abort();
            }
            Passing::Mpsc => {
                let id = self.next_listener.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (queue, messages) = mpsc::unbounded_channel();
                locked(&room.queues).insert(id, queue);
                let writer = tokio::spawn(copy_queue(messages, sink));
                read(stream, |text| room.fill(&text)).await;
                locked(&room.queues).remove(&id);
                writer.abort();
            }
        }
    }
}

impl Room {
    fn fill(&self, text: &Utf8Bytes) {
        for queue in locked(&self.queues).values() {
            // A listener whose task has ended is removed by its reader.
            drop(queue.send(text.clone()));
        }
    }
}

async fn read(mut stream: SplitStream<WebSocket>, pass: impl Fn(Utf8Bytes)) {
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Text(text) = message {
            pass(text);
        }
    }
}

async fn copy_ring(mut ring: broadcast::Receiver<Utf8Bytes>, mut sink: SplitSink<WebSocket, Message>) {
    loop {
        let text = match ring.recv().await {
            Ok(text) => text,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if !write(&mut sink, text, || ring.try_recv().ok()).await {
            return;
        }
    }
}

async fn copy_queue(
    mut messages: mpsc::UnboundedReceiver<Utf8Bytes>,
    mut sink: SplitSink<WebSocket, Message>,
) {
    while let Some(text) = messages.recv().await {
        if !write(&mut sink, text, || messages.try_recv().ok()).await {
            return;
        }
    }
}

/// Writes a message, and in the same system call those that have gathered meanwhile.
async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    first: Utf8Bytes,
    mut next: impl FnMut() -> Option<Utf8Bytes>,
) -> bool {
    let mut text = Some(first);
    while let Some(message) = text {
        if sink.feed(Message::Text(message)).await.is_err() {
            return false;
        }
        text = next();
    }
    sink.flush().await.is_ok()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
