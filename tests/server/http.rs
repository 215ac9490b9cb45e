//! HTTP: health, metrics, every API method, and what a careless or hostile client gets.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::frames::{BINARY, TEXT};
use crate::support::http::{HttpConnection, request};
use crate::support::server::TestServer;
use crate::support::websocket::WebSocket;

const KEY: &str = "X-API-Key: key\r\n";

#[test]
fn health_page_and_unknown_paths() {
    let server = TestServer::start();
    let health = server.get("/health");
    assert_eq!((health.status, health.body.as_str()), (200, "{}"));
    let page = server.get("/");
    assert!(page.status == 200 && page.head.contains("Content-Type: text/html"), "{}", page.head);
    assert!(page.head.contains("Content-Security-Policy: default-src 'none'"), "{}", page.head);
    for path in ["/nothing", "/apis", "/connection/websocket/", "/../etc/passwd"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.post("/health", "", "").status, 405);
    assert_eq!(server.get("/connection/websocket").status, 400);
}

#[test]
fn metrics_have_their_names() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("room");
    ann.publish("room", "1");
    ann.expect_numbers(1..=1);
    for (name, value) in [
        ("connections", 1),
        ("rooms_active", 1),
        ("activations_total", 1),
        ("listeners", 1),
        ("publications_total", 1),
        ("deliveries_total", 1),
        ("store_up{lane=\"0\"}", 1),
        ("commit_batch_rows_sum", 1),
        ("commit_failures_total", 0),
        ("catch_ups_total", 0),
        ("commands_total{method=\"connect\"}", 1),
        ("commands_total{method=\"publish\"}", 1),
    ] {
        assert_eq!(server.metric(name), value, "{name}");
    }
    let text = server.get("/metrics").body;
    for name in
        ["commit_seconds_bucket", "fanout_seconds_bucket", "publish_ack_seconds_bucket", "outbox_bytes"]
    {
        assert!(text.contains(&format!("\nroomcast_{name}")), "{name}");
    }
}

