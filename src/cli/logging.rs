//! Logging of the server: what is logged, in which form, and that it never holds the service up.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::failure::Failure;
use super::log_queue::{LogLine, LogQueue, StandardError};
use crate::config::Log;
use crate::sync::Arc;

/// Time that the last lines have to be written when the program ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Logging that was started. Writes the last lines when dropped.
#[derive(Debug)]
pub(super) struct Logging(Arc<LogQueue>);

impl Logging {
    /// Sends logs to standard error, where they do not mix with results. Panics become log lines too.
    ///
    /// # Errors
    /// When the filter cannot be read, or there is a logger already.
    pub(super) fn start(log: &Log) -> Result<Self, Failure> {
        let filter = EnvFilter::try_new(&log.filter).map_err(|error| {
            Failure::new(format!("the log filter {:?} is not valid: {error}", log.filter))
        })?;
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("logging cannot start: {error}"));
        let queue = Arc::new(LogQueue::default());
        let (sink, writer) = (StandardError::open().map_err(|error| failed(&error))?, queue.clone());
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write_to(sink)).map_err(|error| failed(&error))?;
        let lines = lines(log, queue.clone());
        let logger = tracing_subscriber::registry().with(lines).with(filter_fn(may_be_logged)).with(filter);
        logger.try_init().map_err(|error| failed(&error))?;
        std::panic::set_hook(Box::new(log_panic));
        Ok(Self(queue))
    }

    /// Counts there what is lost, and what was lost already.
    pub(super) fn count_losses(&self, counter: &IntCounter) {
        self.0.count_in(counter);
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.0.flush(LAST_LINES);
    }
}

fn lines(log: &Log, queue: Arc<LogQueue>) -> Box<dyn Layer<Registry> + Send + Sync> {
    let line = move || LogLine(queue.clone());
    let lines = fmt::layer().log_internal_errors(false).with_writer(line);
    if log.json { lines.json().boxed() } else { lines.with_ansi(std::io::stderr().is_terminal()).boxed() }
}

/// What the code of others says below `info` is no log of this server: the WebSocket library would print each
/// message, and with it tokens.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_ours = target == "roomcast" || target.starts_with("roomcast::");
    is_ours || *metadata.level() <= Level::INFO
}

/// Logs a panic, where the hook of the standard library would write to standard error and wait for it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let reason = panic.payload_as_str().unwrap_or("no text");
    match panic.location() {
        Some(location) => tracing::error!("thread '{name}' panicked at {location}: {reason}"),
        None => tracing::error!("thread '{name}' panicked: {reason}"),
    }
}
