//! `POST /api/<method>`: the server API, for the backends of applications.
//!
//! [`authorize`] checks the caller before the body is read: the key, which only the open mode does without,
//! and the origin, because a page that a user visits could otherwise post to a server on the same
//! machine. Errors come in a 200 body unless the caller asks for transport errors.

mod activity;
mod key;
mod refusal;

use std::time::Instant;

use crate::ids::{Channel, Seq};
use crate::limits::{ANY_FRAME_BYTES_MAX, BROADCAST_ERRORS_MAX};
use crate::metrics::Metrics;
use crate::node::{
    Caller, ClientSelector, Draft, NodeHandle, RequestError, Role, RoomDescription, RoomKind, page_of,
};
use crate::protocol::api::page::PageParams;
use crate::protocol::api::params::{
    ApiMessage, BroadcastParams, ChannelPageParams, ContactParams, ContactsParams, DisconnectParams,
    NewRoomKind, PublishParams, RoomCreateParams, UnsubscribeParams,
};
use crate::protocol::api::results::{
    BroadcastResult, BroadcastSummary, ChannelError, ContactsResult, Done, PublishResult, RoomResult,
};
use crate::protocol::api::{self, ApiError, ErrorMode};
use crate::protocol::code::{CloseCode, ErrorCode};
use crate::protocol::command::{ChannelRequest, HistoryRequest};
use crate::protocol::reply::{HistoryResult, PresencePage};

pub(super) use activity::room_metrics;
pub(super) use key::ApiKey;

use super::http::{Head, Response};
use super::peers::ClientAddress;
use super::queries::Kind;
use super::rates::Rates;
use super::session::stats;
use key::Shown;
use refusal::{Refusal, describe, done};

/// The answer to somebody who sent too many wrong keys, and the seconds after which to try again.
const WRONG_KEYS: &str = "too many wrong API keys from this address: wait, and send the value of api.key; the right key is never refused";
const KEY_RETRY_AFTER: u64 = 10;

/// Checks that a request of this client may use the API; the error is the answer.
pub(super) fn authorize(
    head: &Head,
    key: &ApiKey,
    client: ClientAddress,
    rates: &Rates,
    metrics: &Metrics,
) -> Result<(), Response> {
    if head.method != "POST" {
        return Err(Response::method_not_allowed("POST"));
    }
    match key.shown_by(head) {
        Shown::Right | Shown::Unneeded => return Ok(()),
        Shown::Nothing => {}
        Shown::Wrong => {
            if let Err(limit) = rates.key_failed(client, Instant::now()) {
                metrics.limited_total.with_label_values(&[limit.as_str()]).inc();
                return Err(Response::too_many(WRONG_KEYS, KEY_RETRY_AFTER));
            }
        }
    }
    Err(Response::new(401, "text/plain; charset=utf-8", ""))
}

/// Answers one authorized API request.
pub(super) fn respond(head: &Head, method: &str, body: &[u8], node: &NodeHandle) -> Response {
    let mode = mode_of(head);
    let mut out = Vec::new();
    match call(method, body, node, &mut out) {
        Ok(()) => Response::json(200, out),
        Err(Refusal::UnknownMethod) => {
            Response::text(404, "there is no such API method; see docs/http-api.md")
        }
        Err(Refusal::Malformed(detail)) => Response::text(400, &detail),
        Err(Refusal::Error(error)) => refuse(mode, &error, node),
    }
}

/// The query that a method takes before its answer. Publishing takes none: it waits for a commit.
pub(super) fn query(method: &str) -> Option<Kind> {
    match method {
        "history" | "contacts" | "room_info" => Some(Kind::Read),
        "contact_add" | "contact_remove" | "room_create" => Some(Kind::Write),
        _ => None,
    }
}

/// Answers a request that has waited in vain until it might query the database.
pub(super) fn respond_too_late(head: &Head, node: &NodeHandle) -> Response {
    let detail = "too many queries wait for the database; nothing was done".to_owned();
    refuse(mode_of(head), &ApiError { code: ErrorCode::Internal, detail }, node)
}

fn mode_of(head: &Head) -> ErrorMode {
    ErrorMode::from_header(head.header("x-centrifugo-error-mode"))
}

fn refuse(mode: ErrorMode, error: &ApiError, node: &NodeHandle) -> Response {
    node.metrics().errors_total.with_label_values(&[&error.code.number().to_string()]).inc();
    let mut out = Vec::new();
    let status = api::error(&mut out, mode, error);
    Response::json(status, out)
}

fn call(method: &str, body: &[u8], node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match method {
        "publish" => publish(&api::decode(body)?, node, out),
        "broadcast" => broadcast(&api::decode(body)?, node, out),
        "history" => history(&api::decode(body)?, node, out),
        "presence" => presence(api::decode(body)?, node, out),
        "presence_stats" => presence_stats(&api::decode(body)?, node, out),
        "channels" => activity::channels(api::decode(body)?, node, out),
        "info" => activity::info(api::decode(body)?, node, out),
        "rooms" => activity::rooms(&api::decode(body)?, node, out),
        "lagging" => activity::lagging(&api::decode(body)?, node, out),
        "room_strategy" => activity::room_strategy(&api::decode(body)?, node, out),
        "disconnect" => disconnect(&api::decode(body)?, node, out),
        "unsubscribe" => unsubscribe(&api::decode(body)?, node, out),
        "contact_add" => contact_add(&api::decode(body)?, node, out),
        "contact_remove" => contact_remove(&api::decode(body)?, node, out),
        "contacts" => contacts(api::decode(body)?, node, out),
        "room_create" => room_create(&api::decode(body)?, node, out),
        "room_info" => room_info(api::decode(body)?, node, out),
        _ => Err(Refusal::UnknownMethod),
    }
}

