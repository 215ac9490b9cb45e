//! Roomcast: a chat-room broadcast server and library.

pub mod auth;
pub mod bench;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod ids;
pub mod json;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod node;
pub mod outbox;
pub mod protocol;
pub mod publication;
pub mod server;
pub mod store;
mod sync;
