//! Connections from their first byte to their file being closed, served by readers of their own, without a
//! listening server.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::WebSocket;
use tungstenite::protocol::Message;

use super::connection::Connection;
use super::http::Router;
use super::peers::Peers;
use super::readers::Readers;
use super::sockets::{ConnectionPermit, Sockets};
use crate::ids::Channel;
use crate::node::tests::rig::{Backend, Rig};

/// Longest wait; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_panic_ends_its_connection_like_any_other() {
    let rig = Rig::new(Backend::Sqlite, "");
    let node = rig.handle().clone();
    let sockets = Arc::new(Sockets::default());
    let readers = Readers::start(4, node.metrics().clone()).unwrap();
    let mut client = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let peers = Peers::new(&rig.config.client, 1, node.metrics().clone());
        let peer = peers.accept(peer.ip(), Instant::now()).unwrap();
        let permit = ConnectionPermit::new(&sockets, node.metrics());
        let router = Arc::new(Router::new(&rig.config, node.clone()));
        let connection = Connection::new(socket, peer, permit, router);
        readers.add(Box::new(connection), Instant::now() + PATIENCE).unwrap();
        let (client, _): (WebSocket<_>, _) =
            tungstenite::client("ws://localhost/connection/websocket", client).unwrap();
        client
    };
    for command in [
        r#"{"id":1,"connect":{}}"#,
        r#"{"id":2,"subscribe":{"channel":"room"}}"#,
        "{\"id\":3,\"publish\":{\"channel\":\"room\",\"data\":1}}\n{\"id\":4,\"rpc\":{\"method\":\"test.panic\"}}",
    ] {
        client.send(Message::text(command)).unwrap();
    }
    let close = loop {
        if let Message::Close(close) = client.read().unwrap() {
            break close.unwrap();
        }
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (3004, "internal server error"));
    let _ = client.flush();
    drop(client);
    sockets.wait_until(Instant::now() + PATIENCE);
    readers.stop();
    let room: Channel = "room".parse().unwrap();
    assert_eq!(rig.node().presence(&room).unwrap(), [], "presence is gone");
    assert_eq!((sockets.count(), node.metrics().sockets.get()), (0, 0), "the file is closed");
    assert_eq!(node.metrics().reader_panics_total.get(), 1);
}
