//! A connection served from the upgrade to its end, without a listening server.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::WebSocket;
use tungstenite::protocol::{Message, Role};

use super::serve;
use super::stream::SocketStream;
use crate::ids::{Channel, ConnectionId};
use crate::limits::MESSAGE_DEADLINE;
use crate::net::client_rules::ClientRules;
use crate::net::sockets::{ConnectionPermit, Sockets};
use crate::node::tests::rig::{Backend, Rig};

/// Longest wait; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both ends of a connection on the loopback device: the client's, and the server's.
fn pair() -> (TcpStream, Arc<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, Arc::new(listener.accept().unwrap().0))
}

#[test]
fn a_panic_ends_its_connection_like_any_other() {
    let rig = Rig::new(Backend::Sqlite, "");
    let node = rig.handle().clone();
    let (client, socket) = pair();
    let rules = Arc::new(ClientRules::new(&rig.config));
    let sockets = Arc::new(Sockets::default());
    let permit = ConnectionPermit::new(&sockets, ConnectionId::next(), &socket, node.metrics());
    let reader = {
        let node = node.clone();
        thread::spawn(move || serve(&socket, Vec::new(), &permit, &node, &rules))
    };
    let mut client = WebSocket::from_raw_socket(client, Role::Client, None);
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
    reader.join().unwrap();
    let room: Channel = "room".parse().unwrap();
    assert_eq!(rig.node().presence(&room).unwrap(), [], "presence is gone");
    assert_eq!((sockets.count(), node.metrics().sockets.get()), (0, 0), "the file is closed");
    assert_eq!(node.metrics().reader_panics_total.get(), 1);
}

#[test]
fn a_message_has_a_deadline_from_its_first_byte_to_its_last() {
    let rig = Rig::new(Backend::Sqlite, "");
    let (_client, socket) = pair();
    let outbox = rig.handle().outbox_for_socket(ConnectionId::next(), socket).unwrap();
    let now = Instant::now();
    let whole = SocketStream::new(outbox.clone(), &[0x81, 0x81, 1, 2, 3, 4, b'x']);
    assert!(!whole.is_overdue(now + 2 * MESSAGE_DEADLINE));
    let begun = SocketStream::new(outbox, &[0x81, 0x82, 1, 2, 3, 4, b'x']);
    assert!(!begun.is_overdue(now) && begun.is_overdue(Instant::now() + MESSAGE_DEADLINE));
}
