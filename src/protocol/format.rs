//! The forms in which a client and the server talk: the one place that knows that there are several.

use std::ops::{Index, IndexMut};

use bytes::Bytes;

use super::command::{self, BadCommand, Broken, Command};
use super::message::Message;
#[cfg(feature = "server")]
use super::protobuf;

/// The form of a connection's messages, chosen at its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// JSON objects, one a line, in text frames.
    #[default]
    Json,
    /// Protobuf messages, each behind its length, in binary frames.
    #[cfg(feature = "server")]
    Protobuf,
}

/// The content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Of a text frame.
    Text(&'a str),
    /// Of a binary frame.
    Binary(&'a Bytes),
}

impl Format {
    /// All of them.
    #[cfg(feature = "server")]
    pub const ALL: [Self; 2] = [Self::Json, Self::Protobuf];
    /// All of them: without sockets there is no other.
    #[cfg(not(feature = "server"))]
    pub const ALL: [Self; 1] = [Self::Json];

    /// True when frames of messages are text frames.
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Json)
    }

    /// The bytes between two messages in a frame.
    #[must_use]
    pub const fn separator(self) -> &'static [u8] {
        match self {
            Self::Json => b"\n",
            #[cfg(feature = "server")]
            Self::Protobuf => b"",
        }
    }

    /// Appends one message.
    pub fn write(self, out: &mut Vec<u8>, message: &Message<'_>) {
        match self {
            Self::Json => message.write_json(out),
            #[cfg(feature = "server")]
            Self::Protobuf => protobuf::write(out, message),
        }
    }

    /// The commands of a frame, in order. After a [`BadCommand::Close`] the rest must not be used.
    #[must_use]
    pub fn decode(self, frame: Frame<'_>) -> Commands<'_> {
        match (self, frame) {
            (Self::Json, Frame::Text(text)) => Commands(Source::Json(command::decode_frame(text))),
            (Self::Json, Frame::Binary(_)) => Commands(Source::Foreign(Some(Broken::Binary))),
            #[cfg(feature = "server")]
            (Self::Protobuf, Frame::Binary(bytes)) => {
                Commands(Source::Protobuf(protobuf::decode_frame(bytes)))
            }
            #[cfg(feature = "server")]
            (Self::Protobuf, Frame::Text(_)) => Commands(Source::Foreign(Some(Broken::Text))),
        }
    }
}

/// The commands of a frame that were not taken yet.
#[derive(Debug)]
pub struct Commands<'a>(Source<'a>);

#[derive(Debug)]
enum Source<'a> {
    Json(command::Commands<'a>),
    #[cfg(feature = "server")]
    Protobuf(protobuf::Commands<'a>),
    /// A frame of the other kind.
    Foreign(Option<Broken>),
}

impl Commands<'_> {
    /// Index of the byte at which the next command begins: a frame cut there holds the commands that were not
    /// taken. `None` when all were.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match &self.0 {
            Source::Json(commands) => commands.position(),
            #[cfg(feature = "server")]
            Source::Protobuf(commands) => commands.position(),
            Source::Foreign(broken) => broken.map(|_| 0),
        }
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, BadCommand>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Json(commands) => commands.next(),
            #[cfg(feature = "server")]
            Source::Protobuf(commands) => commands.next(),
            Source::Foreign(broken) => broken.take().map(|broken| Err(BadCommand::Close(broken))),
        }
    }
}

/// One value for each format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerFormat<T>([T; Format::ALL.len()]);

impl<T> PerFormat<T> {
    /// The values that `make` gives.
    pub fn from_fn(mut make: impl FnMut(Format) -> T) -> Self {
        Self(Format::ALL.map(&mut make))
    }

    /// The values, in the order of [`Format::ALL`].
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Format> for PerFormat<T> {
    type Output = T;

    fn index(&self, format: Format) -> &T {
        &self.0[format as usize]
    }
}

impl<T> IndexMut<Format> for PerFormat<T> {
    fn index_mut(&mut self, format: Format) -> &mut T {
        &mut self.0[format as usize]
    }
}
