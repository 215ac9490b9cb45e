//! The dependencies that all rooms of an engine share. Plain references; no state of a room.

use std::sync::Arc;

use super::catch_up::pool::CatchUp;
use crate::config::{self, Namespace, Namespaces};
use crate::ids::Channel;
use crate::metrics::Metrics;

/// The dependencies handed to every room of an engine.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) namespaces: Namespaces,
    pub(super) rooms: config::Rooms,
    pub(super) metrics: Arc<Metrics>,
    pub(super) catch_up: CatchUp,
}

impl Context {
    /// Counts how a client that came back was served: `tail`, `log` or `failed`.
    pub(super) fn count_recovery(&self, outcome: &str) {
        self.metrics.recoveries_total.with_label_values(&[outcome]).inc();
    }

    /// The options of a channel; those of the default namespace when its own is not configured.
    pub(super) fn options(&self, channel: &Channel) -> Arc<Namespace> {
        self.namespaces.get(channel.namespace()).unwrap_or(&self.namespaces.default).clone()
    }
}
