//! As much of NATS over WebSocket as its dialect uses: INFO, CONNECT, SUB, PUB, MSG, PING and PONG, as a
//! stream of bytes that frames cut anywhere. Like the real one it ends a connection with an `-ERR`.

use std::net::SocketAddr;

use tungstenite::Message;

use crate::rooms::{self, Client};

const INFO: &str =
    "INFO {\"server_id\":\"test\",\"version\":\"2.10.0\",\"proto\":1,\"max_payload\":1048576}\r\n";

/// What a client has done so far; each step is refused without those before it.
#[derive(Default)]
struct Session {
    has_connected: bool,
    /// It was pinged when it subscribed, and answered.
    has_answered: bool,
}

/// Starts it; it ends with the process.
pub(crate) fn start() -> SocketAddr {
    rooms::start(serve)
}

/// Until the client hangs up or says what it must not.
fn serve(mut client: Client) {
    client.send(Message::binary(INFO));
    let (mut session, mut input) = (Session::default(), Vec::new());
    while let Some(message) = client.read() {
        input.extend_from_slice(&message.into_data());
        loop {
            match session.handle_first(&client, &input) {
                Ok(Some(length)) => drop(input.drain(..length)),
                Ok(None) => break,
                Err(what) => return client.send(Message::binary(format!("-ERR '{what}'\r\n"))),
            }
        }
    }
}

impl Session {
    /// Handles the first operation of `input`; returns its length, or `None` until it is there to its end.
    fn handle_first(&mut self, client: &Client, input: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = input.windows(2).position(|bytes| bytes == b"\r\n") else { return Ok(None) };
        let line = str::from_utf8(&input[..end]).unwrap();
        let mut length = end + 2;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["CONNECT", options] if serde_json::from_str::<serde_json::Value>(options).is_ok() => {
                self.has_connected = true;
            }
            ["SUB", subject, "1"] if self.has_connected => {
                client.join(subject);
                client.send(Message::binary("PING\r\n"));
            }
            ["PING"] => client.send(Message::binary("PONG\r\n")),
            ["PONG"] => self.has_answered = true,
            ["PUB", subject, size] if self.has_answered => {
                let size = size.parse::<usize>().map_err(|_| line.to_owned())?;
                let Some(rest) = input.get(length..length + size + 2) else { return Ok(None) };
                let payload = rest.strip_suffix(b"\r\n").ok_or(line)?;
                publish(client, subject, payload);
                length += rest.len();
            }
            _ => return Err(format!("Unknown Protocol Operation: {line}")),
        }
        Ok(Some(length))
    }
}

/// Every message comes in two frames.
fn publish(client: &Client, subject: &str, payload: &[u8]) {
    let head = format!("MSG {subject} 1 {}\r\n", payload.len());
    let message = [head.as_bytes(), payload, b"\r\n"].concat();
    let (begin, end) = message.split_at(message.len() / 2);
    client.publish(subject, &[Message::binary(begin.to_vec()), Message::binary(end.to_vec())]);
}
