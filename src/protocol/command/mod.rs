//! Commands of clients: checked types, and the way to them from the text of a frame.
//!
//! A command that leaves here is well formed: its channel is a legal name, its payload
//! JSON that every client can read. Whether it is allowed is for others to say.

mod bad;
mod diagnose;
mod envelope;
mod method;

use diagnose::diagnose;
use envelope::Envelope;

pub(crate) use bad::{BadCommand, Broken};
pub(crate) use method::{
    ChannelRequest, Command, ConnectRequest, HistoryRequest, Method, PublishRequest, RecoverRequest,
    RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest,
};

/// The commands of one text frame, in order: one JSON object a line.
///
/// After a [`BadCommand::Close`] the rest must not be used.
pub fn decode_frame(text: &str) -> Commands<'_> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    Commands { text, next: Some(0) }
}

/// The commands of a frame that were not taken yet.
#[derive(Debug)]
pub struct Commands<'a> {
    text: &'a str,
    next: Option<usize>,
}

impl Commands<'_> {
    /// Index of the byte at which the next command begins: a frame cut there holds the commands that were not
    /// taken. `None` when all were.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        self.next
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, BadCommand>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = self.next?;
        let text = &self.text[begin..];
        let end = memchr::memchr(b'\n', text.as_bytes());
        self.next = end.map(|end| begin + end + 1);
        Some(decode(&text[..end.unwrap_or(text.len())]))
    }
}

fn decode(line: &str) -> Result<Command, BadCommand> {
    let Ok(Envelope { id, method, empty }) = serde_json::from_str(line) else {
        return Err(diagnose(line));
    };
    match method {
        Some(Method::Send(request)) => Ok(Command { id: 0, method: Method::Send(request) }),
        Some(_) if id == 0 => Err(BadCommand::Close(Broken::NoId)),
        Some(method) => {
            debug_assert!(id > 0 && !matches!(method, Method::Pong));
            Ok(Command { id, method })
        }
        None if empty => Ok(Command { id: 0, method: Method::Pong }),
        None => Err(BadCommand::Close(Broken::NoMethod)),
    }
}

#[cfg(test)]
mod tests;
