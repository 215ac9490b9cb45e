//! Who is at the other end, and what it may take: addresses behind proxies, sockets of one address, places
//! kept for HTTP, and what strangers hold.
//!
//! Loopback itself is never counted, so these clients come through a trusted proxy on this machine, which the
//! tests are.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::frames::{TEXT, frame};
use crate::support::http::{Answer, HttpConnection, read_head};
use crate::support::server::TestServer;
use crate::support::websocket::{PATH, WebSocket};

/// The proxy that some servers trust, and a peer on the same machine that they do not.
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Clients behind the proxy.
const ANN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const BOB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// A server that believes the proxy, with more settings of `client`. An open one takes nothing from a proxy.
fn behind_proxy(settings: &str) -> TestServer {
    TestServer::with(&format!("[client]\ninsecure = true\ntrusted_proxies = [\"{PROXY}\"]\n{settings}"))
}

/// The same for a proxy that speaks the PROXY protocol.
fn behind_proxy_protocol(settings: &str) -> TestServer {
    behind_proxy(&format!("proxy_protocol = true\n{settings}"))
}

/// A socket of this peer that begins with these bytes.
fn reach(server: &TestServer, peer: Ipv4Addr, first: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((peer, 0)).into()).unwrap();
    socket.connect(&server.address.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.set_nodelay(true).unwrap();
    socket.write_all(first).unwrap();
    socket
}

/// Asks for a WebSocket; the head of the answer when there is none.
fn upgrade(server: &TestServer, socket: TcpStream, headers: &str) -> Result<Client, String> {
    let (head, socket) = WebSocket::try_upgrade(socket, server.address, PATH, headers);
    let (socket, received) = socket.ok_or(head)?;
    Ok(Client::over(server, WebSocket::resume(socket, received)))
}

/// A WebSocket of a client that the proxy names by `X-Forwarded-For`.
fn forwarded(server: &TestServer, client: Ipv4Addr) -> Result<Client, String> {
    upgrade(server, reach(server, PROXY, b""), &format!("X-Forwarded-For: {client}\r\n"))
}

/// The same as soon as the server lets it in: a reply to `connect` may come a moment before it is counted.
fn forwarded_in_time(server: &TestServer, client: Ipv4Addr) -> Client {
    let mut opened = None;
    eventually("the address may open a socket", || {
        opened = forwarded(server, client).ok();
        opened.is_some()
    });
    opened.expect("it was opened")
}

/// The header of the PROXY protocol, version 2, for this client.
fn version_2(client: Ipv4Addr) -> Vec<u8> {
    let addresses = [client.octets(), PROXY.octets()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &addresses, &[0x12, 0x34, 0x01, 0xbb]].concat()
}

/// Of version 1.
fn version_1(client: Ipv4Addr) -> Vec<u8> {
    format!("PROXY TCP4 {client} {PROXY} 4660 443\r\n").into_bytes()
}

/// A WebSocket of a client that the proxy names by the PROXY protocol.
fn proxied(server: &TestServer, client: Ipv4Addr) -> Result<Client, String> {
    upgrade(server, reach(server, PROXY, &version_2(client)), "")
}

/// One request of the proxy for itself.
fn own_request(server: &TestServer, path: &str) -> Answer {
    let mut connection = HttpConnection::over(reach(server, PROXY, b"PROXY UNKNOWN\r\n"));
    connection.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    connection.read(true)
}

/// The value of a metric of a server that wants the PROXY protocol.
fn metric(server: &TestServer, name: &str) -> u64 {
    let text = own_request(server, "/metrics").body;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("roomcast_{name} ")));
    line.map_or(0, |value| value.parse().unwrap())
}

/// A header of an answer.
#[track_caller]
fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let value = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    value.unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[track_caller]
fn expect_refused(outcome: Result<Client, String>, status: u16, retry_after: u64) {
    let head = outcome.expect_err("it should be refused");
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert_eq!(header(&head, "Retry-After"), retry_after.to_string());
}

