//! The publish command, and the batch of publishes that a turn commits together.

use std::sync::Arc;
use std::time::Instant;

use super::{Failure, Session};
use crate::clock;
use crate::config::Namespace;
use crate::engine::Listener;
use crate::ids::Channel;
use crate::limits::TURN_BYTES_MAX;
use crate::protocol::api::params::RpcPublishParams;
use crate::protocol::api::results::PublishResult;
use crate::protocol::code::ErrorCode;
use crate::protocol::command::PublishRequest;
use crate::protocol::reply;
use crate::publication::{ClientInfo, Publication};
use crate::store::{AppendError, Appended, NewMessage};

/// Publishes that are checked and wait for the end of the turn.
#[derive(Debug, Default)]
pub(super) struct PendingPublishes {
    messages: Vec<NewMessage>,
    waiting: Vec<Waiting>,
    bytes: usize,
}

/// Who is told about one of the messages.
#[derive(Debug)]
struct Waiting {
    id: u32,
    kind: AckKind,
    since: Instant,
}

#[derive(Debug)]
enum AckKind {
    Publish,
    /// The rpc method `publish` tells the position too.
    Rpc,
}

impl PendingPublishes {
    /// True when they should be committed before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES_MAX
    }

    fn push(&mut self, message: NewMessage, waiting: Waiting) {
        self.bytes += message.data.len();
        self.messages.push(message);
        self.waiting.push(waiting);
    }
}

impl Session {
    pub(super) fn publish(&mut self, id: u32, request: PublishRequest) -> Result<(), Failure> {
        if let Some(code) = request.unsupported() {
            return Err(code.into());
        }
        self.accept(id, AckKind::Publish, &request.channel, request.data, None)
    }

    pub(super) fn rpc_publish(&mut self, id: u32, params: RpcPublishParams) -> Result<(), Failure> {
        self.accept(id, AckKind::Rpc, &params.channel, params.data, params.key)
    }

    /// Checks a publish and puts it where its room wants it.
    fn accept(
        &mut self,
        id: u32,
        kind: AckKind,
        channel: &Channel,
        data: Arc<str>,
        key: Option<Arc<str>>,
    ) -> Result<(), Failure> {
        let options = self.services.options(channel)?.clone();
        self.services.check(channel, options.publish, self.asker(channel))?;
        check_size(&options, &data)?;
        let info = sender(self.listener()?, channel);
        if options.persist {
            let message = NewMessage {
                channel: channel.clone(),
                auto_create: options.auto_create,
                data,
                info: Some(info),
                tags: None,
                key,
            };
            self.publishes.push(message, Waiting { id, kind, since: Instant::now() });
            return Ok(());
        }
        // Nothing to commit, but the order of a client's commands holds.
        self.flush_publishes();
        self.services.engine.publish_ephemeral(Publication {
            channel: channel.clone(),
            seq: 0,
            data,
            info: Some(info),
            tags: None,
            created_at_ms: clock::unix_ms(),
        });
        self.acknowledge(id, &kind, &PublishResult::default());
        Ok(())
    }

    /// Commits what is pending and acknowledges it.
    pub(super) fn flush_publishes(&mut self) {
        let PendingPublishes { messages, waiting, .. } = std::mem::take(&mut self.publishes);
        if messages.is_empty() {
            return;
        }
        let results = self.services.store.append(messages, &*self.services.engine);
        let epoch = self.services.engine.epoch().clone();
        for (Waiting { id, kind, since }, result) in waiting.into_iter().zip(results) {
            self.services.metrics.publish_ack_seconds.observe(since.elapsed().as_secs_f64());
            match result {
                Ok(Appended::New(offset) | Appended::Duplicate(offset)) => {
                    self.acknowledge(id, &kind, &PublishResult { offset, epoch: &epoch });
                }
                Err(error) => {
                    let _ = self.fail(id, code_of(&error));
                }
            }
        }
    }

    fn acknowledge(&mut self, id: u32, kind: &AckKind, result: &PublishResult<'_>) {
        match kind {
            AckKind::Publish => self.reply(|out| reply::publish(out, id)),
            AckKind::Rpc => self.reply(|out| reply::rpc_result(out, id, result)),
        }
    }
}

/// Refuses a payload that is larger than the namespace allows.
pub(in crate::net) fn check_size(options: &Namespace, data: &str) -> Result<(), ErrorCode> {
    if data.len() > options.message_bytes_max { Err(ErrorCode::LimitExceeded) } else { Ok(()) }
}

/// What a client is told when its message was not stored.
pub(in crate::net) fn code_of(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::UnknownRoom => ErrorCode::UnknownChannel,
        AppendError::Rejected(_) => ErrorCode::BadRequest,
        AppendError::Unavailable => ErrorCode::Internal,
    }
}

/// Who others see as the sender: the client as it is known in the room.
fn sender(listener: &Listener, channel: &Channel) -> Arc<ClientInfo> {
    listener
        .subscription(channel)
        .map_or_else(|| listener.info.clone(), |subscription| subscription.info.clone())
}
