//! A connection to a server, kept by a thread of its own: who waits for an answer can stop waiting, which the
//! client library of PostgreSQL cannot.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Sender, bounded};

use crate::store::connection::Connection;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// The caller's end. The thread ends, and the connection with it, when this is dropped and the work is done.
pub(super) struct Remote {
    work: Sender<Work>,
    /// Nobody waits for what the thread is at.
    is_abandoned: Arc<AtomicBool>,
    /// Number of threads that somebody has stopped waiting for.
    hanging: Arc<AtomicUsize>,
}

impl Remote {
    /// Starts the thread.
    pub(super) fn new(mut connection: Connection, hanging: Arc<AtomicUsize>) -> io::Result<Self> {
        let (work, given) = bounded::<Work>(1);
        let is_abandoned = Arc::new(AtomicBool::new(false));
        let ending = Ending { is_abandoned: is_abandoned.clone(), hanging: hanging.clone() };
        let run = move || {
            let _ending = ending;
            given.iter().for_each(|work| work(&mut connection));
        };
        thread::Builder::new().name("store-read".into()).spawn(run)?;
        Ok(Self { work, is_abandoned, hanging })
    }

    /// Has the thread do the work, and waits for it until `answer_by`. `None`, and no connection any more, when it is
    /// not done by then, or panicked.
    pub(super) fn run<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
        answer_by: Instant,
    ) -> (Option<Self>, Option<T>) {
        let (answer, answered) = bounded(1);
        let work: Work = Box::new(move |connection| {
            // Nobody may be waiting any more.
            let _ = answer.send(work(connection));
        });
        if self.work.send(work).is_err() {
            return (None, None);
        }
        match answered.recv_deadline(answer_by) {
            Ok(done) => (Some(self), Some(done)),
            Err(_) => {
                self.hanging.fetch_add(1, Ordering::AcqRel);
                self.is_abandoned.store(true, Ordering::Release);
                (None, None)
            }
        }
    }
}

/// The end of a thread, whatever ends it.
struct Ending {
    is_abandoned: Arc<AtomicBool>,
    hanging: Arc<AtomicUsize>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.is_abandoned.load(Ordering::Acquire) {
            self.hanging.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
