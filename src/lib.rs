//! Roomcast: a chat-room broadcast server and library.

pub mod clock;
pub mod config;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod publication;
pub mod store;
