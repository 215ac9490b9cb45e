//! What becomes of a request: a WebSocket, an answer of the API, a page, or a refusal.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tungstenite::handshake::derive_accept_key;

use super::bad_request::BadRequest;
use super::body::Body;
use super::local::Local;
use super::message::{Head, Response};
use super::origin::{Origins, Scheme};
use super::page;
use crate::config::Config;
use crate::net::api::{self, ApiKey};
use crate::net::client_rules::ClientRules;
use crate::net::peers::ClientAddress;
use crate::net::queries::{Kind, Queries};
use crate::node::{Health, NodeHandle};
use crate::protocol::format::Format;

/// Path of the WebSocket protocol.
const WEBSOCKET_PATH: &str = "/connection/websocket";

/// Subprotocols that SDKs may offer.
const SUBPROTOCOLS: [(&str, Format); 2] =
    [("centrifuge-json", Format::Json), ("centrifuge-protobuf", Format::Protobuf)];

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Route {
    /// This answer makes the socket a WebSocket for messages of this format.
    Upgrade(Format, String),
    /// An answer once its body is there. `is_keyed`: the request showed the key of the API.
    Respond { body: Body, is_keyed: bool },
    /// This answer. Its body is not read, so nothing can follow it on the connection.
    Refuse(Response),
}

/// Everything that sockets are served with.
#[derive(Debug)]
pub(crate) struct Router {
    node: Arc<NodeHandle>,
    client_rules: Arc<ClientRules>,
    api_key: ApiKey,
    origins: Origins,
    /// In open mode.
    local: Option<Local>,
    queries: Arc<Queries>,
}

impl Router {
    /// A router to a node, under the rules that the configuration sets.
    pub(crate) fn new(config: &Config, node: Arc<NodeHandle>) -> Self {
        Self {
            client_rules: Arc::new(ClientRules::new(config)),
            queries: Arc::new(Queries::new(config, node.metrics())),
            api_key: ApiKey::new(config),
            origins: Origins::new(config),
            local: Local::new(config),
            node,
        }
    }

    /// The node that requests are for.
    pub(in crate::net) fn node(&self) -> &Arc<NodeHandle> {
        &self.node
    }

    /// The rules of WebSocket connections.
    pub(in crate::net) fn client_rules(&self) -> &Arc<ClientRules> {
        &self.client_rules
    }

    /// Who may query the database now.
    pub(in crate::net) fn queries(&self) -> &Arc<Queries> {
        &self.queries
    }

    /// Decides what becomes of a request of `client` by its head alone. `scheme`: by which the client asks, if known.
    pub(super) fn route(&self, head: &Head, client: ClientAddress, scheme: Option<Scheme>) -> Route {
        let metrics = self.node.metrics();
        if let Some(Err(response)) = self.local.as_ref().map(|local| local.check(head, metrics)) {
            return Route::Refuse(response);
        }
        if head.path == WEBSOCKET_PATH {
            return match upgrade(head, || self.origins.check(head, scheme, metrics)) {
                Ok((format, answer)) => Route::Upgrade(format, answer),
                Err(response) => Route::Refuse(response),
            };
        }
        let is_api = api_method(head).is_some();
        let body = if is_api {
            if let Err(response) = self.authorize(head, client, scheme) {
                return Route::Refuse(response);
            }
            head.body()
        } else {
            head.no_body().map(|()| Body::Length(0))
        };
        match body {
            Ok(body) => Route::Respond { body, is_keyed: is_api && self.api_key.is_set() },
            Err(BadRequest(status, text)) => Route::Refuse(Response::text(status, text)),
        }
    }

    /// Answers a request, which [`route`](Self::route) let pass.
    pub(super) fn respond(&self, head: &Head, body: &[u8]) -> Response {
        match api_method(head) {
            Some(method) => api::respond(head, method, body, &self.node),
            None => self.respond_to_path(head),
        }
    }

    /// The query that a request takes before its answer.
    pub(super) fn query(&self, head: &Head) -> Option<Kind> {
        api_method(head).and_then(api::query)
    }

    /// The answer to a request that has waited in vain until it might query the database.
    pub(super) fn respond_too_late(&self, head: &Head) -> Response {
        api::respond_too_late(head, &self.node)
    }

    pub(super) fn count(&self, status: u16) {
        self.node.metrics().http_requests_total.with_label_values(&[&status.to_string()]).inc();
    }

