//! A listener inside this process.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::subscribe::is_gapless;
use crate::engine::{Engine, Joined, Listener};
use crate::ids::{Channel, Seq};
use crate::outbox;
use crate::protocol::code::CloseCode;
use crate::publication::Publication;

/// Publications of one room, in order, each once. Dropping it leaves the room.
pub struct Subscription {
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    channel: Channel,
    position: Seq,
    /// Missed messages that came with the answer to the subscribe; they come before those in the outbox.
    missed: VecDeque<Publication>,
}

/// Reason for which no more publications come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing came in the given time; more may come later.
    TimedOut,
    /// The node was stopped.
    Stopped,
    /// The next messages are no longer kept, or the history of the database forked and
    /// [`Node::epoch`](crate::Node::epoch) is another one; subscribe anew.
    Lost,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no message arrived in time",
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
        debug_assert!(is_gapless(&joined), "a recovered range of {channel} has a hole");
        let missed = VecDeque::from(joined.publications);
        Self { engine, listener, channel: channel.clone(), position: joined.offset, missed }
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
        let publication = match self.missed.pop_front() {
            Some(publication) => publication,
            None => self.listener.outbox.take(deadline).map_err(ending)?,
        };
        debug_assert!(
            publication.seq == 0 || publication.seq == self.position + 1,
            "{} comes after {} in {}",
            publication.seq,
            self.position,
            self.channel
        );
        self.position = publication.seq;
        Ok(publication)
    }
}

/// The end of a subscription, by that of its outbox; `None`: the time is over.
fn ending(outbox: Option<outbox::Ended>) -> Ended {
    match outbox {
        None => Ended::TimedOut,
        Some(outbox::Ended::Closed(code)) if code == CloseCode::InsufficientState.number() => Ended::Lost,
        Some(_) => Ended::Stopped,
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
