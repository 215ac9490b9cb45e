//! What a client sends, message by message, as far as its socket holds it now.
//!
//! tungstenite's context has a read buffer, so it exists only while there is something in it: a silent
//! connection keeps none.

use std::io;
use std::sync::Arc;

use tungstenite::error::Error;
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use super::stream::SocketStream;
use crate::outbox::Outbox;

/// Read buffer of a connection: allocated at once, so small; a chat command fits several times.
const READ_BUFFER_BYTES: usize = 1024;

/// The reading half of a WebSocket.
#[derive(Debug)]
pub(super) struct Input {
    /// Pongs and closes of tungstenite leave by it.
    pub(super) stream: SocketStream,
    context: Option<Box<WebSocketContext>>,
    message_bytes_max: usize,
}

impl Input {
    /// The input whose first bytes are `early`; messages may be this large.
    pub(super) fn new(outbox: Arc<Outbox>, early: Vec<u8>, message_bytes_max: usize) -> Self {
        let stream = SocketStream::new(outbox, &early);
        let config = Some(config(message_bytes_max));
        let context = (!early.is_empty())
            .then(|| Box::new(WebSocketContext::from_partially_read(early, Role::Server, config)));
        Self { stream, context, message_bytes_max }
    }

    /// From the next message on, they may be this large.
    pub(super) fn set_message_bytes_max(&mut self, bytes: usize) {
        self.message_bytes_max = bytes;
        if let Some(context) = &mut self.context {
            context.set_config(|config| {
                config.max_message_size = Some(bytes);
                config.max_frame_size = Some(bytes);
            });
        }
    }

    /// The next message; `None` when the socket holds no whole one now, or the turn has read enough.
    pub(super) fn read(&mut self) -> Result<Option<Message>, Error> {
        let config = config(self.message_bytes_max);
        let context =
            self.context.get_or_insert_with(|| Box::new(WebSocketContext::new(Role::Server, Some(config))));
        match context.read(&mut self.stream) {
            Ok(message) => Ok(Some(message)),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if !self.stream.is_inside_message() {
                    // It has given out all it had.
                    self.context = None;
                }
                Ok(None)
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Bytes kept until more of a message comes.
    pub(super) fn bytes(&self) -> usize {
        match &self.context {
            Some(_) => READ_BUFFER_BYTES + self.stream.message_bytes(),
            None => 0,
        }
    }

    /// Hands over the frame that answers the client's close, which it may wait for; that tungstenite reports
    /// the end is no news.
    pub(super) fn answer_close(&mut self) {
        if let Some(context) = &mut self.context {
            let _ = context.flush(&mut self.stream);
        }
    }
}

fn config(message_bytes_max: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max))
}
