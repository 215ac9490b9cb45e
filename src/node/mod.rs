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
//! assert_eq!((publication.seq, &*publication.data), (seq, r#"{"text":"hello"}"#));
//! node.stop();
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod retention;
mod subscription;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam_channel::{bounded, unbounded};
use uuid::Uuid;

use crate::clock;
use crate::config::Config;
use crate::engine::{Answer, Engine, EngineParts, Extra, JoinRequest, Listener, Recover};
use crate::ids::{Channel, ConnectionId, Seq};
use crate::metrics::Metrics;
use crate::outbox::{Drainer, DrainerHandle, Outbox};
use crate::protocol::api;
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::publication::{ClientInfo, Publication};
use crate::store::{AppendError, Appended, NewMessage, OpenError, Store};
use retention::Pruner;

pub use subscription::{Ended, Subscription};

/// See the module.
#[derive(Debug)]
pub struct Node {
    engine: Arc<Engine>,
    store: Arc<Store>,
    drainer: Drainer,
    pruner: Pruner,
    metrics: Arc<Metrics>,
    outbox_bytes_max: usize,
    /// The subscriptions of this process, to be ended with the node.
    subscribers: Mutex<Vec<Weak<Listener>>>,
}

/// Why a node does not start.
#[derive(Debug)]
pub enum StartError {
    /// The database cannot be used.
    Store(OpenError),
    /// The system gives no thread, socket or poller.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "{error}"),
            Self::System(error) => write!(f, "the system refuses a thread or socket: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Why a message was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The payload is not JSON that every client can read.
    Json(String),
    /// The payload is larger than the namespace's `message_bytes_max`.
    TooLarge,
    /// The store did not take it; nobody has seen it.
    Store(AppendError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace => write!(f, "the namespace of the channel is not configured"),
            Self::Json(reason) => write!(f, "the payload can not be sent: {reason}"),
            Self::TooLarge => write!(f, "the payload is larger than message_bytes_max allows"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why a subscription was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The channel's namespace is not configured.
    UnknownNamespace,
    /// The messages after the given seq are no longer kept.
    Unrecoverable,
    /// The database does not answer just now.
    Unavailable,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownNamespace => "the namespace of the channel is not configured",
            Self::Unrecoverable => "the messages asked for are no longer kept",
            Self::Unavailable => "the database does not answer",
        })
    }
}

impl std::error::Error for SubscribeError {}

impl Node {
    /// Opens the database, brings its schema up to date, and starts the threads.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let store = Arc::new(Store::open(&config.database, metrics.clone())?);
        let (notices, drained) = unbounded();
        let drainer = Drainer::start(config.client.stall_timeout, notices, metrics.clone())?;
        let parts = EngineParts {
            log: store.clone(),
            epoch: store.epoch().into(),
            drained,
            metrics: metrics.clone(),
        };
        let engine = Engine::start(config.workers, &config.rooms, config.namespaces.clone(), parts)?;
        let pruner = Pruner::start(store.clone(), &config.namespaces)?;
        let outbox_bytes_max = config.client.outbox_bytes_max;
        let subscribers = Mutex::default();
        Ok(Self { engine, store, drainer, pruner, metrics, outbox_bytes_max, subscribers })
    }

    /// Publishes a message, and returns once it is durable and on its way: its seq, or 0 in a
    /// namespace that keeps nothing. `data` is JSON.
    ///
    /// # Errors
    /// [`PublishError`]; then nobody gets the message.
    pub fn publish(&self, channel: &Channel, data: &str) -> Result<Seq, PublishError> {
        self.publish_once(channel, data, None)
    }

    /// Like [`publish`](Self::publish), but a second publish with the same key and channel returns
    /// the seq of the first instead of publishing again.
    ///
    /// # Errors
    /// [`PublishError`]; then nobody gets the message.
    pub fn publish_once(
        &self,
        channel: &Channel,
        data: &str,
        key: Option<&str>,
    ) -> Result<Seq, PublishError> {
        let options = self.engine.namespace(channel).ok_or(PublishError::UnknownNamespace)?;
        let data = api::payload(data).map_err(|error| PublishError::Json(error.to_string()))?;
        if data.len() > options.message_bytes_max {
            return Err(PublishError::TooLarge);
        }
        if !options.persist {
            let created_at_ms = clock::unix_ms();
            let channel = channel.clone();
            let publication = Publication { channel, seq: 0, data, info: None, tags: None, created_at_ms };
            self.engine.publish_ephemeral(publication);
            return Ok(0);
        }
        let message = NewMessage {
            channel: channel.clone(),
            auto_create: options.auto_create,
            data,
            info: None,
            tags: None,
            key: key.map(Arc::from),
        };
        match self.store.append(vec![message], &*self.engine).pop() {
            Some(Ok(Appended::New(seq) | Appended::Duplicate(seq))) => Ok(seq),
            Some(Err(error)) => Err(PublishError::Store(error)),
            None => Err(PublishError::Store(AppendError::Unavailable)),
        }
    }

    /// Subscribes to a room: from its head, or from behind the seq `after`, with everything that was
    /// missed first. A subscriber that is slow is served from the database and misses nothing.
    ///
    /// # Errors
    /// [`SubscribeError`]
    pub fn subscribe(&self, channel: &Channel, after: Option<Seq>) -> Result<Subscription, SubscribeError> {
        self.engine.namespace(channel).ok_or(SubscribeError::UnknownNamespace)?;
        let outbox = Outbox::for_consumer(ConnectionId::next(), self.outbox_bytes_max, self.drainer.handle());
        let info = Arc::new(ClientInfo {
            user: "".into(),
            client: Uuid::new_v4().to_string().into(),
            conn_info: None,
            chan_info: None,
        });
        let listener = Listener::new(info.clone(), outbox);
        self.remember(&listener);
        let (sender, answer) = bounded(1);
        let request = JoinRequest {
            channel: channel.clone(),
            info,
            recover: after.map(|after| Recover {
                after,
                epoch: String::new(),
                permitted: true,
                reject_unrecovered: true,
            }),
            extra: Extra::default(),
            answer: Answer::Collect(sender),
            server_side: false,
        };
        // A new listener has no subscription that could be in the way.
        self.engine.join(&listener, request, 1).map_err(|_| SubscribeError::Unavailable)?;
        match answer.recv() {
            Ok((_, Ok(joined))) => Ok(Subscription::new(self.engine.clone(), listener, channel, joined)),
            Ok((_, Err(ErrorCode::UnrecoverablePosition))) => Err(SubscribeError::Unrecoverable),
            Ok((_, Err(_))) | Err(_) => Err(SubscribeError::Unavailable),
        }
    }

    /// The engine, for servers in front of it.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The store: history, contacts, members.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Everything that is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What outboxes are made with.
    #[must_use]
    pub fn drainer(&self) -> DrainerHandle {
        self.drainer.handle()
    }

    fn remember(&self, listener: &Arc<Listener>) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(listener));
    }

    /// Serves what was committed, ends the subscriptions and the threads, and lets the database go.
    /// Order: no more retention, then the engine, which empties its queues into outboxes, then the
    /// drainer.
    pub fn stop(self) {
        self.pruner.stop();
        self.engine.stop();
        let goodbye = CloseCode::Shutdown;
        for listener in self.subscribers.into_inner().unwrap_or_else(PoisonError::into_inner) {
            if let Some(listener) = listener.upgrade() {
                listener.outbox.close(goodbye.number(), goodbye.as_str());
            }
        }
        self.drainer.stop();
    }
}
