//! A listener inside this process.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::subscribe::is_gapless;
use crate::engine::{Engine, Joined, Listener};
use crate::ids::{Channel, ConnectionId, Seq};
use crate::outbox::{self, Reader, Work};
use crate::protocol::code::CloseCode;
use crate::publication::Publication;

/// Publications of one room, in order, each once. Dropping it leaves the room.
///
/// A loop over it (`for publication in &mut subscription`) waits for each, and ends when no more come;
/// [`ended`](Self::ended) tells why. Several subscriptions are waited for together by [`arrivals`](Self::arrivals).
pub struct Subscription {
    engine: Arc<Engine>,
    listener: Arc<Listener>,
    channel: Channel,
    position: Seq,
    /// Missed messages that came with the answer to the subscribe; they come before those in the outbox.
    missed: VecDeque<Publication>,
    signal: Arc<Signal>,
    arrivals: Receiver<()>,
    is_closed: Arc<AtomicBool>,
    ended: Option<Ended>,
}

/// Ends a [`Subscription`] from elsewhere, while its owner waits for the next publication.
#[derive(Clone)]
pub struct Closer {
    engine: Arc<Engine>,
    listener: Weak<Listener>,
    is_closed: Arc<AtomicBool>,
}

/// Tells the owner of a subscription that there may be something to take.
pub(super) struct Signal(Sender<()>);

impl Signal {
    pub(super) fn new() -> (Arc<Self>, Receiver<()>) {
        let (sender, receiver) = bounded(1);
        (Arc::new(Self(sender)), receiver)
    }

    fn give(&self) {
        // One that waits already says the same.
        let _ = self.0.try_send(());
    }
}

impl Reader for Signal {
    fn run(&self, work: Work) {
        work();
    }

    fn wake(&self, _: ConnectionId) {
        self.give();
    }
}

/// Reason for which no more publications come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Nothing came in the given time; more may come later.
    TimedOut,
    /// The node was stopped.
    Stopped,
    /// A [`Closer`] ended it.
    Closed,
    /// The next messages are no longer kept, or the history of the database forked and
    /// [`Node::epoch`](crate::Node::epoch) is another one; subscribe anew.
    Lost,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no message arrived in time",
            Self::Stopped => "the node was stopped",
            Self::Closed => "the subscription was closed",
            Self::Lost => "the next messages are no longer kept",
        })
    }
}

impl std::error::Error for Ended {}

impl Subscription {
    pub(super) fn new(
        engine: Arc<Engine>,
        listener: Arc<Listener>,
        (channel, joined): (&Channel, Joined),
        (signal, arrivals): (Arc<Signal>, Receiver<()>),
    ) -> Self {
        debug_assert!(is_gapless(&joined), "a recovered range of {channel} has a hole");
        let missed = VecDeque::from(joined.publications);
        signal.give();
        let (channel, position, is_closed) = (channel.clone(), joined.offset, Arc::default());
        Self { engine, listener, channel, position, missed, signal, arrivals, is_closed, ended: None }
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
        self.take(None)
    }

    /// Waits for the next publication, at most so long.
    ///
    /// # Errors
    /// [`Ended`]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Publication, Ended> {
        self.take(Some(Instant::now() + timeout))
    }

    /// The next publication, if it is there.
    ///
    /// # Errors
    /// [`Ended`]; [`Ended::TimedOut`]: there is none now.
    pub fn try_recv(&mut self) -> Result<Publication, Ended> {
        let next = self.take(Some(Instant::now()));
        if next.is_ok() {
            // There may be more.
            self.signal.give();
        }
        next
    }

    /// Gets a token when [`try_recv`](Self::try_recv) may have something to give, the end included: to be waited for
    /// beside other channels, by `select!` of crossbeam. A token too many does no harm.
    ///
    /// ```no_run
    /// # use crossbeam_channel::{Receiver, select};
    /// # use roomcast::{Ended, Subscription};
    /// # fn example(mut news: Subscription, mut orders: Subscription, quit: Receiver<()>) {
    /// let (in_news, in_orders) = (news.arrivals().clone(), orders.arrivals().clone());
    /// loop {
    ///     let next = select! {
    ///         recv(in_news) -> _ => news.try_recv(),
    ///         recv(in_orders) -> _ => orders.try_recv(),
    ///         recv(quit) -> _ => return,
    ///     };
    ///     match next {
    ///         Ok(publication) => println!("{} {}", publication.channel, publication.data),
    ///         Err(Ended::TimedOut) => {}
    ///         Err(_) => return,
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn arrivals(&self) -> &Receiver<()> {
        &self.arrivals
    }

    /// A handle that ends this subscription from another thread.
    #[must_use]
    pub fn closer(&self) -> Closer {
        Closer {
            engine: self.engine.clone(),
            listener: Arc::downgrade(&self.listener),
            is_closed: self.is_closed.clone(),
        }
    }

    /// The reason for which no more publications come; `None` while they may.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.ended
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

    fn take(&mut self, deadline: Option<Instant>) -> Result<Publication, Ended> {
        let publication = match self.missed.pop_front() {
            Some(publication) => publication,
            None => self.listener.outbox.take(deadline).map_err(|outbox| self.ending(outbox))?,
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

    /// The end of the subscription, by that of its outbox; `None`: the time is over.
    fn ending(&mut self, outbox: Option<outbox::Ended>) -> Ended {
        let ended = match outbox {
            None => return Ended::TimedOut,
            Some(outbox::Ended::Closed(code)) if code == CloseCode::InsufficientState.number() => Ended::Lost,
            Some(_) if self.is_closed.load(Ordering::Acquire) => Ended::Closed,
            Some(_) => Ended::Stopped,
        };
        self.ended = Some(ended);
        ended
    }
}

/// Waits for each publication of a [`Subscription`], and ends when no more come.
#[derive(Debug)]
pub struct Publications<'s>(&'s mut Subscription);

impl Iterator for Publications<'_> {
    type Item = Publication;

    fn next(&mut self) -> Option<Publication> {
        self.0.recv().ok()
    }
}

impl<'s> IntoIterator for &'s mut Subscription {
    type Item = Publication;
    type IntoIter = Publications<'s>;

    fn into_iter(self) -> Publications<'s> {
        Publications(self)
    }
}

impl Closer {
    /// Ends the subscription. What was delivered before is still received, then [`Ended::Closed`] follows.
    pub fn close(&self) {
        if let Some(listener) = self.listener.upgrade() {
            self.is_closed.store(true, Ordering::Release);
            self.engine.disconnect(&listener);
            listener.outbox.close(CloseCode::Shutdown.number(), CloseCode::Shutdown.as_str());
        }
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closer")
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
