//! The engine: rooms in memory, who listens to them, and how publications get there.
//!
//! Knows no socket and no SQL, and reads no command of a client: it is given committed publications,
//! listeners with an outbox, and a [`Log`] to read from. It writes what a client hears of a room:
//! pushes, the answer to a subscribe that waits for the room, and the ends of subscriptions. Threads: one
//! worker a shard, a few for catch-up, and one a core for the largest fan-outs. Locks, always downwards:
//! commit lane → shard → look-ups, parked jobs or page cache → subscriptions of a listener → outbox → drainer.
//! Everything that changes a room goes through its shard's queue, in order; only a publish may pass an empty
//! queue, while its sender holds the shard.

mod catch_up;
mod command;
mod commit;
mod connections;
mod context;
mod delivery;
mod epoch;
#[cfg(not(all(test, feature = "model")))]
mod inbox;
mod inspect;
mod join;
mod listener;
mod log;
mod mailboxes;
mod members;
#[cfg(all(test, feature = "model"))]
mod model;
mod packing;
mod room;
mod room_map;
mod rooms;
mod shard;
mod subscription;
mod tail;
mod threads;

use std::fmt;
use std::io;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};

use crate::config::{self, Delivery, Namespace};
use crate::ids::{Channel, ConnectionId};
use crate::limits::INLINE_PUBLICATIONS_MAX;
use crate::metrics::Metrics;
use crate::outbox::frame;
use crate::protocol::api::activity::RoomOrder;
use crate::protocol::code::{Close, UnsubscribeCode};
use crate::protocol::message::Message;
use crate::protocol::push::Push;
use crate::publication::{ClientInfo, Publication};
use crate::store::{CommitSink, Found};
use crate::sync::{Arc, Mutex, blocking, lock};
use catch_up::pool::CatchUp;
use command::Command;
use commit::CommitTimes;
use connections::Connections;
use context::Context;
use join::Join;
use mailboxes::{Mailbox, Mailboxes};
use room::change::{Leave, RoomChange};
use shard::Shard;
use threads::Threads;

pub(crate) use catch_up::directory::Lagging;
pub(crate) use delivery::choice::{Reason, Strategy};
pub(crate) use inspect::{Presence, RoomQuery, RoomStatus};
pub use join::{Answer, Extra};
pub(crate) use join::{Joined, Recover};
pub use listener::Listener;
pub use log::{Log, LogUnavailable};
pub(crate) use subscription::{Refused, Subscription};

/// The surroundings of an engine, given by the program around it.
pub struct EngineParts {
    /// The committed messages.
    pub log: Arc<dyn Log>,
    /// Name of the history that the log holds now.
    pub epoch: Arc<str>,
    /// Connections whose outboxes have drained, from the drainer.
    pub drained: Receiver<ConnectionId>,
    /// Counters of the whole program.
    pub metrics: Arc<Metrics>,
}

/// Rooms in memory and the threads that serve them. Shared behind an `Arc`; every method may be called from any thread.
pub struct Engine {
    mailboxes: Arc<Mailboxes>,
    /// In the order of their mailboxes.
    shards: Vec<Arc<Shard>>,
    context: Arc<Context>,
    connections: Connections,
    threads: Mutex<Option<Threads>>,
}

/// A subscription to be made.
#[derive(Debug)]
pub struct JoinRequest {
    /// The room.
    pub channel: Channel,
    /// The client as others see it in this room.
    pub info: Arc<ClientInfo>,
    /// The position it returns from, if it was here before.
    pub recover: Option<Recover>,
    /// Content of the answer besides the position.
    pub extra: Extra,
    /// The way of the answer.
    pub answer: Answer,
    /// Made by the server, not asked for by the client. After a gap the connection is closed then,
    /// because the client cannot subscribe again by itself.
    pub server_side: bool,
}

