//! No peer owns our time: whatever it sends, holds back or does not read, it costs no thread, and its place and
//! memory are given back by a deadline.

mod database;
mod drip;
mod flood;
mod pings;

use std::time::Duration;

use crate::crowd::{Peer, Watch};
use crate::support::eventually;
use crate::support::server::TestServer;
use crate::swarm::resident_bytes;

const MIB: u64 = 1024 * 1024;

/// Threads that may come in addition to those of a server at rest.
const MORE_THREADS: u64 = 20;

/// Time that is allowed beside the deadlines in any case.
const MARGIN: Duration = Duration::from_secs(1);

/// Steps one after the other, each of which may wait for its processor, from the first byte to the last socket that is
/// given back: accepted, read, a deadline, a turn, another deadline, a turn, a look at the count.
const STEPS: u32 = 8;

/// An attack was over within its deadlines. What a machine with other things to do adds is measured: the longest wait of
/// the same run for a turn of the crowd, a sleep, or an answer of the server.
#[track_caller]
fn expect_within(bound: Duration, took: Duration, longest_wait: Duration) {
    let allowed = bound + MARGIN + longest_wait * STEPS;
    eprintln!(
        "readers, deadline: bound={:.1} took={:.1} allowed={:.1}",
        bound.as_secs_f64(),
        took.as_secs_f64(),
        allowed.as_secs_f64()
    );
    assert!(took < allowed, "{took:?} with deadlines of {bound:?}; {allowed:?} were allowed");
}

/// A server, what it had at rest, and what it had at most.
struct Siege {
    server: TestServer,
    base_threads: u64,
    base_bytes: u64,
    watch: Watch,
}

impl Siege {
    fn of(server: TestServer) -> Self {
        let watch = Watch::new(&server);
        eventually("the watch has begun", || watch.threads() > 0);
        let (base_threads, base_bytes) = (watch.threads(), resident_bytes(&server));
        Self { server, base_threads, base_bytes, watch }
    }

    fn with(extras: &str) -> Self {
        Self::of(TestServer::with(extras))
    }

    /// Tells the figures of an attack by so many; it had few threads and no more memory than `more_bytes`.
    #[track_caller]
    fn judge(&self, attack: &str, count: usize, took: Duration, more_bytes: u64) {
        let threads = self.watch.threads() - self.base_threads;
        let bytes = self.watch.resident_bytes() - self.base_bytes;
        eprintln!(
            "readers, {attack}: peers={count} seconds={:.1} more_threads={threads} more_rss_mib={:.1}",
            took.as_secs_f64(),
            bytes as f64 / MIB as f64,
        );
        assert!(threads <= MORE_THREADS, "{threads} more threads");
        assert!(bytes <= more_bytes, "{} MiB more, {} allowed", bytes / MIB, more_bytes / MIB);
    }
}

fn connect(_: usize) -> String {
    r#"{"id":1,"connect":{"data":{"user":"many"}}}"#.to_owned()
}

#[track_caller]
fn expect_closed(peers: &mut [Peer], code: u16) {
    for peer in peers {
        peer.take_frames(|_| {});
        assert_eq!(peer.closed, Some(code));
    }
}

#[track_caller]
fn expect_only_the_asker(server: &TestServer) {
    eventually("every place is given back", || server.metric("sockets") == 1);
}
