//! As much of Socket.IO 4 as its dialect uses: the WebSocket transport of Engine.IO with its pings, and the
//! events of `benches/peers/node/socketio.mjs`, `join` and `m`, with acknowledgements.

use std::net::SocketAddr;

use serde_json::value::RawValue;
use tungstenite::Message;

use crate::rooms::{self, Client};

const PATH: &str = "/socket.io/?EIO=4&transport=websocket";
const OPEN: &str =
    r#"0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;

/// What a client has done so far; each step is refused without those before it.
#[derive(Default)]
struct Session {
    has_connected: bool,
    /// It was pinged when it joined, and answered.
    has_answered: bool,
}

/// Starts it; it ends with the process.
pub(crate) fn start() -> SocketAddr {
    rooms::start(serve)
}

/// Until the client hangs up or says what it must not.
fn serve(mut client: Client) {
    if client.path != PATH {
        return client.send(Message::Close(None));
    }
    client.send(Message::text(OPEN));
    let mut session = Session::default();
    while let Some(message) = client.read() {
        if !message.is_text() || session.handle(&client, message.to_text().unwrap()).is_none() {
            return client.send(Message::text("41"));
        }
    }
}

impl Session {
    /// `None` for a packet that is wrong or comes at the wrong time.
    fn handle(&mut self, client: &Client, packet: &str) -> Option<()> {
        match packet {
            "40" => {
                self.has_connected = true;
                client.send(Message::text(r#"40{"sid":"b"}"#));
            }
            "3" => self.has_answered = true,
            _ if self.has_connected => {
                let event = packet.strip_prefix("42")?;
                let (id, arguments) = event.split_at(event.find('[')?);
                id.parse::<u64>().ok()?;
                self.handle_event(client, arguments)?;
                client.send(Message::text(format!("43{id}[]")));
            }
            _ => return None,
        }
        Some(())
    }

    /// What `io.on('connection')` of the benchmark does.
    fn handle_event(&self, client: &Client, arguments: &str) -> Option<()> {
        if let Ok(("join", room)) = serde_json::from_str(arguments) {
            client.join(room);
            client.send(Message::text("2"));
            return Some(());
        }
        let (name, room, data): (&str, &str, &RawValue) = serde_json::from_str(arguments).ok()?;
        if name != "m" || !self.has_answered {
            return None;
        }
        client.publish(room, &[Message::text(format!(r#"42["m",{data}]"#))]);
        Some(())
    }
}