impl Engine {
    /// Starts the workers and the catch-up pool.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        workers: usize,
        rooms: &config::Rooms,
        namespaces: config::Namespaces,
        parts: EngineParts,
    ) -> io::Result<Arc<Self>> {
        let EngineParts { log, epoch, drained, metrics } = parts;
        let mailboxes = Arc::new(Mailboxes::new(workers, &metrics));
        let catch_up_workers = rooms.catch_up_workers.max(1);
        let (catch_up, pool) =
            CatchUp::start(catch_up_workers, log, drained, mailboxes.clone(), metrics.clone())?;
        let context = Context { namespaces, rooms: rooms.clone(), metrics, catch_up };
        let engine = Self::assemble(mailboxes, epoch, context);
        let threads = Threads::start(&engine.shards, pool)?;
        *lock(&engine.threads) = Some(threads);
        Ok(Arc::new(engine))
    }

    /// An engine without threads.
    fn assemble(mailboxes: Arc<Mailboxes>, epoch: Arc<str>, context: Context) -> Self {
        let context = Arc::new(context);
        let shard =
            |mailbox: &Arc<Mailbox>| Arc::new(Shard::new(mailbox.clone(), epoch.clone(), context.clone()));
        let shards = mailboxes.iter().map(shard).collect();
        Self { mailboxes, shards, context, connections: Connections::default(), threads: Mutex::new(None) }
    }

    /// Serves what is queued and ends the threads. Later calls find an engine that answers nothing.
    pub fn stop(&self) {
        let threads = lock(&self.threads).take();
        if let Some(threads) = threads {
            threads.stop(&self.mailboxes);
        }
    }

    /// The options of a channel's namespace; `None` when it is not configured.
    pub fn namespace(&self, channel: &Channel) -> Option<&Arc<Namespace>> {
        self.context.namespaces.get(channel.namespace())
    }

    /// The channels every connection of this user is subscribed to by the server.
    pub fn personal_channels(&self, user: &str) -> Vec<Channel> {
        let namespaces = self.context.namespaces.iter().filter(|namespace| namespace.personal);
        // A user whose encoded id is too long for a name has no personal channel.
        namespaces.filter_map(|namespace| Channel::personal(&namespace.name, user).ok()).collect()
    }

    // ---- publications ----

    /// Passes on a publication of a room that keeps nothing.
    pub fn publish_ephemeral(&self, publication: Publication) {
        let mailbox = self.mailboxes.of(&publication.channel);
        let times = CommitTimes::of_no_commit();
        mailbox.send(Command::Publish { publications: vec![publication], times });
    }

    // ---- listeners ----

    /// Makes a connection known to the server API.
    pub fn connect(&self, listener: &Arc<Listener>) {
        self.connections.insert(listener);
        self.context.metrics.connections.inc();
    }

    /// Takes a connection out of everything. The number of rooms it was in is what it costs.
    pub fn disconnect(&self, listener: &Listener) {
        if self.connections.remove(listener) {
            self.context.metrics.connections.dec();
        }
        for subscription in listener.unsubscribe_all() {
            self.send_leave(subscription, None);
        }
        self.context.catch_up.forget(listener.id());
    }

    /// Puts a listener into a room. The outcome comes as the request's [`Answer`] says, before
    /// anything else of the room.
    ///
    /// # Errors
    /// [`Refused`], and then no answer comes.
    pub fn join(
        &self,
        listener: &Arc<Listener>,
        request: JoinRequest,
        channels_max: usize,
    ) -> Result<(), Refused> {
        let JoinRequest { channel, info, recover, extra, answer, server_side } = request;
        let subscription = listener.subscribe(channel, info, server_side, channels_max)?;
        let mailbox = self.mailboxes.of(&subscription.channel);
        let join = Join { subscription: subscription.clone(), recover, answer, extra, asked: false };
        mailbox.send(Command::Change(RoomChange::Join(Box::new(join))));
        Ok(())
    }

    /// Takes a listener out of a room and tells it `last` behind the last message it gets from there.
    /// False when it was not in the room; then nothing is told.
    pub fn leave(&self, listener: &Listener, channel: &Channel, last: &Message<'_>) -> bool {
        let Some(subscription) = listener.unsubscribe(channel) else { return false };
        let final_frame = frame::message(listener.outbox.format(), last);
        self.send_leave(subscription, Some(final_frame));
        true
    }

    fn send_leave(&self, subscription: Arc<Subscription>, final_frame: Option<Bytes>) {
        let leave = RoomChange::Leave(Leave::new(subscription, final_frame));
        self.mailboxes.of(leave.channel()).send(Command::Change(leave));
    }

    /// Ends a user's subscription to a channel and tells the clients why: on one client, or on all.
    /// Returns how many subscriptions ended.
    pub fn unsubscribe_user(
        &self,
        user: &str,
        client: Option<&str>,
        channel: &Channel,
        code: UnsubscribeCode,
    ) -> usize {
        let push = Push::Unsubscribe(channel, code).into();
        let mut ended = 0;
        for listener in self.listeners_of(user, client) {
            if self.leave(&listener, channel, &push) {
                ended += 1;
            }
        }
        ended
    }

    /// Ends a user's connections: one client, or all but those in `spared`. Returns how many.
    pub fn disconnect_user(
        &self,
        user: &str,
        client: Option<&str>,
        spared: &[String],
        close: &Close,
    ) -> usize {
        let mut ended = 0;
        for listener in self.listeners_of(user, client) {
            if !spared.iter().any(|client| **client == *listener.info.client) {
                self.disconnect(&listener);
                listener.outbox.close(close.code(), close.reason());
                ended += 1;
            }
        }
        ended
    }

    /// A user's connections, or the one of them with this client id.
    pub fn listeners_of(&self, user: &str, client: Option<&str>) -> Vec<Arc<Listener>> {
        let mut listeners = self.connections.of_user(user);
        if let Some(client) = client {
            listeners.retain(|listener| *listener.info.client == *client);
        }
        listeners
    }

    /// Different users connected; all anonymous connections count as one.
    pub fn users_count(&self) -> usize {
        self.connections.users()
    }

    /// Waits until what was published before is in the outboxes of live listeners, or `deadline`.
    pub fn flush(&self, deadline: Instant) {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (done, flushed) = bounded(0);
            mailbox.send(Command::Flush { done });
            flushed
        };
        let asked: Vec<Receiver<()>> = self.mailboxes.iter().map(ask).collect();
        for flushed in asked {
            // Nothing is ever sent: the shard lets go of its end, or the time is over.
            let _ = flushed.recv_deadline(deadline);
        }
    }

    // ---- questions ----

    /// The clients in a room, after everything that was sent to it before.
    pub fn presence(&self, channel: &Channel) -> Presence {
        let (answer, presence) = bounded(1);
        self.mailboxes.of(channel).send(Command::Presence { channel: channel.clone(), answer });
        // No answer comes only from an engine that was stopped.
        blocking::waiting(|| presence.recv()).unwrap_or_default()
    }

    /// The state of active rooms: those that are asked for, in the order asked for. Rooms change meanwhile.
    pub fn rooms(&self, query: &RoomQuery) -> Vec<RoomStatus> {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (answer, statuses) = bounded(1);
            mailbox.send(Command::Status { query: query.clone(), answer });
            statuses
        };
        let asked: Vec<_> = self.mailboxes.iter().map(ask).collect();
        let all = asked.into_iter().flat_map(|statuses| statuses.recv().unwrap_or_default());
        let mut rooms: Vec<_> = blocking::waiting(|| all.collect());
        rooms.sort_by(|a, b| match query.order {
            RoomOrder::Rate => b.rate.total_cmp(&a.rate),
            RoomOrder::Listeners => b.listeners.cmp(&a.listeners),
            RoomOrder::Activity => b.last_activity.cmp(&a.last_activity),
        });
        rooms.truncate(query.limit);
        rooms
    }

    /// Sets the strategy of a room, whether it is active or not, until this is taken back (`None`) or
    /// the engine stops. False when too many rooms have one already.
    pub fn override_strategy(&self, channel: &Channel, delivery: Option<Delivery>) -> bool {
        let (answer, done) = bounded(1);
        self.mailboxes.of(channel).send(Command::OverrideStrategy {
            channel: channel.clone(),
            delivery,
            answer,
        });
        blocking::waiting(|| done.recv()).unwrap_or(false)
    }

    /// Subscriptions that are served from the log now, those first that are so for longest; `limit` of
    /// them at most, and how many there are.
    pub fn lagging(&self, limit: usize) -> (usize, Vec<Lagging>) {
        self.context.catch_up.lagging(limit)
    }
}

