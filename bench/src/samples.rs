//! What the server and the load generator used at moments of a run, and what lies between two of them.

use std::time::{Duration, Instant};

use crate::process::Usage;
use crate::report::{Second, ServerReport, StormReport};

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    /// `None` when it is not looked at, or has ended.
    pub(crate) server: Option<Usage>,
    pub(crate) own: Usage,
}

impl Sample {
    /// What the processes of the server, if there is one to look at, and this one have used so far. Without the
    /// server's part when it has ended: that it has is told by its connections.
    pub(crate) fn take(server: Option<u32>) -> Self {
        let server = server.and_then(|pid| Usage::of_tree(pid).ok());
        Self { at: Instant::now(), server, own: Usage::own().unwrap_or_default() }
    }
}

/// What was seen from outside the threads in the course of a run.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Time until every connection was ready.
    pub(crate) ramp: Duration,
    /// After that, before the first message.
    pub(crate) connected: Sample,
    /// At the start and the end of the measured time.
    pub(crate) first: Sample,
    pub(crate) last: Sample,
    pub(crate) timeline: Vec<Second>,
    pub(crate) storm: Option<StormReport>,
}

impl Measured {
    /// What the server used; `before` is from before the first connection.
    pub(crate) fn server(
        &self,
        before: &Sample,
        connections: usize,
        published: u64,
        delivered: u64,
    ) -> Option<ServerReport> {
        let (before, connected) = (before.server?, self.connected.server?);
        let (first, last) = (self.first.server?, self.last.server?);
        let cpu = last.cpu.saturating_sub(first.cpu).as_secs_f64();
        let each = |count: u64| (count > 0).then(|| cpu * 1e6 / count as f64);
        let share = |more: u64, than: u64| more.saturating_sub(than) as f64 / connections.max(1) as f64;
        Some(ServerReport {
            cpu: cpu / (self.last.at - self.first.at).as_secs_f64(),
            cpu_us_per_delivery: each(delivered),
            cpu_us_per_publish: each(published),
            resident: connected.resident,
            resident_at_end: last.resident,
            resident_per_connection: share(connected.resident, before.resident),
            threads_per_connection: share(connected.threads, before.threads),
        })
    }
}
