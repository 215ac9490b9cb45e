//! The wire: the Centrifuge client protocol in JSON, and the JSON of the HTTP API.
//!
//! Owns every name and number a client sees. Pure functions between text and types: decoding
//! yields checked commands, encoding appends to a buffer. Knows no connection, room or database.

pub mod api;
pub mod code;
pub mod command;
mod fields;
mod object;
pub mod push;
pub mod reply;

pub use object::Members;
