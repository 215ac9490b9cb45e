//! A node: the store, the engine and their threads, wired together; the API for Rust programs.
//!
//! This is Roomcast without a network. [`crate::server::Server`] puts sockets in front of one;
//! another program opens one in its own process:
//!
//! ```
//! use roomcast::{Config, Node};
//!
//! # let folder = std::env::temp_dir().join(format!("roomcast-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! let mut config = Config::default();
//! config.database.url = format!("sqlite:{}/chat.db", folder.display()).parse()?;
//! let node = Node::open(&config)?;
//!
//! let lobby = "lobby".parse()?;
//! let mut listener = node.subscribe(&lobby, None)?;
//! let seq = node.publish(&lobby, r#"{"text":"hello"}"#)?;
//!
//! let publication = listener.recv()?;
//! assert_eq!((publication.seq, publication.data.as_json()), (seq, Some(r#"{"text":"hello"}"#)));
//! node.stop();
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod clients;
mod error;
mod handle;
mod history;
mod log;
mod message;
mod people;
mod publish;
mod retention;
mod rooms;
mod subscribe;
mod subscription;
mod transaction;

use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};

use crate::config::Config;
use crate::engine::{Engine, EngineParts, Listener};
use crate::ids::{Channel, Seq};
use crate::metrics::Metrics;
use crate::outbox::Drainer;
use crate::protocol::api;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::{HistoryRequest, StreamPosition};
use crate::publication::{ClientInfo, Publication};
use crate::store::{CommitSink, DatabaseConnection, Store};
use crate::sync::{Mutex, lock};
use retention::Pruner;

pub(crate) use access::Caller;
pub(crate) use clients::{Client, ClientSelector};
pub(crate) use error::{AccessError, RequestError};
pub use error::{PublishError, ReadError, StartError, SubscribeError};
pub(crate) use handle::NodeHandle;
pub(crate) use history::page_of;
pub use message::{Message, Payload, Unfit, User};
pub(crate) use publish::{Acknowledge, CheckedMessage, Draft};
pub(crate) use rooms::RoomDescription;
pub(crate) use subscribe::{Position, SubscribeOptions, is_gapless};
use subscription::Signal;
pub use subscription::{Closer, Ended, Publications, Subscription};
pub use transaction::{PublishInError, Unsent};

// Values that requests and answers of the node are made of. Whoever is in front of the node takes
// them from here and knows neither the engine nor the store.
pub(crate) use crate::engine::{
    Answer, Extra, Joined, Lagging, Presence, Reason, RoomQuery, RoomStatus, Strategy,
};
pub(crate) use crate::store::{AppendError, Health, Role, RoomKind, StoreError};
#[cfg(feature = "server")]
pub(crate) use crate::store::{backup, restore};

/// A running node. Dropping it stops it, as [`stop`](Node::stop) does.
#[derive(Debug)]
pub struct Node {
    handle: Arc<NodeHandle>,
    /// There until it stops.
    drainer: Option<Drainer>,
    pruner: Option<Pruner>,
    /// The subscriptions of this process, to be ended with the node.
    subscribers: Mutex<Vec<Weak<Listener>>>,
}