#[test]
fn sockets_of_one_address_are_limited() {
    let server = behind_proxy("address_sockets_max = 2");
    let mut held = vec![forwarded(&server, ANN).unwrap(), forwarded(&server, ANN).unwrap()];
    held[0].connect("{}", "ann");
    for _ in 0..3 {
        expect_refused(forwarded(&server, ANN), 429, 10);
    }
    forwarded(&server, BOB).expect("another address has places of its own");
    assert_eq!(server.metric("sockets_refused_total{limit=\"address_sockets\"}"), 3);
    let line = "connections of one address are refused";
    assert_eq!(server.logged(line), 1, "{}", server.log());
    assert!(server.log().lines().any(|found| found.contains(line) && found.contains(&ANN.to_string())));
    held.pop();
    eventually("a place of the address is free", || forwarded(&server, ANN).is_ok());
}

#[test]
fn new_sockets_of_one_address_are_limited_per_second() {
    let server = behind_proxy("address_sockets_per_second_max = 1");
    let began = Instant::now();
    let mut opened = 0;
    let refused = loop {
        match forwarded(&server, ANN) {
            Ok(_) => opened += 1,
            refused => break refused,
        }
    };
    // Ten at once, and one for each second that this took.
    let most = 10 + began.elapsed().as_secs() + 1;
    assert!((10..=most).contains(&opened), "{opened} of at most {most} sockets");
    expect_refused(refused, 429, 1);
    forwarded(&server, BOB).expect("another address has a rate of its own");
    eventually("time gives the address another socket", || forwarded(&server, ANN).is_ok());
}

#[test]
fn sockets_that_have_not_connected_are_limited() {
    let server = behind_proxy("address_strangers_max = 2");
    let (mut one, mut two) = (forwarded(&server, ANN).unwrap(), forwarded(&server, ANN).unwrap());
    expect_refused(forwarded(&server, ANN), 429, 2);
    one.connect("{}", "one");
    let mut three = forwarded_in_time(&server, ANN);
    expect_refused(forwarded(&server, ANN), 429, 2);
    two.connect("{}", "two");
    three.connect("{}", "three");
    assert!(server.metric("sockets_refused_total{limit=\"address_strangers\"}") >= 2);
    let _no_stranger_is_left = forwarded_in_time(&server, ANN);
}

#[test]
fn an_answered_socket_is_a_stranger_again_at_its_upgrade() {
    let server = behind_proxy_protocol("address_strangers_max = 1");
    let answered = || {
        let mut connection = HttpConnection::over(reach(&server, PROXY, &version_2(ANN)));
        connection.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(connection.read(true).status, 200);
        connection.socket
    };
    let (one, two) = (answered(), answered());
    let _stranger = upgrade(&server, one, "").unwrap();
    expect_refused(upgrade(&server, two, ""), 429, 2);
}

