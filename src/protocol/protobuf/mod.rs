//! The client protocol in Protobuf: messages behind their lengths, in binary frames.
//!
//! The types are made from `proto/client.proto` when the crate is built. Nobody but this module sees them: a
//! client's command becomes the same [`Command`](super::command::Command) as in JSON.

mod decode;
mod encode;

pub(super) use decode::{Commands, decode_frame};
pub(super) use encode::write;

#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod schema {
    include!(concat!(env!("OUT_DIR"), "/roomcast.client.rs"));
}

#[cfg(test)]
mod tests;
