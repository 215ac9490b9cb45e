//! WebSocket: the frames and the clock of a connection, below its session.

mod connection;
mod progress;
mod stream;
mod timers;

pub(super) use connection::serve;

#[cfg(test)]
mod tests;
