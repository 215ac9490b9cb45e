//! Roomcast inside another program: the same promises without a socket.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use roomcast::config::DatabaseUrl;
use roomcast::{Channel, Config, Ended, Node, PublishError, Seq, SubscribeError, Subscription};

/// Longest wait for anything; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("roomcast-library-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.database.url = DatabaseUrl::Sqlite(self.0.join("chat.db"));
        config
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn lobby() -> Channel {
    "lobby".parse().unwrap()
}

/// Receives up to `last` and checks that no seq is missing, repeated or out of order.
fn hear_until(subscription: &mut Subscription, last: Seq) {
    while subscription.position() < last {
        let expected = subscription.position() + 1;
        let publication = subscription.recv_timeout(DEADLINE).unwrap();
        assert_eq!(publication.seq, expected);
        assert_eq!(&*publication.data, format!(r#"{{"n":{expected}}}"#));
    }
}

fn publish(node: &Node, count: u64) {
    let head = node.subscribe(&lobby(), None).unwrap().position();
    for number in head + 1..=head + count {
        assert_eq!(node.publish(&lobby(), &format!(r#"{{"n": {number}}}"#)), Ok(number));
    }
}

#[test]
fn subscribers_hear_everything_in_order_whenever_they_came() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    let mut early = node.subscribe(&lobby(), None).unwrap();
    publish(&node, 700);
    let mut late = node.subscribe(&lobby(), Some(3)).unwrap();
    let mut last = node.subscribe(&lobby(), None).unwrap();
    assert_eq!(last.position(), 700);
    publish(&node, 10);
    for subscription in [&mut early, &mut late, &mut last] {
        hear_until(subscription, 710);
    }
    node.stop();
}

#[test]
fn a_subscriber_that_is_slow_is_served_from_the_database() {
    let folder = Folder::new();
    let mut config = folder.config();
    config.client.outbox_bytes_max = 2_000;
    let node = Node::open(&config).unwrap();
    let mut slow = node.subscribe(&lobby(), None).unwrap();
    publish(&node, 1_000);
    assert!(node.metrics().catch_ups_total.get() > 0, "its budget was not used up");
    hear_until(&mut slow, 1_000);
    publish(&node, 1);
    hear_until(&mut slow, 1_001);
    node.stop();
}

#[test]
fn positions_hold_over_a_restart() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    let epoch = node.epoch().to_owned();
    publish(&node, 5);
    node.stop();

    let node = Node::open(&folder.config()).unwrap();
    assert_eq!(node.epoch(), epoch);
    let mut subscription = node.subscribe(&lobby(), Some(2)).unwrap();
    publish(&node, 1);
    hear_until(&mut subscription, 6);
    node.stop();
}

#[test]
fn a_callback_runs_until_it_returns_false() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    let (sender, seqs) = mpsc::channel();
    let subscription = node.subscribe(&lobby(), None).unwrap();
    let thread = subscription
        .for_each(move |publication| {
            sender.send(publication.seq).unwrap();
            publication.seq < 3
        })
        .unwrap();
    publish(&node, 5);
    assert_eq!(thread.join().unwrap(), None);
    assert_eq!(seqs.iter().collect::<Vec<_>>(), [1, 2, 3]);
    node.stop();
}

#[test]
fn a_stopped_node_ends_its_subscriptions() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    let subscription = node.subscribe(&lobby(), None).unwrap();
    publish(&node, 2);
    let (sender, seqs) = mpsc::channel();
    let thread = subscription.for_each(move |publication| sender.send(publication.seq).is_ok()).unwrap();
    node.stop();
    assert_eq!(thread.join().unwrap(), Some(Ended::Stopped));
    assert_eq!(seqs.iter().collect::<Vec<_>>(), [1, 2], "what was published before the stop is heard");
}

#[test]
fn refused_operations_return_their_errors() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    let unknown: Channel = "nobody:home".parse().unwrap();
    assert_eq!(node.publish(&unknown, "1"), Err(PublishError::UnknownNamespace));
    assert_eq!(node.subscribe(&unknown, None).unwrap_err(), SubscribeError::UnknownNamespace);
    assert!(matches!(node.publish(&lobby(), "{"), Err(PublishError::Json(_))));
    let large = format!(r#""{}""#, "x".repeat(64 * 1024));
    assert_eq!(node.publish(&lobby(), &large), Err(PublishError::TooLarge));
    assert_eq!(node.subscribe(&lobby(), Some(1)).unwrap_err(), SubscribeError::Unrecoverable);
    assert_eq!(node.publish_once(&lobby(), "1", Some("key")), Ok(1));
    assert_eq!(node.publish_once(&lobby(), "1", Some("key")), Ok(1));
    node.stop();
}

#[test]
fn many_publishers_and_subscribers_at_once() {
    let folder = Folder::new();
    let node = Node::open(&folder.config()).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut subscription = node.subscribe(&lobby(), Some(0)).unwrap();
                while subscription.position() < 400 {
                    let expected = subscription.position() + 1;
                    assert_eq!(subscription.recv_timeout(DEADLINE).unwrap().seq, expected);
                }
            });
            scope.spawn(|| {
                for _ in 0..100 {
                    node.publish(&lobby(), "1").unwrap();
                }
            });
        }
    });
    node.stop();
}
