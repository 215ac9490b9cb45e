//! What the benches share: publications as the server has them, sockets with a reader behind them,
//! a durable PostgreSQL, and clocks of used processor time.

#![allow(dead_code, reason = "each bench uses a part")]

pub(crate) mod cpu;
pub(crate) mod postgres;
pub(crate) mod sockets;
#[path = "../../tests/support/temp.rs"]
#[allow(unreachable_pub, reason = "shared with the tests")]
pub(crate) mod temp;

use std::sync::Arc;

use bytes::Bytes;
use roomcast::internals::{PushMessage, frame::Frames};
use roomcast::{Channel, ClientInfo, Publication};

/// The payload that floors and server are compared with.
pub(crate) const PAYLOAD_BYTES: usize = 128;

/// A JSON text of so many bytes.
pub(crate) fn payload(bytes: usize) -> Arc<str> {
    format!("\"{}\"", "x".repeat(bytes - 2)).into()
}

/// A publisher as the server knows one: a short user id and the uuid of the connection.
pub(crate) fn publisher() -> Arc<ClientInfo> {
    let client = "4be94a52-9a5e-4a4d-8d4c-6f2f0d3f7a11".into();
    Arc::new(ClientInfo { user: "ann".into(), client, conn_info: None, chan_info: None })
}

/// A message of a client in the room `room`.
pub(crate) fn publication(seq: u64, data: &Arc<str>, info: &Arc<ClientInfo>) -> Publication {
    Publication {
        channel: Channel::new("room").unwrap(),
        seq,
        data: Arc::clone(data).into(),
        info: Some(Arc::clone(info)),
        tags: None,
        created_at_ms: 0,
    }
}

/// So many pushes as the server hands them to the kernel in one call: messages in shared frames.
pub(crate) fn pushes(count: u64, payload_bytes: usize) -> Bytes {
    let (data, info) = (payload(payload_bytes), publisher());
    let mut frames = Frames::default();
    // Numbers of six digits, as in a room that is in use; all pushes are equally long.
    for seq in 100_000..100_000 + count {
        frames.add(&PushMessage::Publication(&publication(seq, &data, &info)).into());
    }
    frames.take()
}
