//! WebSocket: the frames and the clock of a connection, below its session.

mod connection;
mod stream;
mod timers;

pub(super) use connection::serve;
