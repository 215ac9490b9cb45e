//! Publications on their way to outboxes, in the forms that their peers take.

use bytes::Bytes;

use crate::protocol::format::{Format, PerFormat};
use crate::publication::Publication;
use crate::sync::Arc;

/// Publications that an outbox takes together or not at all. Packed once and shared by the listeners
/// of a room: a clone is two reference counts.
#[derive(Debug, Clone, Default)]
pub struct Packet {
    /// For sockets: whole frames of messages.
    frames: PerFormat<Option<Bytes>>,
    /// For consumers in this process.
    publications: Option<Arc<[Publication]>>,
    /// Memory of the publications.
    publication_bytes: usize,
}

impl Packet {
    /// A packet in the forms that its receivers take. Whoever takes one that is not there is told
    /// that its outbox is full.
    #[must_use]
    pub fn new(frames: PerFormat<Option<Bytes>>, publications: Option<Arc<[Publication]>>) -> Self {
        let publication_bytes = publications.iter().flat_map(|all| all.iter()).map(Publication::memory_bytes);
        Self { publication_bytes: publication_bytes.sum(), frames, publications }
    }

    /// The frames for a socket.
    pub(crate) fn frames(&self, format: Format) -> Option<&Bytes> {
        self.frames[format].as_ref()
    }

    /// The publications for a consumer.
    pub(crate) fn publications(&self) -> Option<&[Publication]> {
        self.publications.as_deref()
    }

    /// Memory that the publications take in the outbox of a consumer.
    pub(super) fn publication_bytes(&self) -> usize {
        self.publication_bytes
    }
}
