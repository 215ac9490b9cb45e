//! The part of a node that requests work on, shared by all callers.
//!
//! Owns the handles of the engine, the store, the drainer and the metrics, and what requests are checked
//! against; no thread, no rule. Each kind of
//! request has a file beside this one that adds its functions to [`NodeHandle`].

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use crate::config::{Config, Mode};
use crate::engine::Engine;
use crate::ids::ConnectionId;
use crate::metrics::Metrics;
use crate::outbox::{DrainerHandle, Outbox, Reader};
use crate::protocol::format::Format;
use crate::store::{Fork, Health, Store};

/// Everything a request needs: messages and members, rooms and listeners, and the limits of the
/// configuration that bind clients.
#[derive(Debug)]
pub(crate) struct NodeHandle {
    pub(super) engine: Arc<Engine>,
    pub(super) store: Arc<Store>,
    /// Most subscriptions of one connection.
    pub(super) channels_max: usize,
    pub(super) identity: Identity,
    metrics: Arc<Metrics>,
    drainer: DrainerHandle,
    outbox_bytes_max: usize,
    is_open: bool,
}

/// The identity of this node among others.
#[derive(Debug)]
pub(super) struct Identity {
    /// Unique id of the process.
    pub(super) id: String,
    /// Name of the machine.
    pub(super) name: String,
    pub(super) started_at: Instant,
}

impl Identity {
    fn of_this_process() -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            started_at: Instant::now(),
        }
    }
}

impl NodeHandle {
    pub(super) fn new(
        config: &Config,
        engine: Arc<Engine>,
        store: Arc<Store>,
        drainer: DrainerHandle,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            engine,
            store,
            channels_max: config.client.channels_max,
            identity: Identity::of_this_process(),
            metrics,
            drainer,
            outbox_bytes_max: config.client.outbox_bytes_max,
            is_open: config.mode() != Mode::Secured,
        }
    }

    /// Name of the history that the database holds: positions of another one mean nothing here.
    pub(crate) fn epoch(&self) -> Arc<str> {
        self.store.epoch()
    }

    /// The last fork of the history since the start.
    pub(crate) fn last_fork(&self) -> Option<Fork> {
        self.store.last_fork()
    }

    /// True when no tokens are checked: anyone may connect, subscribe and publish.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Everything that is counted.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Everything that is counted now, in the Prometheus text format.
    pub(crate) fn render_metrics(&self) -> String {
        self.store.measure();
        self.metrics.render()
    }

    /// State of the database connection.
    pub(crate) fn health(&self) -> Health {
        self.store.health()
    }

    /// The outbox of a new WebSocket, whose connection `reader` serves.
    ///
    /// # Errors
    /// When the socket is already dead.
    pub(crate) fn outbox_for_socket(
        &self,
        id: ConnectionId,
        format: Format,
        socket: Arc<TcpStream>,
        reader: Option<Arc<dyn Reader>>,
    ) -> io::Result<Arc<Outbox>> {
        Outbox::for_socket(id, format, socket, self.outbox_bytes_max, self.drainer.clone(), reader)
    }

    /// The outbox of a subscriber in this process.
    pub(super) fn outbox_for_consumer(&self, consumer: Arc<dyn Reader>) -> Arc<Outbox> {
        Outbox::for_woken_consumer(
            ConnectionId::next(),
            self.outbox_bytes_max,
            self.drainer.clone(),
            consumer,
        )
    }
}
