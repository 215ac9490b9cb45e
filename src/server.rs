//! The whole server: a node with sockets in front of it.
//!
//! Stop order: let the rooms send what was committed, accept no
//! more, tell every client, let the connections flush and end, then stop the node.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::net::{Acceptor, Capacity, Router};
use crate::node::{Node, StartError};

/// A running server. Dropping it stops it, as [`stop`](Server::stop) does.
#[derive(Debug)]
pub struct Server {
    node: Node,
    /// There until it stops.
    acceptor: Option<Acceptor>,
    address: SocketAddr,
    capacity: Capacity,
    grace: Duration,
}

impl Server {
    /// Starts everything; when it returns, clients can connect.
    ///
    /// # Errors
    /// [`StartError`] says what is missing, or which rules the configuration breaks.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let config = config.check()?.config;
        let capacity = Capacity::of_system().at_most(config.client.connections_max);
        let node = Node::open(&config)?;
        let router = Router::new(&config, node.handle().clone());
        match Acceptor::start(&config, capacity.connections, router, node.metrics().clone()) {
            Ok(acceptor) => {
                let (address, acceptor) = (acceptor.address(), Some(acceptor));
                Ok(Self { node, acceptor, address, capacity, grace: config.shutdown_grace })
            }
            Err(error) => {
                node.stop();
                Err(StartError::Listen(at_address(&error, config.listen)))
            }
        }
    }

    /// The address it listens on; with the port the system chose if port 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Most connections at a time: the configured limit, or what the limits of the system allow.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The node inside, to publish and subscribe from this process.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Accepts no more, sends every connection what is queued for it and then close code 3001, within
    /// the grace period, and stops.
    pub fn stop(self) {
        drop(self);
    }
}

/// The node stops when it is dropped after that.
impl Drop for Server {
    fn drop(&mut self) {
        let deadline = Instant::now() + self.grace;
        self.node.flush(deadline);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.stop(deadline);
        }
    }
}

/// The message for an address that cannot be listened on, with advice.
fn at_address(error: &io::Error, address: SocketAddr) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program is using the port: stop it or choose another port with --listen"
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need special privileges: choose another port with --listen"
        }
        _ => "",
    };
    format!("cannot listen on {address}: {error}{advice}")
}
