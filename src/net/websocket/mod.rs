//! WebSocket: the frames and the clock of a connection, below its session.

mod connection;
mod input;
mod progress;
mod stream;
mod timers;

pub(super) use connection::WebSocket;

#[cfg(test)]
mod tests;
