//! The rules for clients: limits, time-outs and how tokens are verified.

use std::time::Duration;

use super::bucket::Rate;
use super::rates::Rates;
use crate::auth::Verifier;
use crate::config::{self, Config};
use crate::limits::REFUSALS_PER_SECOND_MAX;

/// Rules of every connection and session.
#[derive(Debug)]
pub(crate) struct ClientRules {
    /// The section of the configuration.
    pub(super) client: config::Client,
    /// Checks tokens; `None` when no secret is configured.
    pub(super) verifier: Option<Verifier>,
    /// Time an outbox has to flush when its connection is closed.
    pub(super) flush_grace: Duration,
    /// Limits over all connections.
    pub(super) rates: Rates,
    /// Commands of one connection.
    pub(super) commands: Rate,
    /// Refusals for haste that one connection may meet.
    pub(super) refusals: Rate,
}

impl ClientRules {
    /// The rules that a configuration sets.
    pub(crate) fn new(config: &Config) -> Self {
        let client = config.client.clone();
        let verifier = client.token_hmac_secret.as_ref().map(|secret| {
            Verifier::new(secret.expose(), client.token_audience.clone(), client.token_issuer.clone())
        });
        let second = Duration::from_secs(1);
        Self {
            commands: Rate::new(client.commands_per_second_max.into(), second, second),
            refusals: Rate::new(REFUSALS_PER_SECOND_MAX, second, 2 * second),
            rates: Rates::new(config),
            client,
            verifier,
            flush_grace: config.shutdown_grace,
        }
    }
}