    /// Checks that a request may use the API. The origin counts too, because a page that a user
    /// visits could otherwise post to a server on the same machine.
    fn authorize(&self, head: &Head, client: ClientAddress, scheme: Option<Scheme>) -> Result<(), Response> {
        let metrics = self.node.metrics();
        api::authorize(head, &self.api_key, client, &self.client_rules.rates, metrics)?;
        self.origins.check(head, scheme, metrics)
    }

    fn respond_to_path(&self, head: &Head) -> Response {
        let reading = matches!(head.method.as_str(), "GET" | "HEAD");
        match head.path.as_str() {
            "/" | "/index.html" if reading => Response::new(200, "text/html; charset=utf-8", page::HTML),
            "/health" if reading => health(&self.node),
            "/metrics" if reading => metrics(head, &self.node),
            "/" | "/index.html" | "/health" | "/metrics" => Response::method_not_allowed("GET, HEAD"),
            _ => Response::text(404, "not found; the page is at /, the WebSocket at /connection/websocket"),
        }
    }
}

fn metrics(head: &Head, node: &NodeHandle) -> Response {
    // Rooms first: they answer after the fan-outs under way, which the counters then include.
    let rooms = match head.query_value("rooms") {
        None => String::new(),
        Some(wanted) => match api::room_metrics(wanted, node) {
            Some(rooms) => rooms,
            None => {
                return Response::text(400, "rooms must be the number of busiest rooms to list, 1 to 1000");
            }
        },
    };
    let text = node.render_metrics() + &rooms;
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// The method that a request to the API names.
fn api_method(head: &Head) -> Option<&str> {
    let rest = head.path.strip_prefix("/api")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn health(node: &NodeHandle) -> Response {
    match node.health() {
        Health::Up => Response::json(200, healthy(node).to_string()),
        Health::Down { reason, .. } => {
            let problem = format!("the database does not answer: {reason}");
            let body = serde_json::json!({ "problems": [problem] });
            Response::json(503, body.to_string())
        }
    }
}

/// Nothing, unless there is something that an operator should know.
fn healthy(node: &NodeHandle) -> serde_json::Value {
    match node.last_fork() {
        None => serde_json::json!({}),
        Some(fork) => {
            let notice = format!("the history of the database forked at {} ms: {}", fork.at_ms, fork.reason);
            serde_json::json!({ "notices": [notice] })
        }
    }
}

/// The answer that makes the socket a WebSocket, or the one that says why it does not become one.
fn upgrade(
    head: &Head,
    check_origin: impl FnOnce() -> Result<(), Response>,
) -> Result<(Format, String), Response> {
    if head.method != "GET" {
        return Err(Response::method_not_allowed("GET"));
    }
    if let Err(BadRequest(status, text)) = head.no_body() {
        return Err(Response::text(status, text));
    }
    // HTTP/1.0 has no upgrades, whatever its headers say (RFC 9110 §7.8).
    let is_upgrade =
        head.is_http_11 && head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
    let key = head.only_line("sec-websocket-key").filter(|key| is_websocket_key(key));
    let (true, Some(key)) = (is_upgrade, key) else {
        return Err(Response::text(400, "this is a WebSocket address: connect with ws:// or an SDK"));
    };
    if head.only_line("sec-websocket-version") != Some("13") {
        return Err(Response::text(426, "only WebSocket version 13 is supported"));
    }
    check_origin()?;
    let (format, subprotocol) = choose_format(head);
    let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    let subprotocol = subprotocol.unwrap_or_default();
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    );
    Ok((format, answer))
}

/// The format that a client wants, and the subprotocol to answer: of those it offers, the first that means this
/// format. The query decides before the offers; who wants nothing in particular gets JSON.
fn choose_format(head: &Head) -> (Format, Option<&'static str>) {
    let offered = || {
        let known = |token: &str| SUBPROTOCOLS.into_iter().find(|(name, _)| token.eq_ignore_ascii_case(name));
        head.tokens("sec-websocket-protocol").filter_map(known)
    };
    let is_asked = |key| head.query_value(key) == Some("protobuf");
    let format = match is_asked("format") || is_asked("cf_protocol") {
        true => Format::Protobuf,
        false => offered().next().map(|(_, format)| format).unwrap_or_default(),
    };
    let subprotocol = offered().find(|(_, offered)| *offered == format).map(|(name, _)| name);
    (format, subprotocol)
}

/// True for 16 bytes as base64 (RFC 6455 §4.1).
fn is_websocket_key(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|key| key.len() == 16)
}
