//! Removes what namespaces no longer keep, in small steps beside the traffic.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::{Namespace, Namespaces};
use crate::publication::Retention;
use crate::store::Store;

/// Time between two rounds over the namespaces. What retention hides is unreadable at once; the
/// round only gives the space back.
const ROUND_EVERY: Duration = Duration::from_secs(30);

/// Pause between two steps of one round, so that commits come in between.
const STEP_PAUSE: Duration = Duration::from_millis(20);

/// The thread.
#[derive(Debug)]
pub(super) struct Pruner {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Pruner {
    /// Starts the thread if any namespace forgets anything.
    pub(super) fn start(store: Arc<Store>, namespaces: &Namespaces) -> io::Result<Self> {
        let limited = |namespace: &&Arc<Namespace>| {
            namespace.persist && (namespace.history_size > 0 || namespace.history_ttl.is_some())
        };
        let namespaces: Vec<_> = namespaces.iter().filter(limited).cloned().collect();
        let (stop, stopped) = bounded(0);
        let thread = match namespaces.is_empty() {
            true => None,
            false => {
                let spawn = move || run(&store, &namespaces, &stopped);
                Some(thread::Builder::new().name("retention".into()).spawn(spawn)?)
            }
        };
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        drop(self.stop);
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the retention thread had panicked");
        }
    }
}

fn run(store: &Store, namespaces: &[Arc<Namespace>], stopped: &Receiver<()>) {
    let is_over = |pause| stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected);
    loop {
        for namespace in namespaces {
            let retention = Retention { size: namespace.history_size, ttl: namespace.history_ttl };
            loop {
                match store.prune(&namespace.name, retention) {
                    Ok(0) => break,
                    Ok(_) if is_over(STEP_PAUSE) => return,
                    Ok(_) => {}
                    // The store has said why; the next round tries again.
                    Err(_) => break,
                }
            }
        }
        if is_over(ROUND_EVERY) {
            return;
        }
    }
}