impl Node {
    /// Opens the database, brings its schema up to date, and starts the threads.
    ///
    /// # Errors
    /// [`StartError`] says what is missing, or which rules the configuration breaks.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let config = &config.check()?.config;
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::open(&config.database, metrics.clone())?);
        let (notices, drained) = unbounded();
        let drainer = Drainer::start(config.client.stall_timeout, notices, metrics.clone())?;
        let parts =
            EngineParts { log: store.clone(), epoch: store.epoch(), drained, metrics: metrics.clone() };
        let engine = Engine::start(config.workers, &config.rooms, config.namespaces.clone(), parts)?;
        tell_forks(&store, &engine);
        let pruner = Pruner::start(store.clone(), &config.namespaces)?;
        let handle = Arc::new(NodeHandle::new(config, engine, store, drainer.handle(), metrics));
        let (drainer, pruner) = (Some(drainer), Some(pruner));
        Ok(Self { handle, drainer, pruner, subscribers: Mutex::default() })
    }

    /// Publishes a message, and returns once it is durable and on its way: its seq, or 0 in a
    /// namespace that keeps nothing. `data` is JSON.
    ///
    /// # Errors
    /// [`PublishError`]. Nobody got the message, except where the database failed during its commit: then it
    /// may be stored and delivered all the same, and a second try with a key finds it.
    pub fn publish(&self, channel: &Channel, data: &str) -> Result<Seq, PublishError> {
        self.publish_once(channel, data, None)
    }

    /// Like [`publish`](Self::publish), but a second publish with the same key and channel returns
    /// the seq of the first instead of publishing again.
    ///
    /// # Errors
    /// [`PublishError`]. Nobody got the message, except where the database failed during its commit: then it
    /// may be stored and delivered all the same, and a second try with a key finds it.
    pub fn publish_once(
        &self,
        channel: &Channel,
        data: &str,
        key: Option<&str>,
    ) -> Result<Seq, PublishError> {
        let data = api::payload(data).map_err(|error| PublishError::Json(error.to_string()))?;
        let (channel, key) = (channel.clone(), key.map(Arc::from));
        let draft = Draft { channel, data: data.into(), info: None, tags: None, key, skip_history: false };
        let outcome = self.handle.publish(Caller::Operator, [draft]).pop();
        outcome.unwrap_or(Err(PublishError::Store(AppendError::Unavailable)))
    }

    /// Publishes a message that has more than a payload: a sender, tags, a key. Like [`publish`](Self::publish) otherwise.
    ///
    /// # Errors
    /// [`PublishError`]. Nobody got the message, except where the database failed during its commit: then it
    /// may be stored and delivered all the same, and a second try with a key finds it.
    pub fn send(&self, message: Message) -> Result<Seq, PublishError> {
        let outcome = self.handle.publish(Caller::Operator, [message.into_draft()]).pop();
        outcome.unwrap_or(Err(PublishError::Store(AppendError::Unavailable)))
    }

    /// Publishes messages inside a transaction of the application's own, on the database of this node: they are
    /// published when it is committed, together with everything else in it, and if it is given up nothing was.
    /// All messages of a call are stored, or none.
    ///
    /// From this call until its end the transaction holds the locks of the rooms, and on SQLite that of the file; who publishes there
    /// meanwhile waits, and is refused after seconds. So publish last, all messages in one call, and commit. On
    /// SQLite begin with `immediate_transaction`: a transaction that has read before it writes may be refused.
    ///
    /// ```no_run
    /// # use diesel::prelude::*;
    /// # use roomcast::{Channel, Message, Node, Payload, PublishInError};
    /// # fn example(node: &Node, connection: &mut SqliteConnection) -> Result<(), Box<dyn std::error::Error>> {
    /// let news = Channel::new("orders")?;
    /// let unsent = connection.immediate_transaction(|connection| {
    ///     diesel::sql_query("INSERT INTO orders (article) VALUES ('tea')").execute(connection)?;
    ///     let message = Message::new(&news, Payload::new(r#"{"ordered":"tea"}"#)?);
    ///     Ok::<_, Box<dyn std::error::Error>>(node.publish_in(connection, [message])?)
    /// })?;
    /// unsent.pass_on();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PublishInError`]; the transaction is as it was before the call.
    pub fn publish_in(
        &self,
        connection: &mut impl DatabaseConnection,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Unsent, PublishInError> {
        self.handle.publish_in(connection, messages)
    }

    /// Subscribes to a room: from its head, or from behind the seq `after`, with everything that was
    /// missed first. A subscriber that is slow is served from the database and misses nothing. `after` is a seq of
    /// the present [`epoch`](Self::epoch); one of an earlier epoch means nothing.
    ///
    /// # Errors
    /// [`SubscribeError`]
    pub fn subscribe(&self, channel: &Channel, after: Option<Seq>) -> Result<Subscription, SubscribeError> {
        self.subscribe_with(clients::new_client("".into(), None), channel, after)
    }

    /// Like [`subscribe`](Self::subscribe), in the name of a user, whom presence then lists.
    ///
    /// # Errors
    /// [`SubscribeError`]
    pub fn subscribe_as(
        &self,
        user: &User,
        channel: &Channel,
        after: Option<Seq>,
    ) -> Result<Subscription, SubscribeError> {
        let user = user.info();
        self.subscribe_with(clients::new_client(user.user.clone(), user.conn_info.clone()), channel, after)
    }

    fn subscribe_with(
        &self,
        info: ClientInfo,
        channel: &Channel,
        after: Option<Seq>,
    ) -> Result<Subscription, SubscribeError> {
        let right = self.handle.check_subscribe(Caller::Operator, channel, false)?;
        let (signal, arrivals) = Signal::new();
        let listener = Listener::new(Arc::new(info), self.handle.outbox_for_consumer(signal.clone()));
        self.remember(&listener);
        let (sender, answer) = bounded(1);
        let position = |after| Position { after, epoch: String::new(), reject_unrecovered: true };
        let how = SubscribeOptions {
            chan_info: None,
            position: after.map(position),
            extra: Extra::default(),
            answer: Answer::Collect(sender),
            // Its outbox serves nothing else, so a gap ends the outbox and not the subscription alone.
            server_side: true,
        };
        self.handle.subscribe(&Client { listener: listener.clone() }, right, how)?;
        let (answered, joined) = answer.recv().map_err(|_| SubscribeError::Unavailable)?;
        debug_assert_eq!(answered, *channel, "the one join is answered");
        let joined = joined.map_err(refusal)?;
        Ok(Subscription::new(self.handle.engine.clone(), listener, (channel, joined), (signal, arrivals)))
    }

    /// The messages of a room behind the seq `after` that retention still shows, oldest first. At most a
    /// page of 300 messages or 512 KiB; the last seq of one is the `after` of the next.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn history(&self, channel: &Channel, after: Seq) -> Result<Vec<Publication>, ReadError> {
        let since = Some(StreamPosition { offset: after, epoch: String::new() });
        let request = HistoryRequest { channel: channel.clone(), limit: -1, since, reverse: false };
        Ok(self.handle.history(Caller::Operator, &request)?.publications)
    }

    /// The clients that listen to a room, subscriptions of this process among them (their user is empty).
    /// None are listed in a room with more listeners than the namespace's `presence_max_listeners`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn presence(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, ReadError> {
        Ok(self.handle.presence(Caller::Operator, channel)?.clients)
    }

    /// The target of requests, for servers in front of the node.
    pub(crate) fn handle(&self) -> &Arc<NodeHandle> {
        &self.handle
    }

    /// Name of the history that the database holds: letters. A seq of another one means nothing in this one. It
    /// changes while the node runs when a copy takes over for the database or an older state is put back; all
    /// subscriptions end then.
    #[must_use]
    pub fn epoch(&self) -> Arc<str> {
        self.handle.epoch()
    }

    /// Waits until everything published before is in the outboxes of live listeners, or `deadline`.
    pub(crate) fn flush(&self, deadline: Instant) {
        self.handle.engine.flush(deadline);
    }

    /// Everything that is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.handle.metrics()
    }

    fn remember(&self, listener: &Arc<Listener>) {
        let mut subscribers = lock(&self.subscribers);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(listener));
    }

    /// Serves what was committed, ends the subscriptions and the threads, and lets the database go.
    pub fn stop(self) {
        drop(self);
    }

    /// Order: no more retention, then the engine, which empties its queues into outboxes, then the
    /// drainer.
    fn shut_down(&mut self) {
        if let Some(pruner) = self.pruner.take() {
            pruner.stop();
        }
        self.handle.engine.stop();
        let goodbye = CloseCode::Shutdown;
        for listener in lock(&self.subscribers).drain(..) {
            if let Some(listener) = listener.upgrade() {
                listener.outbox.close(goodbye.number(), goodbye.as_str());
            }
        }
        if let Some(drainer) = self.drainer.take() {
            drainer.stop();
        }
        // A subscription that the program still holds keeps the store in memory.
        self.handle.store.release();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Has the engine told when the history of the database forks.
fn tell_forks(store: &Store, engine: &Arc<Engine>) {
    let sink: Weak<Engine> = Arc::downgrade(engine);
    store.tell(sink);
    // One that was found since the engine was given its epoch.
    engine.forked(&store.epoch());
}

/// The error for a subscription of this process that its room refused.
fn refusal(code: ErrorCode) -> SubscribeError {
    match code {
        ErrorCode::UnrecoverablePosition => SubscribeError::Unrecoverable,
        _ => SubscribeError::Unavailable,
    }
}

#[cfg(test)]
pub(crate) mod tests;
