//! A listener inside this process.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::engine::{Engine, Joined, Listener};
use crate::ids::{Channel, Seq};
use crate::outbox::frame;
use crate::protocol::push::{self, Pushed};
use crate::publication::Publication;

/// Publications of one room, in order, each once. Dropping it leaves the room.
pub struct Subscription {
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    channel: Channel,
    position: Seq,
    waiting: VecDeque<Publication>,
}

/// Reason for which no more publications come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing came in the given time; more may come later.
    TimedOut,
    /// The node was stopped.
    Stopped,
    /// The next messages are no longer kept; subscribe anew.
    Lost,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no message came in time",
            Self::Stopped => "the node was stopped",
            Self::Lost => "the next messages are no longer kept",
        })
    }
}

impl std::error::Error for Ended {}

impl Subscription {
    pub(super) fn new(
        engine: Arc<Engine>,
        listener: Arc<Listener>,
        channel: &Channel,
        joined: Joined,
    ) -> Self {
        let waiting = VecDeque::from(joined.publications);
        Self { engine, listener, channel: channel.clone(), position: joined.offset, waiting }
    }

    /// The room.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The seq of the last publication received, or where the subscription started.
    #[must_use]
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Waits for the next publication.
    ///
    /// # Errors
    /// [`Ended`], never [`Ended::TimedOut`].
    pub fn recv(&mut self) -> Result<Publication, Ended> {
        self.next(None)
    }

    /// Waits for the next publication, at most so long.
    ///
    /// # Errors
    /// [`Ended`]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Publication, Ended> {
        self.next(Some(Instant::now() + timeout))
    }

    /// Runs the subscription on a thread of its own and calls `callback` for each publication.
    /// The thread ends when the callback returns false, or as [`recv`](Self::recv) does; what it
    /// ended with is what joining it gives.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn for_each(
        mut self,
        mut callback: impl FnMut(Publication) -> bool + Send + 'static,
    ) -> io::Result<JoinHandle<Option<Ended>>> {
        let run = move || {
            loop {
                match self.recv().map(&mut callback) {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(ended) => return Some(ended),
                }
            }
        };
        thread::Builder::new().name("subscription".into()).spawn(run)
    }

    fn next(&mut self, deadline: Option<Instant>) -> Result<Publication, Ended> {
        loop {
            if let Some(publication) = self.waiting.pop_front() {
                self.position = publication.seq;
                return Ok(publication);
            }
            match self.listener.outbox.take(deadline) {
                Some(frames) => self.unpack(&frames)?,
                None if self.listener.outbox.ended().is_some() => return Err(Ended::Stopped),
                None => return Err(Ended::TimedOut),
            }
        }
    }

    fn unpack(&mut self, frames: &[u8]) -> Result<(), Ended> {
        for line in frame::lines(frames) {
            match push::decode(&self.channel, line) {
                Pushed::Publication(publication) => self.waiting.push_back(publication),
                Pushed::Unsubscribed => return Err(Ended::Lost),
                Pushed::Other => {}
            }
        }
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.engine.disconnect(&self.listener);
        self.listener.outbox.abort();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("channel", &self.channel)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
