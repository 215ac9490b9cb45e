//! `POST /api/<method>`: the server API, for the backends of applications.
//!
//! [`admit`] checks the caller before the body is read: the key, which only the open mode does without,
//! and the origin, because a page that somebody visits could otherwise post to a server on the same
//! machine. Errors come in a 200 body unless the caller asks for transport errors.

mod activity;

use std::sync::Arc;

use crate::clock;
use crate::config::{Mode, Namespace};
use crate::ids::Channel;
use crate::protocol::Members;
use crate::protocol::api::params::{
    ApiMessage, BroadcastParams, ContactParams, DisconnectParams, NewRoomKind, PublishParams,
    RoomCreateParams, UnsubscribeParams, UserParams,
};
use crate::protocol::api::results::{
    BroadcastResult, ContactsResult, Done, PublishResult, RoomMember, RoomResult,
};
use crate::protocol::api::{self, ApiError, BadParams, ErrorMode};
use crate::protocol::code::{CloseCode, ErrorCode, UnsubscribeCode};
use crate::protocol::command::{ChannelRequest, HistoryRequest};
use crate::protocol::reply::{HistoryResult, PresenceResult, PublicationList};
use crate::publication::Publication;
use crate::store::{AppendError, Appended, NewMessage, Role, RoomKind, StoreError};

pub(super) use activity::room_metrics;

use super::http::{Head, Response};
use super::services::Services;
use super::session::{check_size, code_of, stats};

/// Lets a request pass whose sender may use the API, or says why not.
pub(super) fn admit(head: &Head, services: &Services) -> Result<(), Response> {
    if head.method != "POST" {
        return Err(Response::method_not_allowed("POST"));
    }
    if !is_authorized(head, services) {
        return Err(Response::new(401, "text/plain; charset=utf-8", ""));
    }
    services.check_origin(head)
}

/// Answers one API request that was admitted.
pub(super) fn respond(head: &Head, method: &str, body: &[u8], services: &Services) -> Response {
    let mode = ErrorMode::from_header(head.header("x-centrifugo-error-mode"));
    let mut out = Vec::new();
    match call(method, body, services, &mut out) {
        Ok(()) => Response::json(200, out),
        Err(Refusal::UnknownMethod) => {
            Response::text(404, "there is no such API method; see docs/http-api.md")
        }
        Err(Refusal::Malformed(detail)) => Response::text(400, &detail),
        Err(Refusal::Error(error)) => {
            let code = error.code.number().to_string();
            services.metrics.errors_total.with_label_values(&[&code]).inc();
            let status = api::error(&mut out, mode, &error);
            Response::json(status, out)
        }
    }
}

/// True when the request carries the key, in any of the three places it may stand.
fn is_authorized(head: &Head, services: &Services) -> bool {
    let Some(key) = &services.api.key else { return services.mode == Mode::Open };
    let bearer = head.header("authorization").and_then(|value| value.strip_prefix("apikey "));
    let given = head.header("x-api-key").or(bearer).or_else(|| head.query_value("api_key"));
    given.is_some_and(|given| same_text(given.as_bytes(), key.expose().as_bytes()))
}

/// Compares without telling by its duration where the first difference is.
fn same_text(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |found, (left, right)| found | (left ^ right));
    left.len() == right.len() && differences == 0
}

/// Why a call has no result.
enum Refusal {
    UnknownMethod,
    Malformed(String),
    Error(ApiError),
}

impl From<BadParams> for Refusal {
    fn from(error: BadParams) -> Self {
        match error {
            BadParams::Malformed(_) => Self::Malformed(error.to_string()),
            BadParams::Rejected(detail) => Self::Error(ApiError { code: ErrorCode::BadRequest, detail }),
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        Self::Error(ApiError { code: error.into(), detail })
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Error(code.into())
    }
}

fn call(method: &str, body: &[u8], services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    match method {
        "publish" => publish(&api::decode(body)?, services, out),
        "broadcast" => broadcast(&api::decode(body)?, services, out),
        "history" => history(&api::decode(body)?, services, out),
        "presence" => presence(&api::decode(body)?, services, out),
        "presence_stats" => presence_stats(&api::decode(body)?, services, out),
        "channels" => activity::channels(&api::decode(body)?, services, out),
        "info" => activity::info(api::decode(body)?, services, out),
        "rooms" => activity::rooms(&api::decode(body)?, services, out),
        "lagging" => activity::lagging(&api::decode(body)?, services, out),
        "room_strategy" => activity::room_strategy(&api::decode(body)?, services, out),
        "disconnect" => disconnect(&api::decode(body)?, services, out),
        "unsubscribe" => unsubscribe(&api::decode(body)?, services, out),
        "contact_add" => contact_add(&api::decode(body)?, services, out),
        "contact_remove" => contact_remove(&api::decode(body)?, services, out),
        "contacts" => contacts(&api::decode(body)?, services, out),
        "room_create" => room_create(&api::decode(body)?, services, out),
        "room_info" => room_info(&api::decode::<ChannelRequest>(body)?.channel, services, out),
        _ => Err(Refusal::UnknownMethod),
    }
}

/// Writes a result; the last step of every method.
fn done(out: &mut Vec<u8>, result: &impl Members) -> Result<(), Refusal> {
    api::result(out, result);
    Ok(())
}

fn publish(params: &PublishParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let channels = std::slice::from_ref(&params.channel);
    match publish_to(channels, &params.message, services).pop() {
        Some(Ok(result)) => done(out, &result),
        Some(Err(error)) => Err(error.into()),
        None => Err(ErrorCode::Internal.into()),
    }
}

fn broadcast(params: &BroadcastParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let results = publish_to(&params.channels, &params.message, services);
    done(out, &BroadcastResult(&results))
}

/// Publishes one message to every channel; durable ones are committed together.
fn publish_to<'a>(
    channels: &[Channel],
    message: &ApiMessage,
    services: &'a Services,
) -> Vec<Result<PublishResult<'a>, ApiError>> {
    let mut results = Vec::with_capacity(channels.len());
    let mut batch = Vec::new();
    let mut places = Vec::new();
    for channel in channels {
        results.push(accept(channel, message, services).map(|stored| {
            if let Some(stored) = stored {
                places.push(results.len());
                batch.push(stored);
            }
            PublishResult::default()
        }));
    }
    for (place, result) in places.into_iter().zip(services.store.append(batch, &*services.engine)) {
        results[place] = match result {
            Ok(Appended::New(offset) | Appended::Duplicate(offset)) => {
                Ok(PublishResult { offset, epoch: services.engine.epoch() })
            }
            Err(error) => Err(describe(error)),
        };
    }
    results
}