#[test]
fn a_server_full_of_clients_still_answers_requests() {
    let server = TestServer::with("[client]\nconnections_max = 2\n");
    let (mut ann, bob) = (server.connect("ann"), server.connect("bob"));
    ann.join("room");
    for _ in 0..3 {
        expect_refused(upgrade(&server, reach(&server, PROXY, b""), ""), 503, 1);
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.metric("sockets_refused_total{limit=\"full_of_clients\"}"), 3);
    server.api("publish", r#"{"channel":"room","data":1}"#);
    ann.expect_numbers(1..=1);

    // One request, and the place is for the next.
    let mut last = HttpConnection::open(server.address);
    last.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = last.read(true);
    assert_eq!((answer.status, header(&answer.head, "Connection")), (200, "close"));
    assert!(last.is_closed());
    let began = Instant::now();
    let mut slow = HttpConnection::open(server.address);
    slow.send("GET /he");
    assert_eq!(slow.read(true).status, 408);
    assert!(began.elapsed() < Duration::from_secs(9), "it had the time of an ordinary place");

    drop(bob);
    eventually("a client may come again", || upgrade(&server, reach(&server, PROXY, b""), "").is_ok());
    let (reached, left) = ("the server is full", "the server takes new connections again");
    eventually("the end is told", || server.logged(left) == 1);
    assert_eq!(server.logged(reached), 1, "{}", server.log());
}

#[test]
fn sockets_beyond_the_reserve_are_refused_at_once() {
    let server = behind_proxy("connections_max = 1\naddress_sockets_max = 0");
    // A proxy is not nearby: half of the reserve is closed to it.
    let held: Vec<_> = (0..1 + 32).map(|_| reach(&server, PROXY, b"")).collect();
    let (head, _) = read_head(&mut reach(&server, PROXY, b""));
    assert!(head.starts_with("HTTP/1.1 503 ") && header(&head, "Retry-After") == "1", "{head}");
    let mut nearby = HttpConnection::over(reach(&server, STRANGER, b""));
    nearby.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(nearby.read(true).status, 200);
    drop(held);
}

#[test]
fn who_is_not_trusted_names_nobody() {
    let server = behind_proxy("address_sockets_max = 1\n[log]\nfilter = \"roomcast=debug\"\n");
    let header = format!("X-Forwarded-For: {ANN}\r\nForwarded: for={ANN}\r\n");
    let own = || upgrade(&server, reach(&server, STRANGER, b""), &header);
    let _held = (own().unwrap(), own().unwrap());
    let _ann = forwarded(&server, ANN).expect("nobody took the place of this address");
    expect_refused(forwarded(&server, ANN), 429, 10);
    for client in [STRANGER, ANN] {
        assert!(server.logged(&format!("client={client}")) > 0, "{}", server.log());
    }
}

#[test]
fn the_last_entry_that_is_no_proxy_is_the_client() {
    let server = behind_proxy("address_sockets_max = 1");
    let try_with = |headers: &str| upgrade(&server, reach(&server, PROXY, b""), headers);
    let _held =
        try_with(&format!("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: {ANN}, {PROXY}\r\n")).unwrap();
    expect_refused(try_with(&format!("X-Forwarded-For: 192.0.2.2, {ANN}\r\n")), 429, 10);
    expect_refused(try_with(&format!("Forwarded: for=192.0.2.3, for=\"{ANN}:4711\"\r\n")), 429, 10);
    let _bob = try_with(&format!("Forwarded: for={BOB};proto=https\r\n")).unwrap();
    expect_refused(forwarded(&server, BOB), 429, 10);
    // Garbage is counted together, and told.
    let _garbage = try_with("X-Forwarded-For: localhost:?\r\n").unwrap();
    expect_refused(try_with("X-Forwarded-For: x\r\n"), 429, 10);
    assert_eq!(server.metric("bad_input_total{kind=\"forwarded\"}"), 2);
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let server = behind_proxy_protocol("address_sockets_max = 1");
    let mut ann = proxied(&server, ANN).unwrap();
    let mut bob = upgrade(&server, reach(&server, PROXY, &version_1(BOB)), "").unwrap();
    for (client, name) in [(&mut ann, "ann"), (&mut bob, "bob")] {
        client.connect(&format!(r#"{{"data":{{"user":"{name}"}}}}"#), name);
        client.join("room");
    }
    ann.publish("room", "1");
    bob.expect_numbers(1..=1);
    for (client, header) in [(ANN, version_1(ANN)), (BOB, version_2(BOB))] {
        let (head, _) = read_head(&mut reach(&server, PROXY, &header));
        assert!(head.starts_with("HTTP/1.1 429 "), "{client}: {head}");
    }
    drop((ann, bob));
    eventually("the place is free", || proxied(&server, ANN).is_ok());
}

#[test]
fn a_header_of_the_proxy_protocol_may_come_in_pieces() {
    let server = behind_proxy_protocol("");
    for header in [version_1(ANN), version_2(ANN), b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut socket = reach(&server, PROXY, b"");
        let request = [header.as_slice(), b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat();
        for byte in &request {
            socket.write_all(&[*byte]).unwrap();
        }
        assert_eq!(HttpConnection::over(socket).read(true).status, 200);
    }
}

#[test]
fn a_peer_without_the_header_it_owes_is_not_heard() {
    let server = behind_proxy_protocol("");
    let wrong = [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.9\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        version_2(ANN).iter().map(|byte| if *byte == 0x21 { 0x31 } else { *byte }).collect(),
    ];
    for (count, bytes) in wrong.iter().enumerate() {
        let mut socket = reach(&server, PROXY, bytes);
        let mut answer = Vec::new();
        // A reset says the same as the end.
        let _ = socket.read_to_end(&mut answer);
        assert_eq!(answer, b"", "{bytes:?}");
        assert_eq!(metric(&server, "bad_input_total{kind=\"proxy_header\"}"), count as u64 + 1);
    }
    // Somebody else owes no header, and may not send one.
    let mut plain =
        HttpConnection::over(reach(&server, STRANGER, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    assert_eq!(plain.read(true).status, 200);
    for header in [version_1(ANN), version_2(ANN)] {
        let mut forged = HttpConnection::over(reach(&server, STRANGER, &header));
        forged.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(forged.read(true).status, 400);
    }
}

/// Clients that begin a large `connect` and go no further, until the server takes no more of them.
fn fill_with_strangers(server: &TestServer) -> Vec<Client> {
    let begun = &frame(TEXT, true, true, &[b' '; 22 * 1024])[..20 * 1024];
    let refused = || server.metric("disconnects_total{code=\"1013\"}") > 0;
    let mut held = Vec::new();
    while !refused() {
        let bytes = server.metric("stranger_bytes");
        let mut client = server.open();
        client.websocket.send_bytes(begun);
        eventually("it is counted or refused", || refused() || server.metric("stranger_bytes") > bytes);
        held.push(client);
        assert!(held.len() < 100, "strangers hold what they like");
    }
    held
}

#[test]
fn strangers_share_a_budget_of_bytes() {
    let server = TestServer::with("[client]\nstrangers_bytes_max = \"1MiB\"\n");
    let mut held = fill_with_strangers(&server);
    let mut refused = held.pop().unwrap();
    assert_eq!(refused.expect_close(1013), "try again later");
    assert_eq!(server.logged("hold as many bytes as they may"), 1, "{}", server.log());
    let bytes = server.metric("stranger_bytes");
    assert!((700 * 1024..=768 * 1024).contains(&bytes), "{bytes} bytes");
    server.connect("ann").join("room");
    drop((held, refused));
    eventually("all is given back", || server.metric("stranger_bytes") == 0);
}

#[test]
fn a_body_counts_unless_its_request_shows_the_key() {
    let upload = |server: &TestServer, key: &str, bytes: usize| {
        let mut connection = HttpConnection::open(server.address);
        connection.send(&format!(
            "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n{key}\r\n"
        ));
        connection.send(&"x".repeat(bytes - 1));
        connection
    };
    let open = TestServer::with("[client]\nstrangers_bytes_max = \"1MiB\"\n");
    let _first = upload(&open, "", 600_000);
    eventually("the body is counted", || open.metric("stranger_bytes") >= 599_999);
    let answer = upload(&open, "", 600_000).read(true);
    assert_eq!((answer.status, header(&answer.head, "Retry-After")), (503, "2"));

    // More than a turn takes and the budget holds together, so that it must wait with too much at least once.
    let keyed = TestServer::secured("strangers_bytes_max = \"1MiB\"\n");
    let mut upload = upload(&keyed, "X-API-Key: key\r\n", 2_500_000);
    upload.send("x");
    assert_eq!(upload.read(true).status, 400, "that was no JSON, but it was read");
    assert_eq!(keyed.metric("sockets_refused_total{limit=\"stranger_bytes\"}"), 0);
}

#[test]
fn an_answer_that_is_not_read_counts() {
    let server = TestServer::start();
    let mut silent = HttpConnection::open(server.address);
    // Far more than the kernel keeps for a socket; the server reads on only when an answer has left.
    let requests = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(5_000);
    silent.send(&requests);
    eventually("it is counted", || server.metric("stranger_bytes") > 8 * 1024);
    drop(silent);
    eventually("it is given back", || server.metric("stranger_bytes") == 0);
}
