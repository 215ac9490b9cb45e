//! Messages to clients, whatever the form in which they are written.

use super::object::Object;
use super::push::Push;
use super::reply::Reply;

/// One message to a client.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// The answer to the command with this id.
    Reply(u32, Reply<'a>),
    /// News that nobody asked for.
    Push(Push<'a>),
    /// The ping of the server.
    Ping,
}

impl<'a> From<Push<'a>> for Message<'a> {
    fn from(push: Push<'a>) -> Self {
        Self::Push(push)
    }
}

impl Message<'_> {
    /// Appends it as one JSON object without a line break.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Reply(id, reply) => {
                let mut object = Object::begin(out);
                object.number("id", u64::from(*id));
                reply.write_json(&mut object);
                object.end();
            }
            Self::Push(push) => {
                let mut object = Object::begin(out);
                object.object("push", push);
                object.end();
            }
            Self::Ping => out.extend_from_slice(b"{}"),
        }
    }
}
