//! SIGTERM and Ctrl-C: the first asks for an end, a second one ends the process. SIGHUP asks as well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::failure::Failure;

/// To wait for the first.
pub(super) struct StopSignals(Signals);

impl StopSignals {
    pub(super) fn listen() -> Result<Self, Failure> {
        stop_flag()?;
        Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup())).map(Self).map_err(failed)
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
    // Never the second one: a terminal that is closed may send it twice.
    if let Some(signal) = hangup() {
        flag::register(signal, stopping.clone()).map_err(failed)?;
    }
    Ok(stopping)
}

/// SIGHUP, unless the process was started to live on without its terminal, as by `nohup`.
fn hangup() -> Option<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (!is_ignored(&status, SIGHUP)).then_some(SIGHUP)
}

/// True when the status of a process, as Linux writes it, says that it ignores a signal.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

fn failed(error: io::Error) -> Failure {
    Failure::new(format!("cannot listen for signals: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_bits() {
        let status = "Name:\troomcast\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(
            !is_ignored(status, SIGTERM) && !is_ignored("SigIgn:\tx\n", SIGHUP) && !is_ignored("", SIGHUP)
        );
    }
}
