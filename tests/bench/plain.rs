//! Bare chat rooms, the servers of the dialects `plain` and `nchan`: the path names the room, and what a
//! member sends goes to all members.

use std::net::SocketAddr;

use tungstenite::Message;

use crate::rooms::{self, Client};

/// Which of a room's messages the unreliable kind passes on to nobody, which not to the first member, and
/// which twice to all.
const LOST: u64 = 15;
const WITHHELD: u64 = 17;
const REPEATED: u64 = 18;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Reliable,
    Unreliable,
    /// Tells the sender of each message what becomes of it, as Nchan does.
    Nchan,
}

/// Starts it; it ends with the process.
pub(crate) fn start(kind: Kind) -> SocketAddr {
    rooms::start(move |client| serve(client, kind))
}

/// Until the client hangs up.
fn serve(mut client: Client, kind: Kind) {
    while let Some(message) = client.read() {
        assert!(message.is_text(), "{message:?}");
        if kind == Kind::Nchan {
            let receipt = "queued messages: 1\r\nlast requested: 0 sec. ago\r\nactive subscribers: 4\r\n\
                           last message id: 1732800000:0";
            client.send(Message::text(receipt));
        }
        client.publish_copies(&client.path, &[message], |count, member| match (kind, count) {
            (Kind::Unreliable, LOST) => 0,
            (Kind::Unreliable, WITHHELD) if member == 0 => 0,
            (Kind::Unreliable, REPEATED) => 2,
            _ => 1,
        });
    }
}
