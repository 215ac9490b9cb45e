//! SIGTERM and Ctrl-C: the first asks for an end, a second one ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::failure::Failure;

/// To wait for the first.
pub(super) struct StopSignals(Signals);

impl StopSignals {
    pub(super) fn listen() -> Result<Self, Failure> {
        stop_flag()?;
        Signals::new([SIGINT, SIGTERM]).map(Self).map_err(failed)
    }

    pub(super) fn wait(mut self) {
        self.0.forever().next();
    }
}

/// To look whether the first has come.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it, the second finds it set.
        flag::register_conditional_shutdown(signal, 1, stopping.clone()).map_err(failed)?;
        flag::register(signal, stopping.clone()).map_err(failed)?;
    }
    Ok(stopping)
}

fn failed(error: io::Error) -> Failure {
    Failure::new(format!("cannot listen for signals: {error}"))
}
