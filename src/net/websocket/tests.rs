//! The input of a WebSocket at its socket, without a session.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::stream::SocketStream;
use crate::ids::ConnectionId;
use crate::limits::MESSAGE_DEADLINE;
use crate::node::tests::rig::{Backend, Rig};
use crate::protocol::format::Format;

/// Both ends of a connection on the loopback device: the client's, and the server's.
fn pair() -> (TcpStream, Arc<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, Arc::new(listener.accept().unwrap().0))
}

#[test]
fn a_message_has_a_deadline_from_its_first_byte_to_its_last() {
    let rig = Rig::new(Backend::Sqlite, "");
    let (_client, socket) = pair();
    let outbox = rig.handle().outbox_for_socket(ConnectionId::next(), Format::Json, socket, None).unwrap();
    let before = Instant::now();
    let whole = SocketStream::new(outbox.clone(), &[0x81, 0x81, 1, 2, 3, 4, b'x']);
    assert_eq!(whole.message_deadline(), None);
    let begun = SocketStream::new(outbox, &[0x81, 0x82, 1, 2, 3, 4, b'x']);
    let deadline = begun.message_deadline().unwrap();
    assert!(deadline >= before + MESSAGE_DEADLINE && deadline <= Instant::now() + MESSAGE_DEADLINE);
}
