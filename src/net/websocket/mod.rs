//! WebSocket: the frames and the clock of a connection, below its session.

mod connection;
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::net) mod fuzz;
mod input;
mod progress;
mod stream;
mod timers;

pub(super) use connection::WebSocket;

#[cfg(test)]
mod tests;
