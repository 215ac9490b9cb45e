//! What the engine asks of the place where messages are kept.
//!
//! The engine is this trait's user and declares no more than it needs: the head of a room and a page
//! of it. Knows no store: the program around the engine brings one.

use std::fmt;
use std::sync::Arc;

use crate::ids::{Channel, Seq};
use crate::publication::{Publication, Retention};

/// The log could not be read just now; asking again later may help.
#[derive(Debug, Clone)]
pub struct LogUnavailable(pub Arc<str>);

impl fmt::Display for LogUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message log cannot be read: {}", self.0)
    }
}

impl std::error::Error for LogUnavailable {}

/// Committed messages by room and position.
pub trait Log: Send + Sync {
    /// Position of the newest committed message; 0 for a room without messages.
    ///
    /// # Errors
    /// When the log cannot be read just now.
    fn head(&self, channel: &Channel) -> Result<Seq, LogUnavailable>;

    /// Messages `after < seq <= until` in order, as many as fit one page and at least one if there
    /// is one; without those that retention hides.
    ///
    /// # Errors
    /// When the log cannot be read just now.
    fn page(
        &self,
        channel: &Channel,
        after: Seq,
        until: Seq,
        retention: Retention,
    ) -> Result<Vec<Publication>, LogUnavailable>;

    /// Gives the history a new name, because it went back behind what was committed, unless it has another one
    /// than `epoch` already. The name it has now.
    ///
    /// # Errors
    /// When the log cannot be changed just now.
    fn renew_epoch(&self, epoch: &str) -> Result<Arc<str>, LogUnavailable>;
}
