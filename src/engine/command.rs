//! The commands of a shard: a closed list, applied in the order they were sent. Nothing else changes a room
//! but a publish that its sender delivers inline (`shard`).

use crossbeam_channel::Sender;

use super::catch_up::lookups::{HeadQuestion, ReadHead};
use super::commit::CommitTimes;
use super::inspect::{Presence, RoomQuery, RoomStatus};
use super::room::change::RoomChange;
use crate::config::Delivery;
use crate::ids::Channel;
use crate::publication::Publication;
use crate::store::Found;
use crate::sync::Arc;

/// A message to a shard.
#[derive(Debug)]
pub(super) enum Command {
    /// Publications of one commit, in commit order, or one that is not stored.
    Publish { publications: Vec<Publication>, times: CommitTimes },
    /// A change of the member list of a room.
    Change(RoomChange),
    /// The answer to a room's question for its head; `None`: the log could not be read.
    Head { question: Arc<HeadQuestion>, head: Option<ReadHead> },
    /// A room was read because others than the commit lanes have stored messages there.
    Found(Found),
    /// The history forked: from now on positions belong to this epoch.
    StartAnew { epoch: Arc<str> },
    /// The pool has served a slice of this room.
    SliceDone { channel: Channel },
    /// Asks for the listeners of a room.
    Presence { channel: Channel, answer: Sender<Presence> },
    /// Asks for the status of rooms of this shard.
    Status { query: RoomQuery, answer: Sender<Vec<RoomStatus>> },
    /// Sets or clears the delivery an operator wants for a room. The answer is false when there are too
    /// many already.
    OverrideStrategy { channel: Channel, delivery: Option<Delivery>, answer: Sender<bool> },
    /// Wakes the worker.
    Wake,
    /// The sender is dropped, without a word, once all that came before is in the outboxes.
    Flush { done: Sender<()> },
    /// The worker ends.
    Stop,
}
