//! A node or server that has ended leaves nothing running. Alone in its process, for it counts the threads there.

#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

#[path = "support/postgres.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod postgres;
#[path = "support/temp.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the server")]
mod temp;

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use diesel::Connection as _;
use roomcast::{Channel, Config, Ended, Message, Node, Payload, PublishInError, Server};

use temp::{PATIENCE, TempDir};

/// The names of the threads of this process.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    let mut names: Vec<_> = tasks.filter_map(name).collect();
    names.sort();
    names
}

/// Uses a node in all ways that start something.
fn use_node(node: &Node, url: &str) {
    let room: Channel = "room".parse().unwrap();
    let head = node.subscribe(&room, None).unwrap().position();
    let listening = node.subscribe(&room, None).unwrap().for_each(|_| true).unwrap();
    node.publish(&room, "1").unwrap();
    let message = || Message::new(&room, Payload::new("2").unwrap());
    let unsent = match url.strip_prefix("sqlite:") {
        Some(file) => diesel::SqliteConnection::establish(file)
            .unwrap()
            .immediate_transaction(|c| node.publish_in(c, [message()])),
        None => {
            diesel::PgConnection::establish(url).unwrap().transaction(|c| node.publish_in(c, [message()]))
        }
    };
    let unsent: Result<_, PublishInError> = unsent;
    assert!(unsent.unwrap().pass_on());
    assert_eq!(node.history(&room, head).unwrap().len(), 2);
    drop(listening);
}

fn ten_times(what: &str, open_and_end: impl Fn()) {
    // What belongs to the process is there from the first time on.
    open_and_end();
    let (before, deadline) = (threads(), Instant::now() + PATIENCE);
    for _ in 0..10 {
        open_and_end();
    }
    // Those that wait for a server are not waited for.
    while threads().len() > before.len() {
        assert!(Instant::now() < deadline, "{what}: {:?} were {before:?}", threads());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn ten_nodes_and_servers_leave_no_thread() {
    let folder = TempDir::new();
    let urls = [format!("sqlite:{}", folder.0.join("chat.db").display()), postgres::shared().database()];
    for url in &urls {
        let mut config = Config::default();
        config.database.url = url.parse().unwrap();
        config.namespaces.default = {
            let mut forgetful = (*config.namespaces.default).clone();
            forgetful.history_size = 1_000;
            forgetful.into()
        };
        config.listen = "127.0.0.1:0".parse().unwrap();
        ten_times("stopped nodes", || {
            let node = Node::open(&config).unwrap();
            use_node(&node, url);
            node.stop();
        });
        ten_times("dropped nodes", || use_node(&Node::open(&config).unwrap(), url));
        ten_times("dropped servers", || {
            let server = Server::start(config.clone()).unwrap();
            let _client = TcpStream::connect(server.local_addr()).unwrap();
            use_node(server.node(), url);
        });
    }
    // A subscription outlives its node without keeping anything running.
    let mut config = Config::default();
    config.database.url = urls[0].parse().unwrap();
    let node = Node::open(&config).unwrap();
    let mut subscription = node.subscribe(&"room".parse().unwrap(), None).unwrap();
    drop(node);
    assert_eq!(subscription.recv().unwrap_err(), Ended::Stopped);
}
