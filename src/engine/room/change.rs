//! What changes the member list of a room. Such a change waits while a fan-out is under way; nothing
//! else is ever deferred.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::catch_up::job::Job;
use crate::engine::join::Join;
use crate::engine::subscription::Subscription;
use crate::ids::Channel;

/// A change of the member list of a room.
#[derive(Debug)]
pub(in crate::engine) enum RoomChange {
    /// A listener wants to be in the room.
    Join(Box<Join>),
    /// A subscription ended.
    Leave(Leave),
    /// A listener that was served from the log has everything up to its target.
    CaughtUp(Box<Job>),
}

/// A subscription that ended, and the frame that tells the client so, behind the last message.
#[derive(Debug)]
pub(in crate::engine) struct Leave {
    pub(in crate::engine) subscription: Arc<Subscription>,
    pub(in crate::engine) final_frame: Option<FinalFrame>,
}

/// The last frame of a subscription. It is sent when it is dropped, so that it comes behind
/// everything the room gave the listener, and whatever happens to the command that carries it.
#[derive(Debug)]
pub(in crate::engine) struct FinalFrame {
    subscription: Arc<Subscription>,
    frame: Bytes,
}

impl RoomChange {
    /// The room.
    pub(in crate::engine) fn channel(&self) -> &Channel {
        match self {
            Self::Join(join) => join.channel(),
            Self::Leave(leave) => &leave.subscription.channel,
            Self::CaughtUp(job) => job.channel(),
        }
    }
}

impl Leave {
    pub(in crate::engine) fn new(subscription: Arc<Subscription>, frame: Option<Bytes>) -> Self {
        debug_assert!(!subscription.is_held(), "a subscription ends before its room hears of it");
        let final_frame = frame.map(|frame| FinalFrame { subscription: subscription.clone(), frame });
        Self { subscription, final_frame }
    }
}

impl Drop for FinalFrame {
    fn drop(&mut self) {
        let _ = self.subscription.outbox.reply(&self.frame);
    }
}
