//! A node on a database of its own, and short words for what is asked of it.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::config::{Config, DatabaseUrl};
use crate::engine::{Answer, Extra, Joined};
use crate::ids::Channel;
use crate::node::subscribe::SubscribeRight;
use crate::node::subscription::Signal;
use crate::node::{Caller, Client, Draft, Node, NodeHandle, Position, SubscribeError, SubscribeOptions};
use crate::outbox::Outbox;
use crate::protocol::code::ErrorCode;

#[path = "../../../tests/support/postgres.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared with other tests")]
mod postgres;
#[path = "../../../tests/support/temp.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared with other tests")]
mod temp;

/// Settings with which clients have to prove who they are.
pub(crate) const SECURED: &str = "[client]\ntoken_hmac_secret = '0123456789abcdef0123456789abcdef'\n";

/// Longest wait for an answer; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// The database of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// A node on a database of its own, which goes with it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) config: Config,
    node: Option<Node>,
    _folder: temp::TempDir,
}

impl Rig {
    pub(crate) fn new(backend: Backend, settings: &str) -> Self {
        let folder = temp::TempDir::new();
        let mut config = Config::from_toml("test.toml", settings).unwrap().config;
        config.database.url = match backend {
            Backend::Sqlite => DatabaseUrl::Sqlite(folder.0.join("chat.db")),
            Backend::Postgres => postgres::shared().database().parse().unwrap(),
        };
        let node = Some(Node::open(&config).unwrap());
        Self { config, node, _folder: folder }
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub(crate) fn handle(&self) -> &Arc<NodeHandle> {
        self.node().handle()
    }

    /// An outbox whose frames a test takes.
    pub(crate) fn outbox(&self) -> Arc<Outbox> {
        self.handle().outbox_for_consumer(Signal::new().0)
    }

    /// A connected client.
    pub(crate) fn client(&self, user: &str) -> Client {
        self.handle().connect(self.outbox(), user.into(), None)
    }

    /// Publishes as the operator; the seqs.
    pub(crate) fn publish(&self, name: &str, count: u64) {
        for number in 1..=count {
            self.node().publish(&channel(name), &number.to_string()).unwrap();
        }
    }

    /// Subscribes a client to what it has a right to; waits for the answer.
    pub(crate) fn subscribe(
        &self,
        client: &Client,
        name: &str,
        position: Option<Position>,
    ) -> Result<Joined, ErrorCode> {
        let channel = channel(name);
        let (caller, _) = client.in_channel(&channel);
        let right = self.handle().check_subscribe(caller, &channel, false).map_err(SubscribeError::code)?;
        self.join(client, right, position)
    }

    /// Subscribes a client by a right it has; waits for the answer.
    pub(crate) fn join(
        &self,
        client: &Client,
        right: SubscribeRight,
        position: Option<Position>,
    ) -> Result<Joined, ErrorCode> {
        let (sender, answers) = bounded(1);
        let answer = Answer::Collect(sender);
        let extra = Extra::default();
        let how = SubscribeOptions { chan_info: None, position, extra, answer, server_side: false };
        self.handle().subscribe(client, right, how).map_err(SubscribeError::code)?;
        answers.recv_timeout(PATIENCE).unwrap().1
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.stop();
        }
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

/// A message for a room, of nobody.
pub(crate) fn draft(name: &str, data: &str) -> Draft {
    let channel = channel(name);
    Draft { channel, data: data.into(), info: None, tags: None, key: None, skip_history: false }
}

/// A client that listens to the room it asks about.
pub(crate) fn subscriber(user: &str) -> Caller<'_> {
    Caller::Client { user, subscribed: true }
}

/// A client that does not listen to the room it asks about.
pub(crate) fn stranger(user: &str) -> Caller<'_> {
    Caller::Client { user, subscribed: false }
}
