//! The first request of a socket decides what it is: a WebSocket, or HTTP requests one by one.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;

use super::acceptor::Place;
use super::http::{BadRequest, Head, RequestReader, Response, write_all};
use super::services::Services;
use super::{api, connection, page};
use crate::store::Health;

/// Where clients speak the WebSocket protocol.
const WEBSOCKET_PATH: &str = "/connection/websocket";

/// Subprotocols SDKs may offer; the second is one this server does not speak.
const JSON_SUBPROTOCOL: &str = "centrifuge-json";
const PROTOBUF_SUBPROTOCOL: &str = "centrifuge-protobuf";

/// Serves one accepted socket until it ends.
pub(super) fn serve(socket: &Arc<TcpStream>, peer: SocketAddr, place: &Place) {
    let services = &place.services;
    let mut requests = RequestReader::new(socket);
    let mut first = true;
    loop {
        let head = match requests.head(first) {
            Ok(head) => head,
            Err(bad) => return refuse(socket, bad, services),
        };
        first = false;
        if head.path == WEBSOCKET_PATH {
            match upgrade(&head, services) {
                Ok(answer) => {
                    let early = requests.into_rest();
                    if write_all(socket, answer.as_bytes()).is_ok() {
                        connection::serve(socket, early, place);
                    }
                }
                Err(response) => drop(answer(socket, &head, &response, false, services)),
            }
            return;
        }
        if let Some(Err(response)) = api_method(&head).map(|_| api::admit(&head, services)) {
            // Its body is not read, so nothing can follow it on this connection.
            return drop(answer(socket, &head, &response, false, services));
        }
        let body = match requests.body(&head) {
            Ok(body) => body,
            Err(bad) => return refuse(socket, bad, services),
        };
        let response = match api_method(&head) {
            Some(method) => api::respond(&head, method, &body, services),
            None => respond(&head, services),
        };
        tracing::debug!(%peer, method = head.method, path = head.path, status = response.status, "http");
        if answer(socket, &head, &response, head.keep_alive(), services).is_err() || !head.keep_alive() {
            return;
        }
    }
}

fn answer(
    socket: &TcpStream,
    head: &Head,
    response: &Response,
    keep_alive: bool,
    services: &Services,
) -> std::io::Result<()> {
    services.metrics.http_requests_total.with_label_values(&[&response.status.to_string()]).inc();
    response.write(socket, keep_alive, head.method == "HEAD")
}

fn refuse(socket: &TcpStream, bad: BadRequest, services: &Services) {
    if let BadRequest::Status(status, words) = bad {
        services.metrics.http_requests_total.with_label_values(&[&status.to_string()]).inc();
        // The peer may be gone by now; it was told if it is not.
        let _ = Response::text(status, words).write(socket, false, false);
    }
}

fn respond(head: &Head, services: &Services) -> Response {
    let reading = matches!(head.method.as_str(), "GET" | "HEAD");
    match head.path.as_str() {
        "/" | "/index.html" if reading => Response::new(200, "text/html; charset=utf-8", page::HTML),
        "/health" if reading => health(services),
        "/metrics" if reading => metrics(head, services),
        "/" | "/index.html" | "/health" | "/metrics" => Response::method_not_allowed("GET, HEAD"),
        _ => Response::text(404, "nothing is here; the page is at /, the WebSocket at /connection/websocket"),
    }
}

fn metrics(head: &Head, services: &Services) -> Response {
    let mut text = services.metrics.render();
    if let Some(wanted) = head.query_value("rooms") {
        match api::room_metrics(wanted, services) {
            Some(rooms) => text.push_str(&rooms),
            None => return Response::text(400, "rooms is how many of the busiest rooms to list, 1 to 1000"),
        }
    }
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// The method that a request to the API names.
fn api_method(head: &Head) -> Option<&str> {
    let rest = head.path.strip_prefix("/api")?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn health(services: &Services) -> Response {
    match services.store.health() {
        Health::Up => Response::json(200, "{}"),
        Health::Down { reason, .. } => {
            let problem = format!("the database does not answer: {reason}");
            let body = serde_json::json!({ "problems": [problem] });
            Response::json(503, body.to_string())
        }
    }
}

/// The answer that makes the socket a WebSocket, or the one that says why it does not become one.
fn upgrade(head: &Head, services: &Services) -> Result<String, Response> {
    if head.method != "GET" {
        return Err(Response::method_not_allowed("GET"));
    }
    let is_upgrade = head.has_token("upgrade", "websocket") && head.has_token("connection", "upgrade");
    let key = head.header("sec-websocket-key").filter(|key| key.len() == 24);
    let (true, Some(key)) = (is_upgrade, key) else {
        return Err(Response::text(400, "this address speaks WebSocket: connect with ws:// or an SDK"));
    };
    if head.header("sec-websocket-version") != Some("13") {
        return Err(Response::text(426, "only WebSocket version 13 is spoken here"));
    }
    services.check_origin(head)?;
    let wants_protobuf = head.has_token("sec-websocket-protocol", PROTOBUF_SUBPROTOCOL)
        || head.query_value("format") == Some("protobuf")
        || head.query_value("cf_protocol") == Some("protobuf");
    if wants_protobuf {
        return Err(Response::text(400, "only the JSON protocol is spoken here, not Protobuf"));
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
