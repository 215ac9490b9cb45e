//! The network side: sockets, HTTP, the WebSocket protocol and its sessions.
//!
//! A connection is a value that a pool of reader threads serves in turns; nothing here writes a WebSocket's
//! bytes but through its outbox. Every request goes to the node, which does not know this module.

mod acceptor;
mod api;
mod bucket;
mod capacity;
mod client_rules;
mod connection;
mod ending;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz {
    //! Targets of fuzzers.
    pub use super::http::fuzz::head;
    pub use super::websocket::fuzz::frames;
}
mod http;
mod peers;
mod queries;
mod rates;
mod readers;
mod session;
mod sockets;
mod websocket;

pub(crate) use acceptor::Acceptor;
pub use capacity::Capacity;
pub(crate) use http::Router;

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests;
