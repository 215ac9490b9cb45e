//! The key that callers of the server API show.

use crate::config::{Config, Mode, Secret};
use crate::net::http::Head;

/// Decides which requests may use the API.
#[derive(Debug)]
pub(in crate::net) struct ApiKey {
    key: Option<Secret>,
    /// Without a key, the API is for the open mode only.
    is_open: bool,
}

impl ApiKey {
    pub(in crate::net) fn new(config: &Config) -> Self {
        Self { key: config.api.key.clone(), is_open: config.mode() == Mode::Open }
    }

    /// True when there is a key, so that who may use the API has shown it.
    pub(in crate::net) fn is_set(&self) -> bool {
        self.key.is_some()
    }

    /// The key that a request carries in any of the three places it may stand.
    pub(super) fn shown_by(&self, head: &Head) -> Shown {
        let Some(key) = &self.key else {
            return if self.is_open { Shown::Unneeded } else { Shown::Nothing };
        };
        let bearer = head.header("authorization").and_then(|value| value.strip_prefix("apikey "));
        let given = head.header("x-api-key").or(bearer).or_else(|| head.query_value("api_key"));
        match given.map(|given| same_text(given.as_bytes(), key.expose().as_bytes())) {
            Some(true) => Shown::Right,
            Some(false) => Shown::Wrong,
            None => Shown::Nothing,
        }
    }
}

/// The key that a request shows to use the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing is needed.
    Unneeded,
    Right,
    Wrong,
    /// No key, or there is none that could be right.
    Nothing,
}

/// Compares in a time that does not depend on where the first difference is.
fn same_text(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |found, (left, right)| found | (left ^ right));
    left.len() == right.len() && differences == 0
}