on_both_databases! {
    publish_broadcast_and_history(server) {
        let mut ann = server.connect("ann");
        ann.join("a");
        ann.join("b");
        let reply = server.api("broadcast", r#"{"channels":["a","b","nope:c","typing:d"],"data":{"x":1}}"#);
        assert_eq!(reply, r#"{"result":{"responses":[{"result":{"offset":1,"epoch":"E"}},{"result":{"offset":1,"epoch":"E"}},{"error":{"code":102,"message":"unknown channel"}},{"result":{}}]}}"#);
        let mut pushes = [ann.next_push(), ann.next_push()];
        pushes.sort();
        assert_eq!(pushes, ["a", "b"].map(|channel| format!(r#"{{"push":{{"channel":"{channel}","pub":{{"data":{{"x":1}},"offset":1}}}}}}"#)));
        let history = server.api("history", r#"{"channel":"a","limit":10}"#);
        assert_eq!(history, r#"{"result":{"publications":[{"data":{"x":1},"offset":1}],"epoch":"E","offset":1}}"#);
    }
}

on_both_databases! {
    an_idempotency_key_publishes_once(server) {
        let mut ann = server.connect("ann");
        ann.join("room");
        let publish = r#"{"channel":"room","data":1,"idempotency_key":"k"}"#;
        for _ in 0..3 {
            assert_eq!(server.api("publish", publish), r#"{"result":{"offset":1,"epoch":"E"}}"#);
        }
        server.restart();
        assert_eq!(server.api("publish", publish), r#"{"result":{"offset":1,"epoch":"E"}}"#);
        let other = server.api("publish", r#"{"channel":"other","data":1,"idempotency_key":"k"}"#);
        assert_eq!(other, r#"{"result":{"offset":1,"epoch":"E"}}"#, "keys are per room");
        ann.expect_numbers(1..=1);
        assert_eq!(ann.expect_close(3001), "shutdown");
    }
}

#[test]
fn payloads_in_base64() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("room");
    server.api("publish", r#"{"channel":"room","b64data":"eyJhIjogMX0="}"#);
    ann.expect_push(r#"{"channel":"room","pub":{"data":{"a": 1},"offset":1}}"#);
    let bad = server.api("publish", r#"{"channel":"room","b64data":"bm8ganNvbg=="}"#);
    assert!(bad.starts_with(r#"{"error":{"code":107"#), "{bad}");
}

#[test]
fn presence_channels_and_info() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let _bob = server.connect("bob");
    ann.join("room");
    let presence = server.api("presence", r#"{"channel":"room"}"#);
    assert_eq!(presence, r#"{"result":{"presence":{"<ann>":{"user":"ann","client":"<ann>"}}}}"#);
    let stats = server.api("presence_stats", r#"{"channel":"room"}"#);
    assert_eq!(stats, r#"{"result":{"num_clients":1,"num_users":1}}"#);
    assert_eq!(server.api("channels", "{}"), r#"{"result":{"channels":{"room":{"num_clients":1}}}}"#);
    assert_eq!(server.api("channels", r#"{"pattern":"x*"}"#), r#"{"result":{"channels":{}}}"#);
    let info = server.api("info", "{}");
    for part in
        [r#""num_clients":2"#, r#""num_users":2"#, r#""num_channels":1"#, r#""num_subs":1"#, r#""version":"#]
    {
        assert!(info.contains(part), "{part} in {info}");
    }
}

#[test]
fn disconnect_and_unsubscribe_reach_live_sockets() {
    let server = TestServer::start();
    let (mut ann, mut ann2, mut bob) = (server.connect("ann"), server.connect("ann"), server.connect("bob"));
    for client in [&mut ann, &mut ann2, &mut bob] {
        client.join("room");
    }
    let one = format!(r#"{{"user":"ann","channel":"room","client":"{}"}}"#, ann.id);
    server.api("unsubscribe", &one);
    ann.expect_push(r#"{"channel":"room","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}"#);
    server.api("publish", r#"{"channel":"room","data":1}"#);
    ann2.expect_numbers(1..=1);
    ann.expect_silence("room");
    server.api("disconnect", r#"{"user":"ann"}"#);
    ann.expect_close(3503);
    ann2.expect_close(3503);
    bob.expect_numbers(1..=1);
    bob.expect_silence("room");
}

on_both_databases! {
    rooms(server) {
        let created = server.api("room_create", r#"{"channel":"made:a","members":["bob","ann"]}"#);
        assert!(created.starts_with(r#"{"result":{"channel":"made:a","kind":"group","#), "{created}");
        let again = server.api("room_create", r#"{"channel":"made:a","members":["cid"]}"#);
        assert_eq!(again, r#"{"error":{"code":113,"message":"conflict: a room of that name exists"}}"#);
        server.api("publish", r#"{"channel":"made:a","data":1}"#);
        let info = server.api("room_info", r#"{"channel":"made:a"}"#);
        assert!(info.contains(r#""head":1"#) && info.contains(r#""epoch":"E""#), "{info}");
        for user in ["ann", "bob"] {
            assert!(info.contains(&format!(r#""user":"{user}""#)), "{info}");
        }
        let missing = server.api("room_info", r#"{"channel":"made:b"}"#);
        assert_eq!(missing, r#"{"error":{"code":102,"message":"unknown channel: the room does not exist"}}"#);
    }
}

#[test]
fn the_api_refuses_a_wrong_key() {
    let server = TestServer::secured("");
    for headers in
        ["", "X-API-Key: kez\r\n", "X-API-Key: keyy\r\n", "X-API-Key:\r\n", "Authorization: key\r\n"]
    {
        let answer = server.post("/api/info", headers, "{}");
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{headers}");
    }
    for (path, headers) in [
        ("/api/info", KEY),
        ("/api/info", "x-api-key: key\r\n"),
        ("/api/info", "Authorization: apikey key\r\n"),
        ("/api/info?api_key=key", ""),
    ] {
        assert_eq!(server.post(path, headers, "{}").status, 200, "{path} {headers}");
    }
}

#[test]
fn without_a_key_there_is_no_api_in_secured_mode() {
    let server = TestServer::with("[client]\ntoken_hmac_secret = \"a secret only the tests know\"\n");
    assert_eq!(server.post("/api/info", "X-API-Key:\r\n", "{}").status, 401);
}

#[test]
fn bad_api_requests_are_refused() {
    let server = TestServer::start();
    assert_eq!(server.get("/api/info").status, 405);
    assert_eq!(server.post("/api/dance", "", "{}").status, 404);
    for body in ["{", "hello", "\u{1}", "{} {}", "{\"channel\":5,"] {
        assert_eq!(server.post("/api/publish", "", body).status, 400, "{body:?}");
    }
    for (method, params, code) in [
        ("publish", "", 107),
        ("publish", "5", 107),
        ("publish", "[]", 107),
        ("publish", r#"{"channel":"a"}"#, 107),
        ("publish", r#"{"data":1}"#, 107),
        ("publish", r#"{"channel":"a b","data":1}"#, 107),
        ("publish", r#"{"channel":5,"data":1}"#, 107),
        ("publish", r#"{"channel":"nope:a","data":1}"#, 102),
        ("broadcast", r#"{"channels":[],"data":1}"#, 107),
        ("history", r#"{"channel":"typing:a"}"#, 108),
        ("history", r#"{"channel":"a","since":{"offset":1,"epoch":"other"}}"#, 112),
        ("presence", r#"{"channel":"nope:a"}"#, 102),
        ("disconnect", r#"{}"#, 107),
        ("contact_add", r#"{"user":"ann","contact":"ann"}"#, 107),
        ("room_create", r#"{"channel":"typing:a"}"#, 108),
    ] {
        let answer = server.api(method, params);
        assert!(
            answer.starts_with(&format!(r#"{{"error":{{"code":{code},"message":"#)),
            "{method} {params}: {answer}"
        );
    }
}

#[test]
fn errors_may_be_told_by_status() {
    let server = TestServer::start();
    let headers = "X-Centrifugo-Error-Mode: transport\r\n";
    for (params, status, code) in [
        (r#"{"channel":"nope:a"}"#, 404, 102),
        (r#"{"channel":"a b"}"#, 400, 107),
        (r#"{"channel":"typing:a"}"#, 400, 108),
        (r#"{"channel":"a","since":{"offset":1,"epoch":"other"}}"#, 416, 112),
    ] {
        let answer = server.post("/api/history", headers, params);
        assert_eq!(answer.status, status, "{params}");
        assert!(answer.body.starts_with(&format!(r#"{{"code":{code},"message":"#)), "{}", answer.body);
    }
}

#[test]
fn one_connection_carries_many_requests() {
    let server = TestServer::start();
    let mut connection = HttpConnection::open(server.address);
    for _ in 0..3 {
        connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(connection.read(true).body, "{}");
    }
    connection.send(
        "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    let answer = connection.read(false);
    assert!(answer.status == 200 && answer.head.contains("Content-Length: 2\r\n"), "{}", answer.head);
    assert_eq!(connection.read(true).body, "{}", "pipelined");
    connection.send(
        "POST /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
    );
    assert!(connection.read(false).head.starts_with("HTTP/1.1 100 "));
    connection.send("{}");
    assert_eq!(connection.read(true).status, 200);
    connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(connection.read(true).head.contains("Connection: close"));
    assert!(connection.is_closed());
}

/// Sends bytes that end their connection with this status, whatever follows them.
#[track_caller]
fn expect_end(server: &TestServer, bytes: &str, status: u16) {
    let mut connection = HttpConnection::open(server.address);
    connection.send(bytes);
    let told = &bytes[..bytes.len().min(120)];
    assert_eq!(connection.read(true).status, status, "{told:?}");
    assert!(connection.is_closed(), "{told:?}");
}

#[test]
fn text_that_is_not_http_is_refused() {
    let server = TestServer::start();
    let host = "Host: localhost\r\n";
    for (bytes, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        (format!("GET /health HTTP/1.1\n{host}\n"), 400),
        (format!("GET health HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9000)), 431),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(9000)), 431),
        (format!("GET /health HTTP/1.1\r\n{host}Content-Length: 4194304\r\n\r\n"), 413),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n"), 413),
        (format!("POST /api/info HTTP/1.1\r\n{host}Content-Length: 99999999999\r\n\r\n"), 413),
    ] {
        expect_end(&server, &bytes, status);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_body_has_one_length() {
    let server = TestServer::start();
    let next = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for lines in [
        "Content-Length: 2\r\nContent-Length: 44",
        "Content-Length: 44\r\ncontent-length: 2",
        "Content-Length: 0\r\nContent-Length: 44",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 44",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -1",
        "Content-Length: \u{a0}2",
        "Content-Length: 0x2",
        "Content-Length: 2 2",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length : 2",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \u{b}chunked",
    ] {
        for path in ["/api/info", "/health", "/connection/websocket"] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{{}}{next}");
            expect_end(&server, &request, 400);
        }
    }
    let old = "POST /api/info HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    expect_end(&server, old, 400);
}

#[test]
fn a_body_may_come_in_chunks() {
    let server = TestServer::start();
    let head = "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let chunks = "9;x=\"y\"\r\n{\"channel\r\n014\r\n\":\"room\",\"data\":123}\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n";
    let mut connection = HttpConnection::open(server.address);
    // Together with the next request, and byte by byte.
    connection.send(&format!("{head}{chunks}{head}"));
    for byte in chunks.bytes() {
        connection.socket.write_all(&[byte]).unwrap();
    }
    for number in 1..=2 {
        let answer = connection.read(true);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains(&format!("\"offset\":{number}")), "{}", answer.body);
    }
    connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(connection.read(true).status, 200, "the connection is where it should be");

    let large = format!("{{\"channel\":\"room\",\"data\":\"{}\"}}", "x".repeat(60_000));
    connection.send(&format!("{head}{:x}\r\n{large}\r\n0\r\n\r\n", large.len()));
    assert_eq!(connection.read(true).status, 200);

    for (chunks, status) in [
        ("2\n{}\r\n0\r\n\r\n", 400),
        ("2 \r\n{}\r\n0\r\n\r\n", 400),
        ("0x2\r\n{}\r\n0\r\n\r\n", 400),
        ("2\r\n{}GET / HTTP/1.1\r\n\r\n", 400),
        ("400001\r\n", 413),
        ("ffffffffffffffff\r\n", 413),
    ] {
        expect_end(&server, &format!("{head}{chunks}"), status);
    }
    let most = format!("100000\r\n{}\r\n", " ".repeat(1 << 20)).repeat(4);
    expect_end(&server, &format!("{head}{most}1\r\n"), 413);
}

#[test]
fn a_client_in_chunks_may_wait_for_a_word() {
    let server = TestServer::start();
    let mut connection = HttpConnection::open(server.address);
    let head = "POST /api/info HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n";
    connection.send(&format!("{head}Expect: 100-continue\r\n\r\n"));
    assert!(connection.read(false).head.starts_with("HTTP/1.1 100 "));
    connection.send("2\r\n{}\r\n0\r\n\r\n");
    assert_eq!(connection.read(true).status, 200);
}

#[test]
fn a_request_has_one_host() {
    let server = TestServer::start();
    for lines in [
        "",
        "Host:\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost, evil.test\r\n",
        "Host: evil@localhost\r\n",
        "Host: localhost/\r\n",
    ] {
        expect_end(&server, &format!("GET /health HTTP/1.1\r\n{lines}\r\n"), 400);
    }
    let port = server.address.port();
    for (target, host, status) in [
        (format!("http://localhost:{port}/health"), "localhost", 200),
        (format!("HTTP://127.0.0.1:{port}/health?x=y"), "localhost", 200),
        // The target says which host is meant, whatever else is said.
        ("http://localhost/health".to_owned(), "evil.test", 200),
        ("http://evil.test/health".to_owned(), "localhost", 403),
        ("http://evil@localhost/health".to_owned(), "localhost", 400),
        ("ftp://localhost/health".to_owned(), "localhost", 400),
    ] {
        let mut connection = HttpConnection::open(server.address);
        connection.send(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.read(true).status, status, "{target}");
    }
    let mut old = HttpConnection::open(server.address);
    old.send("GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(old.read(true).status, 200);
    assert!(old.is_closed());
}

/// The one test that lives through a real deadline: a head of one byte now and then is cut off.
#[test]
fn a_head_that_trickles_is_cut_off() {
    let server = TestServer::start();
    let mut connection = HttpConnection::open(server.address);
    connection.socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let start = Instant::now();
    let mut bytes = "GET /health HTTP/1.1\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x'));
    let mut answer = Vec::new();
    while answer.is_empty() && start.elapsed() < crate::support::PATIENCE {
        // The pace of the attack is the read timeout; the server may close in between.
        let _ = connection.socket.write_all(&[bytes.next().unwrap()]);
        let mut chunk = [0; 512];
        if let Ok(count) = std::io::Read::read(&mut connection.socket, &mut chunk) {
            answer.extend_from_slice(&chunk[..count]);
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn origins() {
    let own = TestServer::start();
    let port = own.address.port();
    let allowing = TestServer::with("[client]\nallowed_origins = [\"https://*.example.com\"]\n");
    for (server, headers, status) in [
        (&own, "Origin: https://evil.example".to_owned(), "403"),
        (&own, "Origin: null".to_owned(), "403"),
        (&own, format!("Origin: http://{}", own.address), "101"),
        (&own, format!("Origin: https://{}", own.address), "403"),
        (&own, format!("Origin: chrome-extension://{}", own.address), "403"),
        (&own, format!("Origin: http://localhost:{port}"), "403"),
        (&own, format!("Origin: http://{}\r\nOrigin: https://evil.example", own.address), "403"),
        (&own, "Sec-Fetch-Site: cross-site".to_owned(), "403"),
        (&own, "Sec-Fetch-Site: same-site".to_owned(), "403"),
        (&own, format!("Sec-Fetch-Site: same-origin\r\nOrigin: http://{}", own.address), "101"),
        (&allowing, "Origin: https://app.example.com".to_owned(), "101"),
        (&allowing, "Origin: https://app.example.com:443\r\nSec-Fetch-Site: cross-site".to_owned(), "101"),
        (&allowing, "Origin: https://example.com.evil.test".to_owned(), "403"),
    ] {
        let (head, _) = WebSocket::try_open(server.address, &format!("{headers}\r\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {head}");
        let answer = server.post("/api/info", &format!("{headers}\r\n"), "{}");
        assert_eq!(answer.status == 403, status == "403", "{headers}: {}", answer.body);
    }
    assert_eq!(own.metric("bad_input_total{kind=\"origin\"}"), 16);
    // A link from elsewhere leads to the page.
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(request(own.address, "GET", "/", link, "").status, 200);
}

/// The head of the answer to a WebSocket that is asked for by another name than that of the address.
fn upgrade_as(server: &TestServer, host: &str, headers: &str) -> String {
    let mut connection = HttpConnection::open(server.address);
    connection.send(&format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    ));
    connection.read(false).head
}

#[test]
fn pages_behind_a_proxy() {
    let settings = "trusted_proxies = [\"loopback\"]\n";
    let server = TestServer::secured(settings);
    for (host, origin, proto, status) in [
        ("chat.example.com:443", "https://chat.example.com", "", "101"),
        ("chat.example.com:80", "http://chat.example.com", "", "101"),
        ("chat.example.com", "https://chat.example.com", "X-Forwarded-Proto: https\r\n", "101"),
        ("chat.example.com", "https://chat.example.com", "X-Forwarded-Proto: wss\r\n", "101"),
        ("chat.example.com:8443", "https://chat.example.com:8443", "X-Forwarded-Proto: https\r\n", "101"),
        ("chat.example.com:8443", "https://chat.example.com", "", "403"),
        ("chat.example.com", "http://chat.example.com", "X-Forwarded-Proto: https\r\n", "403"),
        ("chat.example.com", "https://chat.example.com", "X-Forwarded-Proto: http\r\n", "403"),
    ] {
        let head = upgrade_as(&server, host, &format!("Origin: {origin}\r\n{proto}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{origin} at {host}, {proto}: {head}");
    }
    // Who is not trusted does not say how it was reached.
    let stranger = TestServer::secured("");
    let lie = "Origin: https://chat.example.com\r\nX-Forwarded-Proto: http\r\n";
    assert!(upgrade_as(&stranger, "chat.example.com", lie).starts_with("HTTP/1.1 101 "));
}

#[test]
fn an_open_server_is_for_this_machine_only() {
    let open = TestServer::with("[client]\nallowed_origins = [\"http://dev.test:3000\"]\n");
    let port = open.address.port();
    for (host, headers, is_refused) in [
        (format!("localhost:{port}"), "", false),
        (format!("127.0.0.1:{port}"), "", false),
        ("[::1]".to_owned(), "", false),
        (format!("dev.test:{port}"), "Origin: http://dev.test:3000\r\n", false),
        // A name of an attacker that leads to loopback.
        (format!("evil.example:{port}"), "", true),
        (format!("evil.example:{port}"), "Origin: http://evil.example:PORT\r\n", true),
        (format!("0.0.0.0:{port}"), "", true),
        ("chat.example.com".to_owned(), "X-Forwarded-For: 203.0.113.9\r\n", true),
        // A proxy in front.
        ("localhost".to_owned(), "X-Forwarded-For: 203.0.113.9\r\n", true),
        ("localhost".to_owned(), "Forwarded: for=203.0.113.9\r\n", true),
        ("localhost".to_owned(), "X-Forwarded-Proto: https\r\n", true),
        ("localhost".to_owned(), "X-Real-IP: 203.0.113.9\r\n", true),
        ("localhost".to_owned(), "Via: 1.1 proxy\r\n", true),
    ] {
        let headers = headers.replace("PORT", &port.to_string());
        for (method, path) in [("GET", "/"), ("GET", "/health"), ("GET", "/metrics"), ("POST", "/api/info")] {
            let mut connection = HttpConnection::open(open.address);
            connection.send(&format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
            let status = connection.read(true).status;
            assert_eq!(status, if is_refused { 403 } else { 200 }, "{path} at {host} with {headers}");
        }
        let head = upgrade_as(&open, &host, &headers);
        let status = if is_refused { "403" } else { "101" };
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host} with {headers}: {head}");
    }
    let mut old = HttpConnection::open(open.address);
    old.send("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(old.read(true).status, 403, "no name at all");
    assert_eq!(open.metric("bad_input_total{kind=\"host\"}"), 3 * 5 + 1);
    assert_eq!(open.metric("bad_input_total{kind=\"proxied\"}"), 6 * 5);
}

#[test]
fn subprotocols_and_upgrades() {
    let server = TestServer::start();
    let (json, protobuf) = ("centrifuge-json", "centrifuge-protobuf");
    for (query, headers, answered) in [
        ("", "Sec-WebSocket-Protocol:\r\n", None),
        ("", "Sec-WebSocket-Protocol: \r\n", None),
        ("", "Sec-WebSocket-Protocol: centrifuge-json\r\n", Some(json)),
        ("", "Sec-WebSocket-Protocol: chat\r\n", None),
        ("", "Sec-WebSocket-Protocol: centrifuge-json, centrifuge-protobuf\r\n", Some(json)),
        ("", "Sec-WebSocket-Protocol: centrifuge-protobuf,centrifuge-json\r\n", Some(protobuf)),
        ("", "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: CENTRIFUGE-JSON\r\n", Some(json)),
        ("", "Sec-WebSocket-Protocol: chat, ,centrifuge-protobuf , x\r\n", Some(protobuf)),
        ("", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", None),
        ("?format=json", "", None),
        ("?format=protobuf", "", None),
        ("?a=b&cf_protocol=protobuf", "", None),
        ("?format=protobuf", "Sec-WebSocket-Protocol: centrifuge-json\r\n", None),
        (
            "?format=protobuf",
            "Sec-WebSocket-Protocol: centrifuge-json, centrifuge-protobuf\r\n",
            Some(protobuf),
        ),
    ] {
        let path = format!("/connection/websocket{query}");
        let (head, socket) = WebSocket::try_open_at(server.address, &path, headers);
        assert!(head.starts_with("HTTP/1.1 101 "), "{headers}: {head}");
        let line = answered.map(|name| format!("Sec-WebSocket-Protocol: {name}"));
        let given = head.lines().find(|line| line.starts_with("Sec-WebSocket-Protocol"));
        assert_eq!(given.map(str::to_owned), line, "{query} {headers}");
        assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
        let (socket, received) = socket.unwrap();
        let mut websocket = WebSocket::resume(socket, received);
        let speaks_protobuf = query.contains("protobuf") || answered == Some(protobuf);
        match speaks_protobuf {
            true => websocket.send_binary(b"\x04\x08\x01\x22\x00"),
            false => websocket.send_text(r#"{"id":1,"connect":{}}"#),
        }
        let expected = if speaks_protobuf { BINARY } else { TEXT };
        assert_eq!(websocket.read().unwrap().opcode, expected, "{query} {headers}");
    }
    let old = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let refused = request(server.address, "GET", "/connection/websocket", old, "");
    assert_eq!(refused.status, 426);
    assert!(refused.head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{}", refused.head);
}

#[test]
fn upgrades_that_are_none() {
    let server = TestServer::start();
    let upgrade = |version: &str, lines: &str| {
        let mut connection = HttpConnection::open(server.address);
        connection.send(&format!(
            "GET /connection/websocket {version}\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{lines}\r\n\r\n"
        ));
        connection.read(false).status
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    assert_eq!(upgrade("HTTP/1.1", key), 101);
    assert_eq!(upgrade("HTTP/1.1", &format!("{key}\r\nContent-Length: 0")), 101);
    assert_eq!(upgrade("HTTP/1.0", key), 400);
    for (lines, status) in [
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ".to_owned(), 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=".to_owned(), 400),
        ("Sec-WebSocket-Key: ????????????????????????".to_owned(), 400),
        ("Sec-WebSocket-Key:".to_owned(), 400),
        (format!("{key}\r\n{key}"), 400),
        (format!("{key}\r\nSec-WebSocket-Version: 8"), 426),
        (format!("{key}\r\nContent-Length: 2"), 413),
        (format!("{key}\r\nTransfer-Encoding: chunked"), 413),
    ] {
        assert_eq!(upgrade("HTTP/1.1", &lines), status, "{lines}");
    }
}
