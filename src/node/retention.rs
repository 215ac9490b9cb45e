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
            tracing::error!("the retention thread panicked");
        }
    }
}

fn run(store: &Store, namespaces: &Namespaces, stopped: &Receiver<()>) {
    let rule = |channel: &Channel| rule_of(namespaces, channel);
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

/// The messages of a room that its namespace keeps. Rooms of a namespace that is no longer configured
/// keep what they have.
fn rule_of(namespaces: &Namespaces, channel: &Channel) -> Retention {
    namespaces.get(channel.namespace()).map_or(Retention::default(), |namespace| namespace.retention())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::rig::{Backend, Rig, channel};

    #[test]
    fn a_room_is_pruned_by_its_own_namespace_only() {
        let rig = Rig::new(Backend::Sqlite, "[namespace.short]\nhistory_size = 2\n");
        let rule = |name: &str| rule_of(&rig.config.namespaces, &channel(name));
        assert_eq!(rule("short:a").size, 2);
        assert!(rule("lobby").keeps_all());
        assert!(rule("removed:a").keeps_all(), "an operator who forgets a section loses nothing");
    }

    #[test]
    fn a_thread_runs_only_where_something_is_forgotten() {
        for (settings, runs) in [("", false), ("[namespace.a]\nhistory_ttl = '1h'\n", true)] {
            let rig = Rig::new(Backend::Sqlite, settings);
            let pruner = Pruner::start(rig.handle().store.clone(), &rig.config.namespaces).unwrap();
            assert_eq!(pruner.thread.is_some(), runs, "{settings}");
            pruner.stop();
        }
    }
}