impl CommitSink for Engine {
    /// The caller gets the delivery of a small batch to small rooms of idle shards back, to run it itself once
    /// others may commit; it holds the shards until then.
    fn committed<'a>(&'a self, batch: Vec<Publication>, begun: Instant) -> Option<Box<dyn FnOnce() + 'a>> {
        let times = CommitTimes { begun, ended: Instant::now() };
        let may_go_inline = batch.len() <= INLINE_PUBLICATIONS_MAX;
        let mut by_shard: Vec<Vec<Publication>> = vec![Vec::new(); self.shards.len()];
        for publication in batch {
            by_shard[self.mailboxes.index_of(&publication.channel)].push(publication);
        }
        let mut inline = Vec::new();
        for (index, publications) in by_shard.into_iter().enumerate().filter(|(_, some)| !some.is_empty()) {
            let owned = may_go_inline.then(|| self.shards[index].try_own(&publications)).flatten();
            match owned {
                Some(owned) => inline.push((owned, publications)),
                None => self.mailboxes.send(index, Command::Publish { publications, times }),
            }
        }
        if inline.is_empty() {
            return None;
        }
        Some(Box::new(move || {
            for (owned, publications) in inline {
                owned.deliver(publications, times);
            }
        }))
    }

    fn forked(&self, epoch: &Arc<str>) {
        self.context.catch_up.start_anew(epoch);
    }

    fn found(&self, found: Found) {
        self.mailboxes.of(&found.channel).send(Command::Found(found));
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl fmt::Debug for EngineParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineParts")
    }
}

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests;
