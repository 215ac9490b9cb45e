//! The first request of a socket decides what it is: a WebSocket, or HTTP requests one by one.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::message::{BadRequest, Head, RequestReader, Response, write_all};
use super::origin::Origins;
use super::page;
use crate::config::Config;
use crate::net::api::{self, ApiKey};
use crate::net::client_rules::ClientRules;
use crate::net::sockets::ConnectionPermit;
use crate::net::websocket;
use crate::node::{Health, NodeHandle};

/// Path of the WebSocket protocol.
const WEBSOCKET_PATH: &str = "/connection/websocket";

/// Subprotocols SDKs may offer; the second is one this server does not speak.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";

/// Everything that sockets are served with.
#[derive(Debug)]
pub(crate) struct Router {
    node: Arc<NodeHandle>,
    client_rules: Arc<ClientRules>,
    api_key: ApiKey,
    origins: Origins,
}

impl Router {
    /// A router to a node, under the rules that the configuration sets.
    pub(crate) fn new(config: &Config, node: Arc<NodeHandle>) -> Self {
        Self {
            node,
            client_rules: Arc::new(ClientRules::new(config)),
            api_key: ApiKey::new(config),
            origins: Origins { allowed: config.client.allowed_origins.clone() },
        }
    }

    /// Serves one accepted socket until it ends.
    pub(in crate::net) fn serve(&self, socket: &Arc<TcpStream>, peer: SocketAddr, permit: &ConnectionPermit) {
        let mut requests = RequestReader::new(socket);
        let mut first = true;
        loop {
            let head = match requests.head(first) {
                Ok(head) => head,
                Err(bad) => return self.refuse(socket, bad),
            };
            first = false;
            if head.path == WEBSOCKET_PATH {
                return self.serve_websocket(socket, &head, requests.into_rest(), permit);
            }
            if let Some(Err(response)) = api_method(&head).map(|_| self.authorize(&head)) {
                // Its body is not read, so nothing can follow it on this connection.
                return drop(self.answer(socket, &head, &response, false));
            }
            let response = match api_method(&head) {
                Some(method) => {
                    requests.body(&head).map(|body| api::respond(&head, method, &body, &self.node))
                }
                None => requests.no_body(&head).map(|()| self.respond(&head)),
            };
            let response = match response {
                Ok(response) => response,
                Err(bad) => return self.refuse(socket, bad),
            };
            tracing::debug!(%peer, method = head.method, path = head.path, status = response.status, "http");
            if self.answer(socket, &head, &response, head.keep_alive()).is_err() || !head.keep_alive() {
                return;
            }
        }
    }

    fn serve_websocket(
        &self,
        socket: &Arc<TcpStream>,
        head: &Head,
        early: Vec<u8>,
        permit: &ConnectionPermit,
    ) {
        match upgrade(head, || self.origins.check(head, self.node.metrics())) {
            Ok(answer) => {
                if write_all(socket, answer.as_bytes()).is_ok() {
                    websocket::serve(socket, early, permit, &self.node, &self.client_rules);
                }
            }
            Err(response) => drop(self.answer(socket, head, &response, false)),
        }
    }

    /// Checks that a request may use the API. The origin counts too, because a page that a user
    /// visits could otherwise post to a server on the same machine.
    fn authorize(&self, head: &Head) -> Result<(), Response> {
        api::authorize(head, &self.api_key)?;
        self.origins.check(head, self.node.metrics())
    }

    fn answer(
        &self,
        socket: &TcpStream,
        head: &Head,
        response: &Response,
        keep_alive: bool,
    ) -> std::io::Result<()> {
        self.count(response.status);
        response.write(socket, keep_alive, head.method == "HEAD")
    }

    fn refuse(&self, socket: &TcpStream, bad: BadRequest) {
        if let BadRequest::Status(status, text) = bad {
            self.count(status);
            // The peer may be gone by now; it was told if it is not.
            let _ = Response::text(status, text).write(socket, false, false);
        }
    }

    fn count(&self, status: u16) {
        self.node.metrics().http_requests_total.with_label_values(&[&status.to_string()]).inc();
    }

    fn respond(&self, head: &Head) -> Response {
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
    let text = node.metrics().render() + &rooms;
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// The method that a request to the API names.
fn api_method(head: &Head) -> Option<&str> {
    let rest = head.path.strip_prefix("/api")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn health(node: &NodeHandle) -> Response {
    match node.health() {
        Health::Up => Response::json(200, "{}"),
        Health::Down { reason, .. } => {
            let problem = format!("the database does not answer: {reason}");
            let body = serde_json::json!({ "problems": [problem] });
            Response::json(503, body.to_string())
        }
    }
}

/// The answer that makes the socket a WebSocket, or the one that says why it does not become one.
fn upgrade(head: &Head, check_origin: impl FnOnce() -> Result<(), Response>) -> Result<String, Response> {
    if head.method != "GET" {
        return Err(Response::method_not_allowed("GET"));
    }
    let is_upgrade = head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
    let key = head.header("sec-websocket-key").filter(|key| key.len() == 24);
    let (true, Some(key)) = (is_upgrade, key) else {
        return Err(Response::text(400, "this is a WebSocket address: connect with ws:// or an SDK"));
    };
    if head.header("sec-websocket-version") != Some("13") {
        return Err(Response::text(426, "only WebSocket version 13 is supported"));
    }
    check_origin()?;
    let wants_protobuf = head.has_token("sec-websocket-protocol", PROTOBUF_SUBPROTOCOL)
        || head.query_value("format") == Some("protobuf")
        || head.query_value("cf_protocol") == Some("protobuf");
    if wants_protobuf {
        return Err(Response::text(400, "only the JSON protocol is supported, not Protobuf"));
    }
    let subprotocol = match head.has_token("sec-websocket-protocol", JSON_SUBPROTOCOL) {
        true => format!("Sec-WebSocket-Protocol: {JSON_SUBPROTOCOL}\r\n"),
        false => String::new(),
    };
    let accept = derive_accept_key(key.as_bytes());
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    ))
}
