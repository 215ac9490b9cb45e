//! Publications turned into what outboxes take, once for all receivers.

use crate::outbox::frame::LineFrames;
use crate::outbox::{Outbox, Packet};
use crate::protocol::push;
use crate::publication::Publication;

/// The kinds of outboxes that a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receivers {
    pub(super) sockets: bool,
    pub(super) consumers: bool,
}

impl Receivers {
    /// The owner of this outbox alone.
    pub(super) fn only(outbox: &Outbox) -> Self {
        let consumers = outbox.is_for_consumer();
        Self { sockets: !consumers, consumers }
    }
}

/// Packs publications in the forms that `receivers` take. `lines` is empty before and after; its
/// memory is used again.
pub(super) fn pack<'a>(
    publications: impl Iterator<Item = &'a Publication> + Clone,
    receivers: Receivers,
    lines: &mut LineFrames,
) -> Packet {
    debug_assert!(lines.is_empty(), "lines of another packet");
    let frames = receivers.sockets.then(|| {
        publications.clone().for_each(|publication| lines.line(|out| push::publication(out, publication)));
        lines.take()
    });
    Packet::new(frames, receivers.consumers.then(|| publications.cloned().collect()))
}
