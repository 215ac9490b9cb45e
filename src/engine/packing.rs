//! Publications turned into what outboxes take, once for all receivers of a form.

use crate::outbox::frame::Frames;
use crate::outbox::{Outbox, Packet};
use crate::protocol::format::{Format, PerFormat};
use crate::protocol::push::Push;
use crate::publication::Publication;

/// The kinds of outboxes that a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Receivers {
    /// Sockets with frames of a format.
    pub(super) sockets: PerFormat<bool>,
    /// Consumers in this process.
    pub(super) consumers: bool,
}

impl Receivers {
    /// The owner of this outbox alone.
    pub(super) fn only(outbox: &Outbox) -> Self {
        let mut receivers = Self { consumers: outbox.is_for_consumer(), ..Self::default() };
        receivers.sockets[outbox.format()] = !receivers.consumers;
        receivers
    }
}

/// Packs publications in the forms that `receivers` take. `frames` is empty before and after; its
/// memory is used again.
pub(super) fn pack<'a>(
    publications: impl Iterator<Item = &'a Publication> + Clone,
    receivers: Receivers,
    frames: &mut Frames,
) -> Packet {
    debug_assert!(frames.is_empty(), "frames of another packet");
    let sockets = PerFormat::from_fn(|format| {
        receivers.sockets[format].then(|| frame_all(publications.clone(), format, frames))
    });
    Packet::new(sockets, receivers.consumers.then(|| publications.cloned().collect()))
}

fn frame_all<'a>(
    publications: impl Iterator<Item = &'a Publication>,
    format: Format,
    frames: &mut Frames,
) -> bytes::Bytes {
    frames.set_format(format);
    publications.for_each(|publication| frames.add(&Push::Publication(publication).into()));
    frames.take()
}
