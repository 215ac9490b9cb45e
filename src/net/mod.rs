//! The network side: sockets, HTTP, the WebSocket protocol and its sessions.
//!
//! One thread a connection reads it; nothing here writes a WebSocket's bytes but through its outbox.
//! Every request goes to the node, which does not know this module.

mod acceptor;
mod api;
mod capacity;
mod client_rules;
mod http;
mod reader_thread;
mod session;
mod sockets;
mod websocket;

pub(crate) use acceptor::{Acceptor, SocketLimits};
pub use capacity::Capacity;
pub(crate) use http::Router;
