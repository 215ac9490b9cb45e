//! How fast clients may do things: what is refused, whom it concerns, and who is closed. Open mode has none of it,
//! so these clients bring tokens.

use std::net::Ipv4Addr;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::http::HttpConnection;
use crate::support::server::TestServer;
use crate::support::token::SECRET;
use crate::support::websocket::WebSocket;

const TOO_MANY: &str = r#"{"error":{"code":111,"message":"too many requests","temporary":true}}"#;
const ACK: &str = r#"{"publish":{}}"#;

fn connect(server: &TestServer, user: &str) -> Client {
    server.connect_with(user, &format!(r#"{{"sub":"{user}"}}"#))
}

fn publish(channel: &str) -> String {
    format!(r#"{{"publish":{{"channel":"{channel}","data":1}}}}"#)
}

/// Sends all commands in one frame; how many of the replies are `good`, all others being refusals.
#[track_caller]
fn passing(client: &mut Client, commands: &[String], good: &str) -> usize {
    let commands: Vec<_> = commands.iter().map(|command| client.with_id(command)).collect();
    let text: Vec<_> = commands.iter().map(|(_, text)| text.as_str()).collect();
    client.send(&text.join("\n"));
    let replies: Vec<_> = commands.iter().map(|(id, _)| client.reply_to(*id)).collect();
    let passed = replies.iter().filter(|reply| reply.starts_with(good)).count();
    let refused = replies.iter().filter(|reply| *reply == TOO_MANY).count();
    assert_eq!(passed + refused, commands.len(), "{replies:?}");
    passed
}

#[test]
fn a_user_publishes_so_fast_over_all_connections() {
    let server = TestServer::secured("[limits]\nuser_publishes_per_second_max = 2\n");
    let (mut one, mut two, mut bob) =
        (connect(&server, "ann"), connect(&server, "ann"), connect(&server, "bob"));
    let fifty: Vec<_> = (0..50).map(|number| publish(&format!("room{number}"))).collect();
    let passed = passing(&mut one, &fifty, ACK);
    assert!((10..40).contains(&passed), "five seconds' worth at once: {passed}");
    assert!(passing(&mut two, &fifty, ACK) < 20, "the other connection is the same user");
    assert_eq!(bob.ask(&publish("room")), ACK, "others are not concerned");
    for _ in 0..50 {
        let published = server.api("publish", r#"{"channel":"room","data":1}"#);
        assert!(published.starts_with(r#"{"result":"#), "the API is not limited: {published}");
    }
    let refused = server.metric("limited_total{limit=\"user_publishes\"}");
    assert!(refused >= 50, "{refused}");
    assert_eq!(server.metric("errors_total{code=\"111\"}"), refused);
}

#[test]
fn nobody_is_limited_by_default_who_is_honest() {
    let server = TestServer::secured("");
    let mut ann = connect(&server, "ann");
    let offline: Vec<_> = (0..400).map(|number| publish(&format!("room{}", number % 20))).collect();
    assert_eq!(passing(&mut ann, &offline, ACK), 400, "what was written while offline");
    let rejoin: Vec<_> = (0..128)
        .flat_map(|_| [r#"{"history":{"channel":"room1","limit":9}}"#, r#"{"presence":{"channel":"room1"}}"#])
        .map(str::to_owned)
        .collect();
    assert_eq!(passing(&mut ann, &rejoin, "{\""), 256);
    assert!(!server.get("/metrics").body.contains("roomcast_limited_total{"));
}

#[test]
fn a_room_takes_so_much_whoever_publishes() {
    let server = TestServer::secured("[limits]\nroom_publishes_per_second_max = 2\n");
    let (mut ann, mut bob) = (connect(&server, "ann"), connect(&server, "bob"));
    let fifty = vec![publish("room"); 50];
    assert!((10..40).contains(&passing(&mut ann, &fifty, ACK)));
    assert!(passing(&mut bob, &fifty, ACK) < 20);
    assert_eq!(bob.ask(&publish("other")), ACK);
    assert!(server.metric("limited_total{limit=\"room_publishes\"}") >= 50);
}

#[test]
fn those_who_may_not_publish_leave_the_room_to_others() {
    let server = TestServer::secured(
        "allow_anonymous = true\n[limits]\nroom_publishes_per_second_max = 2\n\
         [namespace.known]\npublish = \"users\"\n",
    );
    let mut anonymous = server.open();
    anonymous.connect("{}", "anonymous");
    let denied = r#"{"error":{"code":103"#;
    for _ in 0..60 {
        let reply = anonymous.ask(&publish("known:room"));
        assert!(reply.starts_with(denied), "{reply}");
    }
    assert_eq!(connect(&server, "ann").ask(&publish("known:room")), ACK);
}

#[test]
fn what_a_token_adds_to_a_message_counts() {
    let server = TestServer::secured("[limits]\nuser_bytes_per_second_max = '1KiB'\n");
    let info = "x".repeat(1000);
    let mut ann = server.connect_with("ann", &format!(r#"{{"sub":"ann","info":{{"about":"{info}"}}}}"#));
    assert!((5..40).contains(&passing(&mut ann, &vec![publish("room"); 50], ACK)));
    assert!(server.metric("limited_total{limit=\"user_bytes\"}") > 0);
}

#[test]
fn bytes_are_limited_too() {
    let server = TestServer::secured("[limits]\nuser_bytes_per_second_max = '1KiB'\n");
    let mut ann = connect(&server, "ann");
    let data = "x".repeat(1022);
    let command = format!(r#"{{"publish":{{"channel":"room","data":"{data}"}}}}"#);
    assert!((5..40).contains(&passing(&mut ann, &vec![command; 50], ACK)));
    assert!(server.metric("limited_total{limit=\"user_bytes\"}") > 0);
}

on_both_databases! {
    a_user_creates_so_many_rooms(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\n\
         [limits]\nuser_new_rooms_per_minute_max = 3\n"
    ) {
        assert_eq!(SECRET, "a secret only the tests know");
        let (mut ann, mut bob) = (connect(&server, "ann"), connect(&server, "bob"));
        let rooms: Vec<_> = (0..20).map(|number| publish(&format!("room{number}"))).collect();
        let passed = passing(&mut ann, &rooms, ACK);
        assert!((3..6).contains(&passed), "{passed}");
        assert!(server.metric("limited_total{limit=\"user_new_rooms\"}") >= 14);
        // In rooms that exist nothing is counted.
        assert_eq!(passing(&mut ann, &vec![publish("room0"); 40], ACK), 40);
        assert_eq!(bob.ask(&publish("room19")), ACK, "bob has created none");
        assert_eq!(ann.ask(&publish("room19")), ACK);
    }
}

on_both_databases! {
    a_user_adds_so_many_contacts(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\n\
         [limits]\nuser_contacts_per_minute_max = 2\n"
    ) {
        let mut ann = connect(&server, "ann");
        let add = |number| format!(r#"{{"rpc":{{"method":"contacts.add","data":{{"user":"user{number}"}}}}}}"#);
        let passed = passing(&mut ann, &(0..20).map(add).collect::<Vec<_>>(), r#"{"rpc""#);
        assert!((2..5).contains(&passed), "{passed}");
        assert!(server.metric("limited_total{limit=\"user_contacts\"}") >= 15);
    }
}

#[test]
fn a_connection_asks_so_often() {
    let server = TestServer::secured("[limits]\nconnection_requests_per_second_max = 1\n");
    let mut ann = connect(&server, "ann");
    let ask = [
        r#"{"history":{"channel":"room","limit":1}}"#,
        r#"{"presence":{"channel":"room"}}"#,
        r#"{"presence_stats":{"channel":"room"}}"#,
        r#"{"rpc":{"method":"contacts.list"}}"#,
        r#"{"rpc":{"method":"rooms.unread"}}"#,
    ];
    let asked: Vec<_> = (0..50).map(|number| ask[number % 5].to_owned()).collect();
    let commands: Vec<_> = asked.iter().map(|command| ann.with_id(command)).collect();
    ann.send(&commands.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n"));
    let replies: Vec<_> = commands.iter().map(|(id, _)| ann.reply_to(*id)).collect();
    let refused = replies.iter().filter(|reply| *reply == TOO_MANY).count();
    assert!((10..=45).contains(&refused), "{refused}");
    assert!(replies[..5].iter().all(|reply| reply != TOO_MANY), "{replies:?}");
    assert_eq!(server.metric("limited_total{limit=\"requests\"}"), refused as u64);
}

#[test]
fn who_goes_on_is_closed() {
    let server = TestServer::secured("[limits]\nuser_publishes_per_second_max = 2\n");
    let (mut ann, mut bob) = (connect(&server, "ann"), connect(&server, "bob"));
    let flood: Vec<_> = (0..5000).map(|_| ann.with_id(&publish("room")).1).collect();
    ann.send(&flood.join("\n"));
    assert_eq!(ann.expect_close(3013), "too many requests");
    eventually("the end is counted", || server.metric("disconnects_total{code=\"3013\"}") == 1);
    assert_eq!(bob.ask(&publish("room")), ACK);
}

#[test]
fn pongs_pings_and_bad_commands_count_as_commands() {
    let server = TestServer::with("[client]\ncommands_per_second_max = 50\n");
    for line in ["{}", r#"{"id":7,"publish":{"channel":"ä","data":1}}"#, r#"{"id":7,"ping":{}}"#] {
        let mut ann = server.connect("ann");
        ann.send(&vec![line; 5000].join("\n"));
        assert_eq!(ann.expect_close(3013), "too many requests", "{line}");
    }
    let mut ann = server.connect("ann");
    // Empty pings, masked by zeros.
    ann.websocket.send_bytes(&[0x89, 0x80, 0, 0, 0, 0].repeat(5000));
    assert_eq!(ann.expect_close(3013), "too many requests");
    assert!(server.metric("limited_total{limit=\"commands\"}") >= 4 * 2000);
}

#[test]
fn tokens_from_an_address_are_refused_after_bad_ones() {
    let settings = "trusted_proxies = ['loopback']\n[limits]\naddress_failed_tokens_per_minute_max = 3\n";
    let server = TestServer::secured(settings);
    let connect = |address: Ipv4Addr, token: &str| {
        let headers = format!("X-Forwarded-For: {address}\r\n");
        let (head, socket) = WebSocket::try_open(server.address, &headers);
        let (socket, received) = socket.unwrap_or_else(|| panic!("{head}"));
        let mut client = Client::over(&server, WebSocket::resume(socket, received));
        client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
        client
    };
    let (here, there) = (Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(203, 0, 113, 10));
    let good = crate::support::token::token(r#"{"sub":"ann"}"#);
    for _ in 0..3 {
        assert_eq!(connect(here, "forged").expect_close(3500), "invalid token");
    }
    let refused = connect(here, &good).next_reply();
    assert_eq!(refused, TOO_MANY.replacen('{', r#"{"id":1,"#, 1));
    assert!(connect(there, &good).next_reply().contains(r#""connect":{"#), "another address");
    assert_eq!(server.metric("limited_total{limit=\"address_failed_tokens\"}"), 1);
    let mut http = HttpConnection::open(server.address);
    http.send("GET /health HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
    assert_eq!(http.read(true).status, 200, "nothing else is concerned");
}

#[test]
fn wrong_keys_are_limited_and_the_right_one_never() {
    let settings = "trusted_proxies = ['loopback']\n[limits]\naddress_failed_keys_per_minute_max = 3\n";
    let server = TestServer::secured(settings);
    let call = |address: &str, key: &str| {
        let headers = format!("X-Forwarded-For: {address}\r\nX-API-Key: {key}\r\n");
        server.post("/api/info", &headers, "{}")
    };
    assert!((0..3).all(|_| call("203.0.113.9", "wrong").status == 401));
    let refused = call("203.0.113.9", "wrong");
    assert!(refused.status == 429 && refused.head.contains("\r\nRetry-After: 10\r\n"), "{refused:?}");
    assert!(refused.body.contains("send the value of api.key"), "{}", refused.body);
    assert_eq!(call("203.0.113.9", "key").status, 200, "a backend is never limited");
    assert_eq!(call("203.0.113.10", "wrong").status, 401, "another address");
    assert_eq!(server.metric("limited_total{limit=\"address_failed_keys\"}"), 1);
}

on_both_databases! {
    so_many_clients_of_an_address_connect(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\ntrusted_proxies = ['loopback']\n\
         [limits]\naddress_connects_per_minute_max = 3\n"
    ) {
        let connect = |address: &str| {
            let headers = format!("X-Forwarded-For: {address}\r\n");
            let (_, socket) = WebSocket::try_open(server.address, &headers);
            let (socket, received) = socket.unwrap();
            let mut client = Client::over(&server, WebSocket::resume(socket, received));
            let token = crate::support::token::token(r#"{"sub":"ann"}"#);
            client.send(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
            client.next_reply()
        };
        assert!((0..3).all(|_| connect("203.0.113.9").contains(r#""connect":{"#)));
        assert_eq!(connect("203.0.113.9"), TOO_MANY.replacen('{', r#"{"id":1,"#, 1));
        assert!(connect("203.0.113.10").contains(r#""connect":{"#), "another address");
        assert_eq!(server.metric("limited_total{limit=\"address_connects\"}"), 1);
    }
}

#[test]
fn open_mode_has_no_limits() {
    let server =
        TestServer::with("[limits]\nuser_publishes_per_second_max = 1\nroom_publishes_per_second_max = 1\n");
    let mut ann = server.connect("ann");
    ann.publish_numbers("room", 1..=1000);
}

on_both_databases! {
    the_questions_of_many_connections_hold_up_nobody_else(
        server,
        "[client]\ntoken_hmac_secret = 'a secret only the tests know'\nping_interval = '5m'\n\
         [database]\nread_connections = 1\n[limits]\nconnection_requests_per_second_max = 0\n"
    ) {
        let mut bob = connect(&server, "bob");
        bob.join("room");
        bob.publish_numbers("room", 1..=9);
        let question = r#"{"history":{"channel":"room","limit":1}}"#;
        // What is answered fits the budget of an outbox, so the questions are asked without a reader.
        let crowd: Vec<Client> = (0..400).map(|_| {
            let mut ann = connect(&server, "ann");
            ann.join("room");
            let questions: Vec<_> = (0..600).map(|_| ann.with_id(question).1).collect();
            ann.send(&questions.join("\n"));
            ann
        }).collect();
        eventually("all of them wait", || server.metric("queries_waiting") > 390);
        let asked = || server.metric("commands_total{method=\"history\"}");
        let before = asked();
        for _ in 0..20 {
            assert!(bob.ask(question).starts_with(r#"{"history":{"publications":[{"#));
        }
        // First come, first served, it would be 400 for each of his.
        let others = asked() - before;
        assert!(others < 20 * 100, "{others} questions of ann for 20 of bob");
        assert!(server.metric("queries_waiting") > 350, "they still ask");
        drop(crowd);
    }
}