/// Checks a message for one channel; gives what is to be stored, or passes it on at once.
fn accept(
    channel: &Channel,
    message: &ApiMessage,
    services: &Services,
) -> Result<Option<NewMessage>, ApiError> {
    let options: &Arc<Namespace> = services.options(channel)?;
    check_size(options, &message.data)?;
    let ApiMessage { data, tags, idempotency_key, skip_history } = message.clone();
    if options.persist && skip_history {
        return Err(ApiError {
            code: ErrorCode::NotAvailable,
            detail: "this namespace stores every message; use one with persist = false".into(),
        });
    }
    if options.persist {
        let (channel, auto_create) = (channel.clone(), options.auto_create);
        return Ok(Some(NewMessage { channel, auto_create, data, info: None, tags, key: idempotency_key }));
    }
    services.engine.publish_ephemeral(Publication {
        channel: channel.clone(),
        seq: 0,
        data,
        info: None,
        tags,
        created_at_ms: clock::unix_ms(),
    });
    Ok(None)
}

fn describe(error: AppendError) -> ApiError {
    let code = code_of(&error);
    let detail = match error {
        AppendError::Rejected(reason) => reason,
        AppendError::UnknownRoom => "the room does not exist; create it with room_create".into(),
        AppendError::Unavailable => "the database does not answer; nothing was published".into(),
    };
    ApiError { code, detail }
}

fn history(params: &HistoryRequest, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let history = services.read_history(params)?;
    let publications: PublicationList = history.publications.iter().collect();
    let epoch = services.engine.epoch();
    done(out, &HistoryResult { publications: &publications, epoch, offset: history.head })
}

fn presence(params: &ChannelRequest, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let presence = ask_presence(&params.channel, services)?;
    if presence.too_large {
        let detail = "the room has more listeners than presence_max_listeners; ask presence_stats".into();
        return Err(ApiError { code: ErrorCode::NotAvailable, detail }.into());
    }
    done(out, &PresenceResult(&presence.clients))
}

fn presence_stats(params: &ChannelRequest, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &stats(&ask_presence(&params.channel, services)?))
}

fn ask_presence(channel: &Channel, services: &Services) -> Result<crate::engine::Presence, ErrorCode> {
    if !services.options(channel)?.presence {
        return Err(ErrorCode::NotAvailable);
    }
    Ok(services.engine.presence(channel))
}

fn disconnect(params: &DisconnectParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let close = params.disconnect.clone().unwrap_or_else(|| CloseCode::ForceDisconnect.into());
    let client = params.client.as_deref();
    services.engine.disconnect_user(&params.user, client, &params.whitelist, &close);
    done(out, &Done)
}

fn unsubscribe(params: &UnsubscribeParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let code = UnsubscribeCode::Server;
    services.engine.unsubscribe_user(&params.user, params.client.as_deref(), &params.channel, code);
    done(out, &Done)
}

fn contact_add(params: &ContactParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &services.add_contact(&params.user, &params.contact)?)
}

fn contact_remove(params: &ContactParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    services.remove_contact(&params.user, &params.contact)?;
    done(out, &Done)
}

fn contacts(params: &UserParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    done(out, &ContactsResult(&services.contacts(&params.user)?))
}

fn room_create(params: &RoomCreateParams, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let options = services.options(&params.channel)?;
    if !options.persist || options.name == crate::config::DIRECT_NAMESPACE {
        let detail = "rooms of this namespace can not be created by hand".into();
        return Err(ApiError { code: ErrorCode::NotAvailable, detail }.into());
    }
    let kind = match params.kind() {
        NewRoomKind::Group => RoomKind::Group,
        NewRoomKind::Public => RoomKind::Public,
    };
    let members: Vec<(&str, Role)> = params.members.iter().map(|user| (&**user, Role::Member)).collect();
    services.store.create_room(&params.channel, kind, &members)?;
    room_info(&params.channel, services, out)
}

fn room_info(channel: &Channel, services: &Services, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let room = services
        .store
        .room(channel)?
        .ok_or(ApiError { code: ErrorCode::UnknownChannel, detail: "the room does not exist".into() })?;
    let members = services.store.members(channel)?.into_iter();
    let members: Vec<RoomMember> =
        members.map(|member| RoomMember { user: member.user.into(), last_read: member.last_read }).collect();
    done(
        out,
        &RoomResult {
            channel,
            kind: room.kind.as_str(),
            head: room.head,
            epoch: services.engine.epoch(),
            created_at_ms: room.created_ms,
            last_activity_ms: room.last_active_ms,
            num_clients: services.engine.presence(channel).clients_count as u64,
            members: &members,
        },
    )
}
