//! The store as the log of the engine: which query answers what the engine asks. No SQL here, and no
//! state.

use std::sync::Arc;

use crate::engine::{Log, LogUnavailable};
use crate::ids::{Channel, Seq};
use crate::publication::{Publication, Retention};
use crate::store::Store;

impl Log for Store {
    fn head(&self, channel: &Channel) -> Result<Seq, LogUnavailable> {
        Self::head(self, channel).map_err(|error| LogUnavailable(error.to_string().into()))
    }

    fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        retention: Retention,
    ) -> Result<Vec<Publication>, LogUnavailable> {
        Self::page(self, channel, after, until, retention)
            .map_err(|error| LogUnavailable(error.to_string().into()))
    }

    fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, LogUnavailable> {
        Self::renew_epoch(self, epoch).map_err(|error| LogUnavailable(error.to_string().into()))
    }
}
