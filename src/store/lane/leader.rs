//! The thread of a lane, which leads for callers that sleep until they are answered.
//!
//! A commit may hang without a bound: in a server that is frozen, or waits for its standby. A caller that led
//! would hang with it; one that sleeps is answered when it has waited too long.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, unbounded};

use crate::store::message::CommitSink;
use crate::sync::{Condvar, Mutex, lock, wait};

use super::group_commit::Completion;
use super::rows::Outcome;

/// Calls the thread of a lane, which ends with the last of these. It is not waited for: it may hang.
#[derive(Clone)]
pub(super) struct Leader {
    /// Calls with the sink of the caller. Never longer than callers sleep in the lane.
    calls: Sender<Arc<dyn CommitSink>>,
}

impl Leader {
    /// Starts the thread of a lane.
    pub(super) fn start(number: usize, lead: impl Fn(&dyn CommitSink) + Send + 'static) -> io::Result<Self> {
        let (calls, called) = unbounded::<Arc<dyn CommitSink>>();
        let run = move || called.iter().for_each(|sink| lead(&*sink));
        thread::Builder::new().name(format!("commit-{number}")).spawn(run)?;
        Ok(Self { calls })
    }
}

/// A caller that sleeps and does not lead.
pub(super) struct Sleeper {
    answers: Mutex<Option<Vec<Outcome>>>,
    changed: Condvar,
    delivered: Mutex<bool>,
    leader: Leader,
    sink: Arc<dyn CommitSink>,
}

impl Sleeper {
    pub(super) fn new(leader: Leader, sink: Arc<dyn CommitSink>) -> Self {
        let (answers, delivered) = (Mutex::default(), Mutex::default());
        Self { answers, changed: Condvar::new(), delivered, leader, sink }
    }

    /// The answers, once what was committed is on its way.
    pub(super) fn wait(&self) -> Vec<Outcome> {
        let mut delivered = lock(&self.delivered);
        while !*delivered {
            delivered = wait(&self.changed, delivered);
        }
        lock(&self.answers).take().unwrap_or_default()
    }
}

impl Completion<Outcome> for Sleeper {
    fn answered(&self, answers: Vec<Outcome>) {
        *lock(&self.answers) = Some(answers);
    }

    fn delivered(&self) {
        *lock(&self.delivered) = true;
        self.changed.notify_one();
    }

    fn appointed(&self) {
        // The thread ends only when nobody can call it.
        let _ = self.leader.calls.send(self.sink.clone());
    }

    fn leads_at_once(&self) -> bool {
        true
    }
}