fn publish(params: &PublishParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let channels = std::slice::from_ref(&params.channel);
    let epoch = node.epoch();
    match publish_to(channels, &params.message, node, &epoch).pop() {
        Some(Ok(result)) => done(out, &result),
        Some(Err(error)) => Err(error.into()),
        None => Err(ApiError::from(ErrorCode::Internal).into()),
    }
}

fn broadcast(params: &BroadcastParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let epoch = node.epoch();
    let results = publish_to(&params.channels, &params.message, node, &epoch);
    let start = out.len();
    done(out, &BroadcastResult(&results))?;
    if out.len() - start <= ANY_FRAME_BYTES_MAX {
        return Ok(());
    }
    out.truncate(start);
    let refused = params.channels.iter().zip(&results);
    let errors: Vec<_> = refused
        .filter_map(|(channel, result)| Some(ChannelError { channel, error: result.as_ref().err()? }))
        .collect();
    let (refused, shown) = (errors.len(), errors.len().min(BROADCAST_ERRORS_MAX));
    let published = (results.len() - refused) as u64;
    done(out, &BroadcastSummary { published, refused: refused as u64, errors: &errors[..shown] })
}

/// Publishes one message to every channel; durable ones are committed together.
fn publish_to<'a>(
    channels: &[Channel],
    message: &ApiMessage,
    node: &NodeHandle,
    epoch: &'a str,
) -> Vec<Result<PublishResult<'a>, ApiError>> {
    let drafts = channels.iter().map(|channel| draft(channel.clone(), message.clone()));
    let outcomes = node.publish(Caller::Operator, drafts);
    debug_assert_eq!(outcomes.len(), channels.len(), "every channel has an outcome");
    let result = |seq: Seq| PublishResult { offset: seq, epoch: if seq == 0 { "" } else { epoch } };
    outcomes.into_iter().map(|outcome| outcome.map(result).map_err(describe)).collect()
}

fn draft(channel: Channel, message: ApiMessage) -> Draft {
    let ApiMessage { data, tags, idempotency_key, skip_history } = message;
    Draft { channel, data, info: None, tags, key: idempotency_key, skip_history }
}

fn history(params: &HistoryRequest, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let history = node.history(Caller::Operator, params)?;
    let (publications, epoch) = (&*history.publications, &*history.epoch);
    done(out, &HistoryResult { publications, epoch, offset: history.head })
}

fn presence(params: ChannelPageParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let presence = node.presence(Caller::Operator, &params.channel)?;
    if presence.too_large {
        let detail = "the room has more listeners than presence_max_listeners; use presence_stats";
        return Err(Refusal::with_detail(ErrorCode::NotAvailable, detail));
    }
    done(out, &PresencePage(&page_of(presence, &page(params.after, params.limit))))
}

fn page(after: Option<String>, limit: usize) -> PageParams {
    PageParams { after, limit }
}

fn presence_stats(params: &ChannelRequest, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &stats(&node.presence(Caller::Operator, &params.channel)?))
}

fn disconnect(params: &DisconnectParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let close = params.disconnect.clone().unwrap_or_else(|| CloseCode::ForceDisconnect.into());
    let whom = ClientSelector { user: &params.user, client: params.client.as_deref() };
    node.disconnect_user(whom, &params.whitelist, &close);
    done(out, &Done)
}

fn unsubscribe(params: &UnsubscribeParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let whom = ClientSelector { user: &params.user, client: params.client.as_deref() };
    node.unsubscribe_user(whom, &params.channel);
    done(out, &Done)
}

fn contact_add(params: &ContactParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &node.add_contact(&params.user, &params.contact)?)
}

fn contact_remove(params: &ContactParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    node.remove_contact(&params.user, &params.contact)?;
    done(out, &Done)
}

fn contacts(params: ContactsParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &ContactsResult(&node.contacts(&params.user, &page(params.after, params.limit))?))
}

fn room_create(params: &RoomCreateParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let kind = match params.kind() {
        NewRoomKind::Group => RoomKind::Group,
        NewRoomKind::Public => RoomKind::Public,
    };
    let members: Vec<(&str, Role)> = params.members.iter().map(|user| (&**user, Role::Member)).collect();
    match node.create_room(&params.channel, kind, &members) {
        Ok(()) => describe_room(&params.channel, &PageParams::default(), node, out),
        Err(RequestError::NotAvailable) => Err(Refusal::with_detail(
            ErrorCode::NotAvailable,
            "rooms of this namespace cannot be created through the API",
        )),
        Err(error) => Err(error.into()),
    }
}

fn room_info(params: ChannelPageParams, node: &NodeHandle, out: &mut Vec<u8>) -> Result<(), Refusal> {
    describe_room(&params.channel, &page(params.after, params.limit), node, out)
}

fn describe_room(
    channel: &Channel,
    page: &PageParams,
    node: &NodeHandle,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let RoomDescription { room, members, listeners_count } = node.room(channel, page)?;
    done(
        out,
        &RoomResult {
            channel,
            kind: room.kind.as_str(),
            head: room.head,
            epoch: &node.epoch(),
            created_at_ms: room.created_ms,
            last_activity_ms: room.last_active_ms,
            num_clients: listeners_count as u64,
            members: &members,
        },
    )
}
