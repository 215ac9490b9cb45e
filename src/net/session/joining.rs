//! A connect on its way: the answers of the rooms the server subscribes the client to.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::ids::Channel;
use crate::node::{Joined, is_gapless};
use crate::protocol::code::ErrorCode;

/// Longest wait for the positions of server-side subscriptions; a client waits no longer either.
const SUBSCRIPTIONS_WAIT: Duration = Duration::from_secs(5);

/// A connect whose server-side subscriptions are not all answered yet.
#[derive(Debug)]
pub(super) struct Joining {
    /// Id of the command.
    pub(super) id: u32,
    /// Unix seconds.
    pub(super) expires_at: Option<i64>,
    answers: Receiver<(Channel, Result<Joined, ErrorCode>)>,
    awaited: usize,
    pub(super) joined: Vec<(Channel, Joined)>,
    /// The moment by which all must be answered.
    pub(super) deadline: Instant,
}

impl Joining {
    pub(super) fn new(
        id: u32,
        expires_at: Option<i64>,
        answers: Receiver<(Channel, Result<Joined, ErrorCode>)>,
        awaited: usize,
    ) -> Self {
        let deadline = Instant::now() + SUBSCRIPTIONS_WAIT;
        Self { id, expires_at, answers, awaited, joined: Vec::with_capacity(awaited), deadline }
    }

    /// Takes in what was answered. True when nothing is missing any more.
    pub(super) fn take_answers(&mut self) -> Result<bool, ErrorCode> {
        while self.joined.len() < self.awaited {
            match self.answers.try_recv() {
                Ok((channel, Ok(one))) => {
                    debug_assert!(is_gapless(&one), "a recovered range of {channel} has a hole");
                    self.joined.push((channel, one));
                }
                Ok((_, Err(code))) => return Err(code),
                Err(TryRecvError::Empty) if Instant::now() < self.deadline => return Ok(false),
                Err(_) => return Err(ErrorCode::Internal),
            }
        }
        Ok(true)
    }
}
