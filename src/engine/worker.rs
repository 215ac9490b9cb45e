//! The fixed pool of broadcast workers: one thread for each shard.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::command::Command;
use super::shard::{Shard, Shards, Wait};

/// Starts one worker a shard.
pub(super) fn start(shards: &Shards) -> io::Result<Vec<JoinHandle<()>>> {
    let spawn = |(number, shard): (usize, &Arc<Shard>)| {
        let shard = shard.clone();
        thread::Builder::new().name(format!("worker-{number}")).spawn(move || run(&shard))
    };
    shards.iter().enumerate().map(spawn).collect()
}

/// Tells every worker to end once it has served what is queued, and waits for that.
pub(super) fn stop(shards: &Shards, workers: Vec<JoinHandle<()>>) {
    for shard in shards.iter() {
        shard.send(Command::Stop);
    }
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a worker had panicked");
        }
    }
    shards.iter().for_each(|shard| shard.retire());
}

/// The life of a worker.
pub(super) fn run(shard: &Shard) {
    loop {
        match shard.turn() {
            Wait::Stop => return,
            wait => shard.sleep(wait),
        }
    }
}
