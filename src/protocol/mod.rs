//! The wire: the Centrifuge client protocol, and the JSON of the HTTP API.
//!
//! Owns every name and number a client sees. Pure functions between bytes and types: decoding
//! yields checked commands, encoding appends to a buffer. Knows no connection, room or database.

pub(crate) mod api;
pub(crate) mod code;
pub(crate) mod command;
mod fields;
pub(crate) mod format;
pub(crate) mod message;
mod object;
#[cfg(feature = "server")]
mod protobuf;
pub(crate) mod push;
pub(crate) mod reply;

pub(crate) use object::WriteMembers;
