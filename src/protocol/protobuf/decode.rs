//! Commands of clients: from the bytes of a frame to checked types.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use prost::encoding::decode_varint;

use super::schema;
use crate::ids::{Channel, Seq};
use crate::protocol::command::{
    BadCommand, Broken, ChannelRequest, Command, ConnectRequest, HistoryRequest, Method, PublishRequest,
    RecoverRequest, RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest,
    SubscribeRequest,
};
use crate::protocol::fields::{OFFSET_MAX, json_of_bytes, payload_of_bytes};

/// The commands of one binary frame, in order: each behind its length, a varint.
///
/// After a [`BadCommand::Close`] the rest must not be used.
pub(in crate::protocol) fn decode_frame(frame: &Bytes) -> Commands<'_> {
    Commands { frame, next: Some(0) }
}

/// The commands of a frame that were not taken yet.
#[derive(Debug)]
pub(in crate::protocol) struct Commands<'a> {
    frame: &'a Bytes,
    next: Option<usize>,
}

impl Commands<'_> {
    /// Index of the byte at which the next command begins; `None` when all were taken.
    pub(in crate::protocol) fn position(&self) -> Option<usize> {
        self.next
    }

    /// Cuts the command out that begins at this byte.
    fn cut(&mut self, begin: usize) -> Result<Bytes, Broken> {
        let mut rest = self.frame.get(begin..).filter(|rest| !rest.is_empty()).ok_or(Broken::Blank)?;
        let length = decode_varint(&mut rest).map_err(|_| Broken::Malformed)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or(Broken::Malformed)?;
        let begin = self.frame.len() - rest.len();
        let end = begin + length;
        self.next = (end < self.frame.len()).then_some(end);
        Ok(self.frame.slice(begin..end))
    }
}

impl Iterator for Commands<'_> {
    type Item = Result<Command, BadCommand>;

    fn next(&mut self) -> Option<Self::Item> {
        let begin = self.next.take()?;
        Some(self.cut(begin).map_err(BadCommand::Close).and_then(decode))
    }
}

/// The reason for which parameters are no good.
enum Bad {
    /// A channel is needed and none is named.
    NoChannel,
    /// A value is not legal.
    Illegal,
}

fn decode(bytes: Bytes) -> Result<Command, BadCommand> {
    if bytes.is_empty() {
        return Ok(Command { id: 0, method: Method::Pong });
    }
    let command = schema::Command::decode(bytes).map_err(|_| BadCommand::Close(Broken::Malformed))?;
    let (id, is_connect) = (command.id, command.connect.is_some());
    match method(command).ok_or(BadCommand::Close(Broken::NoMethod))? {
        Ok(method @ Method::Send(_)) => Ok(Command { id: 0, method }),
        _ if id == 0 => Err(BadCommand::Close(Broken::NoId)),
        Ok(method) => Ok(Command { id, method }),
        Err(Bad::NoChannel) => Err(BadCommand::Close(Broken::NoChannel)),
        Err(Bad::Illegal) => Err(BadCommand::Refuse { id, connect: is_connect }),
    }
}

/// The method that counts of those a command names, as in JSON.
fn method(command: schema::Command) -> Option<Result<Method, Bad>> {
    let schema::Command { connect, ping, subscribe, unsubscribe, publish, presence, presence_stats, .. } =
        command;
    let schema::Command { history, rpc, send, refresh, sub_refresh, .. } = command;
    let by_channel = |make: fn(ChannelRequest) -> Method| {
        move |request: schema::ChannelRequest| {
            channel(&request.channel).map(|channel| make(ChannelRequest { channel }))
        }
    };
    let first = connect.map(|request| connect_request(request).map(Method::Connect));
    first
        .or_else(|| ping.map(|_| Ok(Method::Ping)))
        .or_else(|| subscribe.map(|request| subscribe_request(request).map(Method::Subscribe)))
        .or_else(|| unsubscribe.map(by_channel(Method::Unsubscribe)))
        .or_else(|| publish.map(|request| publish_request(request).map(Method::Publish)))
        .or_else(|| presence.map(by_channel(Method::Presence)))
        .or_else(|| presence_stats.map(by_channel(Method::PresenceStats)))
        .or_else(|| history.map(|request| history_request(request).map(Method::History)))
        .or_else(|| rpc.map(|request| Ok(Method::Rpc(rpc_request(request)))))
        .or_else(|| send.map(|_| Ok(Method::Send(SendRequest { data: None }))))
        .or_else(|| refresh.map(|request| Ok(Method::Refresh(RefreshRequest { token: text(request.token) }))))
        .or_else(|| sub_refresh.map(|request| sub_refresh_request(request).map(Method::SubRefresh)))
}

