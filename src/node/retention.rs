//! Removes what namespaces no longer keep, in small steps beside the traffic.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::config::Namespaces;
use crate::ids::Channel;
use crate::publication::Retention;
use crate::store::{PruneWalk, Pruned, Store};

/// Time between two rounds over the rooms. What retention hides is unreadable at once; the
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
        let (stop, stopped) = bounded(0);
        let forgets = namespaces.iter().any(|namespace| !namespace.retention().keeps_all());
        let thread = match forgets {
            false => None,
            true => {
                let namespaces = namespaces.clone();
                let run = move || run(&store, &namespaces, &stopped);
                Some(thread::Builder::new().name("retention".into()).spawn(run)?)
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

fn run(store: &Store, namespaces: &Namespaces, stopped: &Receiver<()>) {
    // Rooms of a namespace that is no longer configured keep what they have.
    let rule = |channel: &Channel| {
        namespaces.get(channel.namespace()).map_or(Retention::default(), |namespace| namespace.retention())
    };
    let mut walk = PruneWalk::default();
    loop {
        let pause = match store.prune(&mut walk, &rule) {
            Ok(Pruned { finished: false, .. }) => STEP_PAUSE,
            // The store has said why it failed; the next round tries again.
            Ok(Pruned { finished: true, .. }) | Err(_) => ROUND_EVERY,
        };
        if stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}
