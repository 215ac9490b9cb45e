//! What every connection needs of the rest of the server, in one place to hold it by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::auth::Verifier;
use crate::config;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::outbox::DrainerHandle;
use crate::store::Store;

/// See the module.
#[derive(Debug)]
pub struct Services {
    /// Rooms and listeners.
    pub engine: Arc<Engine>,
    /// Messages and members.
    pub store: Arc<Store>,
    /// Checks tokens; `None` when no secret is configured.
    pub verifier: Option<Verifier>,
    /// Rules for clients.
    pub client: config::Client,
    /// Rules for the HTTP API.
    pub api: config::Api,
    /// How open the server is.
    pub mode: config::Mode,
    /// Where outboxes are drained.
    pub drainer: DrainerHandle,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Time an outbox has to flush when its connection is closed.
    pub flush_grace: Duration,
    /// Unique id of this process.
    pub node_id: String,
    /// Name of the machine.
    pub node_name: String,
    /// When the server started.
    pub started_at: Instant,
}

impl Services {
    /// Anyone may connect, subscribe and publish.
    pub(super) fn is_open(&self) -> bool {
        self.mode != config::Mode::Secured
    }
}
