//! The two threads of a store that wait for nobody else: one answers callers that have waited too long, the other
//! tries the database while it is down, or while nobody uses it, and settles what it left undone.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::clock;
use crate::store::health::{Monitor, Side};
use crate::store::lane::Lanes;
use crate::store::lineage::Lineage;
use crate::store::readers::Readers;

/// Pause between two looks at who has waited too long.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Pause between two trials of a database that is down.
const TRY_EVERY: Duration = Duration::from_millis(500);

/// Time without an operation after which the database is asked whether it is still there.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks at whether it holds what it held. An older state that is put back need not break a
/// connection.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// The threads; dropping it ends them.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Option<Sender<()>>,
    /// Waited for at the end; the one that may hang in a server that does is not.
    threads: Vec<JoinHandle<()>>,
}

/// The parts of a store that are watched.
pub(super) struct Probe {
    pub(super) lanes: Arc<Lanes>,
    pub(super) readers: Arc<Readers>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) lineage: Arc<Lineage>,
}

impl Watch {
    pub(super) fn start(probe: Probe, is_sqlite: bool) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (lanes, monitor, stopped_too) = (probe.lanes.clone(), probe.monitor.clone(), stopped.clone());
        let look = move || {
            while goes_on(&stopped_too, LOOK_EVERY) {
                lanes.answer_overdue();
                monitor.look_for_hanging();
            }
        };
        let probe = move || {
            let mut compared_at = Instant::now();
            while goes_on(&stopped, TRY_EVERY) {
                probe.run(&mut compared_at);
            }
        };
        let looking = thread::Builder::new().name("store-watch".into()).spawn(look)?;
        let probing = thread::Builder::new().name("store-probe".into()).spawn(probe)?;
        let threads = if is_sqlite { vec![looking, probing] } else { vec![looking] };
        Ok(Self { stop: Some(stop), threads })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        // The last one to hold the store may be the sink that a probe has just told something.
        let own = thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            if thread.join().is_err() {
                tracing::error!("a thread that watches the store panicked");
            }
        }
    }
}

/// Waits; false when the store is closed meanwhile.
fn goes_on(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout)
}

impl Probe {
    /// Settles what is in doubt, tries what is down, asks what is idle, and writes the mark of a SQLite file after the last
    /// message. The monitor sees the outcomes, and the lineage a fork.
    fn run(&self, compared_at: &mut Instant) {
        self.lineage.write_due_mark();
        self.lanes.resolve_doubts(|| self.lineage.sink());
        let is_due = |side| self.monitor.is_down(side) || self.monitor.idle(side) >= IDLE_MAX;
        self.lanes.probe(is_due);
        let is_down = self.monitor.is_down(Side::Reads);
        // What follows asks few tables, and must not be the success that ends an outage of others.
        if is_down && self.readers.try_reading().is_err() {
            return self.try_changes();
        }
        if is_down || compared_at.elapsed() >= COMPARE_EVERY {
            let _ = self.readers.compare_history(&self.lineage);
            *compared_at = Instant::now();
        }
        self.try_changes();
    }

    fn try_changes(&self) {
        if self.monitor.is_down(Side::Changes) {
            let _ = self.readers.try_writing(clock::unix_ms());
        }
    }
}
