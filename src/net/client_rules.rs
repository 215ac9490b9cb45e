//! The rules for clients: limits, time-outs and how tokens are verified.

use std::time::Duration;

use crate::auth::Verifier;
use crate::config::{self, Config};

/// Rules of every connection and session.
#[derive(Debug)]
pub(crate) struct ClientRules {
    /// The section of the configuration.
    pub(super) client: config::Client,
    /// Checks tokens; `None` when no secret is configured.
    pub(super) verifier: Option<Verifier>,
    /// Time an outbox has to flush when its connection is closed.
    pub(super) flush_grace: Duration,
}

impl ClientRules {
    /// The rules that a configuration sets.
    pub(crate) fn new(config: &Config) -> Self {
        let client = config.client.clone();
        let verifier = client.token_hmac_secret.as_ref().map(|secret| {
            Verifier::new(secret.expose(), client.token_audience.clone(), client.token_issuer.clone())
        });
        Self { client, verifier, flush_grace: config.shutdown_grace }
    }
}
