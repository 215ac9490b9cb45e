//! The threads of an engine: one worker a shard, and the catch-up pool. (Those of large fan-outs belong to the
//! process, see `delivery/parallel.rs`.)

use std::io;
use std::thread::{self, JoinHandle};

use super::catch_up::pool::Pool;
use super::command::Command;
use super::mailboxes::Mailboxes;
use super::shard::Shard;
use crate::sync::Arc;

/// The running threads of an engine. Dropped without [`stop`](Self::stop) they go on.
#[derive(Debug)]
pub(super) struct Threads {
    workers: Vec<JoinHandle<()>>,
    pool: Pool,
}

impl Threads {
    /// Starts one worker a shard, beside the pool that runs already.
    pub(super) fn start(shards: &[Arc<Shard>], pool: Pool) -> io::Result<Self> {
        let spawn = |(number, shard): (usize, &Arc<Shard>)| {
            let shard = shard.clone();
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || shard.run())
        };
        let workers = shards.iter().enumerate().map(spawn).collect::<io::Result<_>>()?;
        Ok(Self { workers, pool })
    }

    /// Tells every worker to end once it has served what is queued, waits for that, then ends the pool.
    pub(super) fn stop(self, mailboxes: &Mailboxes) {
        mailboxes.iter().for_each(|mailbox| mailbox.send(Command::Stop));
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
        mailboxes.iter().for_each(|mailbox| mailbox.close());
        self.pool.stop();
    }
}
