//! What the threads of a run share: the clock, the phase, and counts for the progress bar.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    /// Connections are being made.
    Ramp,
    /// Publishers publish.
    Run,
    /// Publishers send what was due before, and stop; what is under way arrives.
    Drain,
    /// Threads return what they counted.
    Stop,
}

/// How far a reconnect storm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storm {
    /// There is none, or not yet.
    NotStarted,
    /// The listeners are cut off.
    Disconnected,
    /// They come back.
    Returning,
}

/// State of a run that all of its threads read and write, without locks.
#[derive(Debug)]
pub(crate) struct Control {
    started: Instant,
    phase: AtomicU8,
    storm: AtomicU8,
    /// Connections that may have been begun so far.
    pub(crate) allowed: AtomicUsize,
    /// Connections that are subscribed or may publish.
    pub(crate) ready: AtomicUsize,
    pub(crate) broken: AtomicUsize,
    /// Threads that have still to send something that was due.
    pub(crate) publishing: AtomicUsize,
    run_from_ns: AtomicU64,
    measure_from_ns: AtomicU64,
    measure_until_ns: AtomicU64,
    /// Publishes sent and not answered yet.
    pub(crate) under_way: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    /// Arrivals that the acknowledged publishes bring.
    pub(crate) expected: AtomicU64,
    pub(crate) arrived: AtomicU64,
}

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(0),
            storm: AtomicU8::new(0),
            allowed: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            publishing: AtomicUsize::new(0),
            run_from_ns: AtomicU64::new(0),
            measure_from_ns: AtomicU64::new(u64::MAX),
            measure_until_ns: AtomicU64::new(u64::MAX),
            under_way: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the run began.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// [`now_ns`](Self::now_ns) as it was when the system's clock showed `stamp`.
    pub(crate) fn at(&self, stamp: SystemTime) -> u64 {
        let age = SystemTime::now().duration_since(stamp).unwrap_or_default();
        self.now_ns().saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ramp,
            1 => Phase::Run,
            2 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    pub(crate) fn storm(&self) -> Storm {
        match self.storm.load(Ordering::Acquire) {
            0 => Storm::NotStarted,
            1 => Storm::Disconnected,
            _ => Storm::Returning,
        }
    }

    pub(crate) fn enter_storm(&self, storm: Storm) {
        self.storm.store(storm as u8, Ordering::Release);
    }

    /// Publishers begin now; what is due within the measured time counts.
    pub(crate) fn begin(&self, warmup: Duration, duration: Duration) {
        let now = self.now_ns();
        let from = now + warmup.as_nanos() as u64;
        self.run_from_ns.store(now, Ordering::Relaxed);
        self.measure_from_ns.store(from, Ordering::Relaxed);
        self.measure_until_ns.store(from + duration.as_nanos() as u64, Ordering::Relaxed);
        self.enter(Phase::Run);
    }

    pub(crate) fn run_from_ns(&self) -> u64 {
        self.run_from_ns.load(Ordering::Relaxed)
    }

    /// Start and end of the measured time.
    pub(crate) fn measured(&self) -> (u64, u64) {
        (self.measure_from_ns.load(Ordering::Relaxed), self.measure_until_ns.load(Ordering::Relaxed))
    }

    /// True when a message that was due then counts.
    pub(crate) fn counts(&self, due_ns: u64) -> bool {
        let (from, until) = self.measured();
        (from..until).contains(&due_ns)
    }

    /// True when nothing is under way any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.publishing.load(Ordering::Acquire) == 0
            && self.under_way.load(Ordering::Acquire) == 0
            && self.arrived.load(Ordering::Acquire) >= self.expected.load(Ordering::Acquire)
    }
}
