//! The network side: sockets, HTTP, the WebSocket protocol and its sessions.
//!
//! One thread a connection reads it; nothing here writes a WebSocket's bytes but through its outbox.
//! Holds handles of the engine and the store; neither knows this module.

mod acceptor;
mod access;
mod api;
mod capacity;
mod connection;
mod glob;
mod http;
mod origin;
mod page;
mod people;
mod reader_thread;
mod routes;
mod services;
mod session;
mod split;
mod timers;

pub use acceptor::Acceptor;
pub use capacity::Capacity;
pub use services::Services;
