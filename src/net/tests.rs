//! Connections from their first byte to their file being closed, served by readers of their own, without a
//! listening server.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::WebSocket;
use tungstenite::protocol::Message;

use super::connection::Connection;
use super::http::Router;
use super::peers::Peers;
use super::queries::Kind;
use super::readers::Readers;
use super::sockets::{ConnectionPermit, Sockets};
use crate::ids::Channel;
use crate::metrics::Metrics;
use crate::node::tests::rig::{Backend, Rig};

/// Longest wait; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client, and the connection that serves it.
struct Served {
    rig: Rig,
    router: Arc<Router>,
    sockets: Arc<Sockets>,
    readers: Arc<Readers<Connection>>,
    client: WebSocket<TcpStream>,
}

impl Served {
    /// A client, between which and its connection the kernel keeps little.
    fn new(settings: &str) -> Self {
        let rig = Rig::new(Backend::Sqlite, settings);
        let node = rig.handle().clone();
        let sockets = Arc::new(Sockets::default());
        let readers = Readers::start(4, node.metrics().clone()).unwrap();
        let router = Arc::new(Router::new(&rig.config, node.clone()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        let client = TcpStream::from(client);
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        SockRef::from(&socket).set_send_buffer_size(4096).unwrap();
        let peers = Peers::new(&rig.config.client, 1, node.metrics().clone());
        let peer = peers.accept(peer.ip(), Instant::now()).unwrap();
        let permit = ConnectionPermit::new(&sockets, node.metrics());
        let connection = Connection::new(socket, peer, permit, router.clone());
        readers.add(Box::new(connection), Instant::now() + PATIENCE).unwrap();
        let (client, _) = tungstenite::client("ws://localhost/connection/websocket", client).unwrap();
        Self { rig, router, sockets, readers, client }
    }

    fn say(&mut self, text: impl Into<String>) {
        self.client.send(Message::text(text.into())).unwrap();
    }

    /// Reads up to the reply to the command `id`.
    fn hear_reply(&mut self, id: usize) {
        let reply = format!("{{\"id\":{id},");
        while !self.client.read().unwrap().into_text().unwrap().lines().any(|line| line.starts_with(&reply)) {
        }
    }

    #[track_caller]
    fn eventually(&self, what: &str, done: impl Fn(&Metrics) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self.rig.handle().metrics()) {
            assert!(Instant::now() < deadline, "it never came to this: {what}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_panic_ends_its_connection_like_any_other() {
    let mut served = Served::new("");
    for command in [
        r#"{"id":1,"connect":{}}"#,
        r#"{"id":2,"subscribe":{"channel":"room"}}"#,
        "{\"id\":3,\"publish\":{\"channel\":\"room\",\"data\":1}}\n{\"id\":4,\"rpc\":{\"method\":\"test.panic\"}}",
    ] {
        served.say(command);
    }
    let close = loop {
        if let Message::Close(close) = served.client.read().unwrap() {
            break close.unwrap();
        }
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (3004, "internal server error"));
    let _ = served.client.flush();
    let Served { rig, sockets, readers, client, .. } = served;
    drop(client);
    sockets.wait_until(Instant::now() + PATIENCE);
    readers.stop();
    let (room, metrics): (Channel, _) = ("room".parse().unwrap(), rig.handle().metrics());
    assert_eq!(rig.node().presence(&room).unwrap(), [], "presence is gone");
    assert_eq!((sockets.count(), metrics.sockets.get()), (0, 0), "the file is closed");
    assert_eq!(metrics.reader_panics_total.get(), 1);
}

/// It asks, but before it is called there is more for it than it has read.
#[test]
fn who_does_not_read_stands_in_no_line() {
    const PINGS: usize = 1000;
    let client = "[client]\noutbox_bytes_max = '64KiB'\nstall_timeout = '10m'\nping_interval = '30m'\n";
    let mut served = Served::new(&format!("{client}[namespace.typing]\npersist = false\n"));
    served.say(r#"{"id":1,"connect":{}}"#);
    served.say(r#"{"id":2,"subscribe":{"channel":"typing:room"}}"#);
    served.hear_reply(2);
    let (room, data) = ("typing:room".parse().unwrap(), format!("\"{}\"", "x".repeat(4000)));
    let (deadline, mut full) = (Instant::now() + PATIENCE, 0);
    // As long as the kernel takes more, there is capacity again.
    while full < 50 {
        assert!(Instant::now() < deadline, "its outbox takes whatever comes");
        served.rig.node().publish(&room, &data).unwrap();
        thread::sleep(Duration::from_millis(1));
        let is_full = served.rig.handle().metrics().outbox_bytes.get() > 64 * 1024 - 5000;
        full = if is_full { full + 1 } else { 0 };
    }
    let read_slots = |served: &Served| -> Vec<_> {
        let queries = served.router.queries().clone();
        std::iter::from_fn(|| queries.ask_once(Kind::Read)).collect()
    };
    let slots = read_slots(&served);
    let pings = (3..3 + PINGS).map(|id| format!("{{\"id\":{id},\"ping\":{{}}}}\n"));
    let history = format!(r#"{{"id":{},"history":{{"channel":"room"}}}}"#, 3 + PINGS);
    served.say(pings.collect::<String>() + &history);
    served.eventually("it leaves the line", |metrics| {
        (metrics.queries_waited_total.get(), metrics.queries_waiting.get()) == (1, 0)
    });
    let count = slots.len();
    drop(slots);
    assert_eq!(read_slots(&served).len(), count, "a slot is for somebody who reads");
    served.hear_reply(3 + PINGS);
    served.readers.stop();
}