fn connect_request(request: schema::ConnectRequest) -> Result<ConnectRequest, Bad> {
    let schema::ConnectRequest { token, data, subs, name, version } = request;
    let recover = |(name, request): (String, schema::SubscribeRequest)| {
        let channel = Channel::new(&name).map_err(|_| Bad::Illegal)?;
        let schema::SubscribeRequest { recover, epoch, .. } = request;
        Ok((channel, RecoverRequest { recover, offset: offset(request.offset)?, epoch }))
    };
    let subs = subs.into_iter().map(recover).collect::<Result<_, Bad>>()?;
    Ok(ConnectRequest { token: text(token), data: spoken(&data), name, version, subs })
}

fn subscribe_request(request: schema::SubscribeRequest) -> Result<SubscribeRequest, Bad> {
    Ok(SubscribeRequest {
        channel: channel(&request.channel)?,
        token: text(request.token),
        data: spoken(&request.data),
        recover: request.recover,
        offset: offset(request.offset)?,
        epoch: request.epoch,
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
        flag: request.flag,
        kind: request.r#type.into(),
        tags_filter: request.tf.is_some(),
    })
}

fn publish_request(request: schema::PublishRequest) -> Result<PublishRequest, Bad> {
    let channel = channel(&request.channel)?;
    if request.data.is_empty() {
        return Err(Bad::Illegal);
    }
    Ok(PublishRequest { channel, data: payload_of_bytes(&request.data), kind: request.r#type.into() })
}

fn history_request(request: schema::HistoryRequest) -> Result<HistoryRequest, Bad> {
    let schema::HistoryRequest { limit, since, reverse, .. } = request;
    let position = |since: schema::StreamPosition| {
        Ok(StreamPosition { offset: offset(since.offset)?, epoch: since.epoch })
    };
    let since = since.map(position).transpose()?;
    Ok(HistoryRequest { channel: channel(&request.channel)?, limit, since, reverse })
}

fn rpc_request(request: schema::RpcRequest) -> RpcRequest {
    let schema::RpcRequest { data, method } = request;
    RpcRequest { method, data: (!data.is_empty()).then(|| payload_of_bytes(&data)) }
}

fn sub_refresh_request(request: schema::SubRefreshRequest) -> Result<SubRefreshRequest, Bad> {
    let channel = text(request.channel).map(|name| Channel::new(&name).map_err(|_| Bad::Illegal));
    let (channel, token) = (channel.transpose()?, text(request.token));
    Ok(SubRefreshRequest { channel, token, kind: request.r#type.into() })
}

/// A channel that has to be named.
fn channel(name: &str) -> Result<Channel, Bad> {
    if name.is_empty() {
        return Err(Bad::NoChannel);
    }
    Channel::new(name).map_err(|_| Bad::Illegal)
}

/// A position in a room.
fn offset(number: u64) -> Result<Seq, Bad> {
    if number <= OFFSET_MAX { Ok(number) } else { Err(Bad::Illegal) }
}

/// Empty text is the same as none.
fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Data that this server may have a look at; what is no JSON tells it nothing.
fn spoken(data: &[u8]) -> Option<Arc<str>> {
    json_of_bytes(data)
}
