//! Sessions without their connection: text in, replies and the next step of the connection out.
//!
//! Only the outbox has a socket; the test reads its other end.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::WebSocket;
use tungstenite::protocol::{Message, Role};

use super::*;
use crate::auth::issue::{TokenRequest, issue};
use crate::ids::ConnectionId;
use crate::net::queries::{Kind, Slot};
use crate::node::ClientSelector;
use crate::node::tests::rig::{Backend, Rig, SECURED};
use crate::protocol::format::Format;

/// Longest wait for a reply; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A session, and what it sent that nobody looked at yet.
struct Talk {
    rig: Rig,
    session: Session,
    queries: Arc<Queries>,
    client: WebSocket<TcpStream>,
    heard: VecDeque<Value>,
}

impl Talk {
    fn new(settings: &str) -> Self {
        let rig = Rig::new(Backend::Sqlite, settings);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let outbox = rig
            .handle()
            .outbox_for_socket(ConnectionId::next(), Format::Json, Arc::new(socket), None)
            .unwrap();
        let rules = Arc::new(ClientRules::new(&rig.config));
        let queries = Arc::new(Queries::new(&rig.config, rig.handle().metrics()));
        let origin = rules.rates.connection(outbox.id());
        let session = Session::new(outbox, rig.handle().clone(), rules, queries.clone(), origin);
        let client = WebSocket::from_raw_socket(client, Role::Client, None);
        Self { rig, session, queries, client, heard: VecDeque::new() }
    }

    /// A session of the anonymous user that may do anything.
    fn open(settings: &str) -> Self {
        let mut talk = Self::new(settings);
        assert_eq!(talk.ask(&json!({ "id": 1, "connect": {} }))["id"], 1);
        talk
    }

    /// A session of `user`, who has a token.
    fn of(user: &str, settings: &str) -> Self {
        let mut talk = Self::new(&format!("{SECURED}{settings}"));
        let token = talk.token(&TokenRequest { user, ..TokenRequest::default() });
        assert_eq!(talk.ask(&json!({ "id": 1, "connect": { "token": token } }))["id"], 1);
        talk
    }

    fn token(&self, request: &TokenRequest<'_>) -> String {
        let secret = self.rig.config.client.token_hmac_secret.as_ref().unwrap();
        issue(secret.expose(), request).unwrap()
    }

    fn say_text(&mut self, text: &str) -> Flow {
        let mut rest = text;
        loop {
            let flow = self.session.on_frame(Frame::Text(rest));
            self.session.end_turn();
            while let Some(work) = self.session.take_work() {
                work();
            }
            let resumed = self.resume();
            match flow {
                Flow::Wait(position) => rest = &rest[position..],
                Flow::Continue => return resumed,
                flow => return flow,
            }
        }
    }

    /// Waits while a connect waits for its subscriptions.
    fn resume(&mut self) -> Flow {
        loop {
            match self.session.resume() {
                Flow::Wait(_) => std::thread::yield_now(),
                flow => return flow,
            }
        }
    }

    fn say(&mut self, command: &Value) -> Flow {
        self.say_text(&command.to_string())
    }

    /// The next line that the client gets.
    fn hear(&mut self) -> Value {
        if self.heard.is_empty() {
            let Message::Text(text) = self.client.read().unwrap() else { panic!("no text") };
            self.heard = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        self.heard.pop_front().unwrap()
    }

    /// Says a command after which the connection goes on; its reply.
    fn ask(&mut self, command: &Value) -> Value {
        assert_eq!(self.say(command), Flow::Continue, "{command}");
        self.hear()
    }

    /// The error code of the reply to a command, which carries the id of it.
    fn error(&mut self, command: &Value) -> u64 {
        let reply = self.ask(command);
        assert_eq!(reply["id"], command["id"], "{reply}");
        reply["error"]["code"].as_u64().unwrap_or_else(|| panic!("{command} is answered by {reply}"))
    }

    fn subscribe(&mut self, channel: &str) {
        let reply = self.ask(&json!({ "id": 1, "subscribe": { "channel": channel } }));
        assert!(reply["subscribe"].is_object(), "{reply}");
        self.hear(); // Its own join.
    }

    /// Takes every slot, as others do who query a slow database.
    fn take_slots(&self) -> Vec<Slot> {
        let of = |kind| std::iter::from_fn(move || self.queries.ask_once(kind));
        of(Kind::Read).chain(of(Kind::Write)).collect()
    }

    fn commands_total(&self, method: &str) -> u64 {
        self.rig.handle().metrics().commands_total.with_label_values(&[method]).get()
    }

    fn expect_nothing(&mut self) {
        assert!(self.heard.is_empty());
        self.client.get_ref().set_nonblocking(true).unwrap();
        let nothing = self.client.read();
        assert!(nothing.is_err(), "{nothing:?}");
        self.client.get_ref().set_nonblocking(false).unwrap();
    }
}

/// A time at which a token of the tests is no longer valid.
const LONG_AGO: Option<i64> = Some(1);

fn in_an_hour() -> Option<i64> {
    Some(clock::unix_seconds() + 3600)
}

#[test]
fn connect_comes_first_and_once() {
    for command in
        [json!({ "id": 1, "ping": {} }), json!({ "id": 1, "publish": { "channel": "a", "data": 1 } })]
    {
        let mut talk = Talk::new("");
        assert_eq!(talk.say(&command), Flow::Disconnect(CloseCode::BadRequest), "{command}");
        assert!(!talk.session.is_connected());
        talk.expect_nothing();
    }
    let mut talk = Talk::open("");
    assert!(talk.session.is_connected());
    assert_eq!(talk.say(&json!({ "id": 2, "connect": {} })), Flow::Disconnect(CloseCode::BadRequest));
}

#[test]
fn text_that_is_no_command_ends_the_connection() {
    for text in ["", "{", "[]", r#"{"id":1}"#, r#"{"connect":{}}"#, r#"{"id":1,"connect":7}"#] {
        let mut talk = Talk::new("");
        assert_eq!(talk.say_text(text), Flow::Disconnect(CloseCode::BadRequest), "{text}");
    }
    let mut talk = Talk::open("");
    assert_eq!(talk.error(&json!({ "id": 2, "subscribe": { "channel": "a", "recover": 1 } })), 107);
    assert_eq!(talk.say(&json!({ "send": { "data": 1 } })), Flow::Disconnect(CloseCode::NotAvailable));
}

#[test]
fn a_connection_token_is_checked() {
    let connect = |talk: &mut Talk, token: &str| talk.say(&json!({ "id": 1, "connect": { "token": token } }));
    let mut talk = Talk::new(SECURED);
    assert_eq!(talk.say(&json!({ "id": 1, "connect": {} })), Flow::Disconnect(CloseCode::BadRequest));

    let mut talk = Talk::new(SECURED);
    assert_eq!(connect(&mut talk, "forged"), Flow::Disconnect(CloseCode::InvalidToken));

    let mut talk = Talk::new(SECURED);
    let anonymous = talk.token(&TokenRequest::default());
    assert_eq!(connect(&mut talk, &anonymous), Flow::Disconnect(CloseCode::PermissionDenied));

    let mut talk = Talk::new(SECURED);
    let expired = talk.token(&TokenRequest { user: "ann", expires_at: LONG_AGO, ..TokenRequest::default() });
    assert_eq!(connect(&mut talk, &expired), Flow::Refused);
    assert_eq!(talk.hear()["error"]["code"], 109, "the client is told to come with a new token");

    let mut talk = Talk::new("");
    assert_eq!(connect(&mut talk, "any"), Flow::Disconnect(CloseCode::InvalidToken));
}

#[test]
fn the_server_subscribes_to_what_the_token_says() {
    let mut talk = Talk::new(&format!("{SECURED}[default_namespace]\npersonal = true\n"));
    let channels = ["lobby".parse().unwrap()];
    let token = talk.token(&TokenRequest { user: "ann", channels: &channels, ..TokenRequest::default() });
    let reply = talk.ask(&json!({ "id": 1, "connect": { "token": token } }));
    let subs: Vec<_> = reply["connect"]["subs"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(subs, ["#ann", "lobby"]);
    talk.session.leave_all();
    assert!(!talk.session.is_subscribed(&channels[0]));
}

#[test]
fn a_refused_subscribe_says_why() {
    let mut talk = Talk::of("ann", "[namespace.hall]\nsubscribe = 'nobody'\n");
    talk.subscribe("lobby");
    for (channel, code) in
        [("lobby", 105), ("nowhere:a", 102), ("hall:a", 103), ("$den", 103), ("talk#bob", 103)]
    {
        let code_of_reply = talk.error(&json!({ "id": 2, "subscribe": { "channel": channel } }));
        assert_eq!(code_of_reply, code, "{channel}");
    }
    let gone = json!({ "id": 2, "unsubscribe": { "channel": "lobby" } });
    assert!(talk.ask(&gone)["unsubscribe"].is_object());
    assert!(talk.ask(&gone)["unsubscribe"].is_object(), "leaving twice is no error");
}

#[test]
fn a_subscription_token_is_checked() {
    let mut talk = Talk::of("ann", "");
    let den = "$den".parse().unwrap();
    let subscribe = |token: &str| json!({ "id": 2, "subscribe": { "channel": "$den", "token": token } });
    let request = TokenRequest { user: "ann", channel: Some(&den), ..TokenRequest::default() };
    assert_eq!(talk.error(&subscribe("forged")), 103);
    let expired = talk.token(&TokenRequest { expires_at: LONG_AGO, ..request });
    assert_eq!(talk.error(&subscribe(&expired)), 109);
    assert_eq!(talk.session.next_expiry(), None);

    let good = talk.token(&TokenRequest { expires_at: in_an_hour(), ..request });
    assert!(talk.ask(&subscribe(&good))["subscribe"]["expires"].as_bool().unwrap());
    assert!(talk.session.next_expiry().is_some());

    let foreign = talk.token(&TokenRequest { user: "bob", ..request });
    let elsewhere = json!({ "id": 3, "subscribe": { "channel": "$hall", "token": foreign } });
    assert_eq!(talk.say(&elsewhere), Flow::Disconnect(CloseCode::InvalidToken));
}

#[test]
fn a_refused_publish_says_why() {
    let mut talk = Talk::of("ann", "[namespace.small]\nmessage_bytes_max = 10\npublish = 'users'\n");
    let publish =
        |channel: &str, data: &str| json!({ "id": 2, "publish": { "channel": channel, "data": data } });
    assert_eq!(talk.error(&publish("lobby", "a")), 103, "only subscribers publish there");
    assert_eq!(talk.error(&publish("nowhere:a", "a")), 102);
    assert_eq!(talk.error(&publish("small:a", "123456789")), 106);
    assert!(talk.ask(&publish("small:a", "12345678"))["publish"].is_object());
}

#[test]
fn replies_of_a_turn_come_in_the_order_of_its_commands() {
    let mut talk = Talk::open("[namespace.live]\npersist = false\n");
    let commands = [
        json!({ "id": 2, "publish": { "channel": "a", "data": 1 } }),
        json!({ "id": 3, "publish": { "channel": "nowhere:a", "data": 1 } }),
        json!({ "id": 4, "publish": { "channel": "b", "data": 1 } }),
        json!({ "id": 5, "publish": { "channel": "live:a", "data": 1 } }),
        json!({ "id": 6, "rpc": { "method": "publish", "data": { "channel": "a", "data": 2 } } }),
        json!({ "id": 7, "ping": {} }),
        json!({ "id": 8, "history": { "channel": "a" } }),
    ];
    let text = commands.each_ref().map(ToString::to_string).join("\n");
    assert_eq!(talk.say_text(&text), Flow::Continue);
    let replies: Vec<Value> = commands.iter().map(|_| talk.hear()).collect();
    let ids: Vec<_> = replies.iter().map(|reply| reply["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(replies[1]["error"]["code"], 102);
    assert_eq!(replies[4]["rpc"]["data"]["offset"], 2);
    assert_eq!(replies[6]["history"]["offset"], 2);
    talk.expect_nothing();
}

#[test]
fn a_refused_rpc_says_why() {
    let mut talk = Talk::open("");
    let rpc = |method: &str, data: Value| json!({ "id": 2, "rpc": { "method": method, "data": data } });
    for (method, data, code) in [
        ("", json!({}), 108),
        ("rooms.burn", json!({}), 104),
        ("publish", json!({ "channel": "a" }), 107),
        ("publish", json!({ "channel": "nowhere:a", "data": 1 }), 102),
        ("contacts.add", json!({ "user": "bob" }), 103),
        ("contacts.list", json!({}), 103),
        ("rooms.unread", json!({}), 103),
        ("rooms.read", json!({ "channel": "a", "seq": 1 }), 103),
    ] {
        assert_eq!(talk.error(&rpc(method, data.clone())), code, "{method} {data}");
    }
    let mut talk = Talk::of("ann", "");
    assert_eq!(talk.error(&rpc("contacts.add", json!({ "user": "ann" }))), 107);
    assert_eq!(talk.error(&rpc("contacts.add", json!({}))), 107);
    assert_eq!(talk.ask(&rpc("contacts.add", json!({ "user": "bob" })))["rpc"]["data"]["user"], "bob");
}

#[test]
fn questions_are_refused_by_the_rules_of_the_room() {
    let mut talk = Talk::of("ann", "[namespace.quiet]\npresence = false\npersist = false\n");
    for (method, channel, code) in [
        ("presence", "lobby", 103),
        ("presence_stats", "lobby", 103),
        ("history", "lobby", 103),
        ("presence", "quiet:a", 108),
        ("presence_stats", "quiet:a", 108),
        ("history", "quiet:a", 108),
        ("history", "nowhere:a", 102),
    ] {
        let command = json!({ "id": 2, method: { "channel": channel } });
        assert_eq!(talk.error(&command), code, "{command}");
    }
    talk.subscribe("lobby");
    let stats = talk.ask(&json!({ "id": 3, "presence_stats": { "channel": "lobby" } }));
    assert_eq!(stats["presence_stats"], json!({ "num_clients": 1, "num_users": 1 }));
}

#[test]
fn a_refresh_replaces_the_token_of_the_same_user() {
    let mut talk = Talk::of("ann", "");
    let refresh = |token: &str| json!({ "id": 2, "refresh": { "token": token } });
    assert_eq!(talk.error(&refresh("")), 107);
    let fresh = TokenRequest { user: "ann", expires_at: in_an_hour(), ..TokenRequest::default() };
    let token = talk.token(&fresh);
    assert_eq!(talk.session.next_expiry(), None);
    assert_eq!(talk.ask(&refresh(&token))["refresh"]["expires"], true);
    assert!(talk.session.next_expiry().is_some_and(|at| at > Instant::now()));
    assert_eq!(talk.session.on_expiry(), Flow::Continue, "nothing is due for an hour");

    let expired = talk.token(&TokenRequest { expires_at: LONG_AGO, ..fresh });
    assert_eq!(talk.say(&refresh(&expired)), Flow::Disconnect(CloseCode::ConnectionExpired));
    assert_eq!(talk.say(&refresh("forged")), Flow::Disconnect(CloseCode::InvalidToken));
    let foreign = talk.token(&TokenRequest { user: "bob", ..fresh });
    assert_eq!(talk.say(&refresh(&foreign)), Flow::Disconnect(CloseCode::InvalidToken));
    let channels = ["lobby".parse().unwrap()];
    let wider = talk.token(&TokenRequest { channels: &channels, ..fresh });
    assert_eq!(talk.say(&refresh(&wider)), Flow::Disconnect(CloseCode::InsufficientState));
}

#[test]
fn a_sub_refresh_replaces_the_token_of_a_subscription() {
    let mut talk = Talk::of("ann", "");
    let lobby = "lobby".parse().unwrap();
    let refresh = |token: &str| json!({ "id": 2, "sub_refresh": { "channel": "lobby", "token": token } });
    let fresh = TokenRequest {
        user: "ann",
        channel: Some(&lobby),
        expires_at: in_an_hour(),
        ..TokenRequest::default()
    };
    let token = talk.token(&fresh);
    assert_eq!(talk.error(&refresh("")), 107);
    assert_eq!(talk.error(&refresh("forged")), 103);
    assert_eq!(talk.error(&refresh(&token)), 103, "it is not subscribed");
    talk.subscribe("lobby");
    assert_eq!(talk.ask(&refresh(&token))["sub_refresh"]["expires"], true);
    assert!(talk.session.next_expiry().is_some());

    let expired = talk.token(&TokenRequest { expires_at: LONG_AGO, ..fresh });
    let told = [talk.ask(&refresh(&expired)), talk.hear()];
    let code = |told: &Value| told["push"]["unsubscribe"]["code"].as_u64();
    assert!(told.iter().any(|told| code(told) == Some(2501)), "it is told to subscribe again: {told:?}");
    assert!(told.iter().any(|told| told["error"]["code"] == 100), "{told:?}");
    assert!(!talk.session.is_subscribed(&lobby));
    assert_eq!(talk.session.next_expiry(), None);
}

#[test]
fn commands_beyond_the_rate_are_refused() {
    let mut talk = Talk::new("[client]\ncommands_per_second_max = 3\n");
    let commands = [
        json!({ "id": 1, "connect": {} }),
        json!({ "id": 2, "ping": {} }),
        json!({ "id": 3, "ping": {} }),
        json!({ "id": 4, "ping": {} }),
    ];
    assert_eq!(talk.say_text(&commands.each_ref().map(ToString::to_string).join("\n")), Flow::Continue);
    let replies = commands.map(|_| talk.hear());
    assert_eq!(replies[2]["ping"], json!({}));
    assert_eq!((replies[3]["id"].as_u64(), replies[3]["error"]["code"].as_u64()), (Some(4), Some(111)));
}

#[test]
fn a_turn_is_bounded() {
    let mut talk = Talk::open("");
    let pongs = vec!["{}"; TURN_COMMANDS_MAX - 1].join("\n");
    assert_eq!(talk.session.on_frame(Frame::Text(&pongs)), Flow::Continue);
    assert!(!talk.session.is_turn_full());
    assert_eq!(talk.session.on_frame(Frame::Text("{}")), Flow::Continue);
    assert!(talk.session.is_turn_full() && talk.session.take_pong() && !talk.session.take_pong());
    talk.session.end_turn();
    assert!(!talk.session.is_turn_full());
}

/// Two commands in one frame.
const TWO: &str = "{\"id\":2,\"ping\":{}}\n{\"id\":3,\"ping\":{}}";

#[test]
fn no_command_is_carried_out_after_a_kick() {
    let mut talk = Talk::open("");
    talk.session.outbox.close(3503, "force disconnect");
    let publish = json!({ "id": 2, "publish": { "channel": "room", "data": 1 } });
    assert_eq!(talk.say(&publish), Flow::Ended);
    let room: Channel = "room".parse().unwrap();
    assert_eq!(talk.rig.node().history(&room, 0).unwrap(), []);
}

#[test]
fn no_command_is_carried_out_after_the_token_expired() {
    let mut talk = Talk::open("");
    talk.session.expiries.set_connection(Some(Instant::now()));
    assert_eq!(talk.say_text(TWO), Flow::Disconnect(CloseCode::ConnectionExpired));
    talk.expect_nothing();
}

#[test]
fn a_subscription_ends_before_the_command_behind_its_expiry() {
    let mut talk = Talk::open("");
    talk.subscribe("room");
    talk.session.expiries.set_subscription("room".parse().unwrap(), Instant::now());
    assert_eq!(talk.say_text(TWO), Flow::Continue);
    // The room tells it, and the session answers the pings: in either order.
    let heard = [talk.hear(), talk.hear(), talk.hear()];
    assert!(heard.iter().any(|line| line["push"]["unsubscribe"]["code"] == 2501), "{heard:?}");
    assert!(!talk.session.is_subscribed(&"room".parse().unwrap()));
}

#[test]
fn the_expiry_of_a_subscription_goes_with_it() {
    let mut talk = Talk::of("ann", "");
    let room: Channel = "room".parse().unwrap();
    talk.subscribe("room");
    talk.session.expiries.set_subscription(room.clone(), Instant::now() + PATIENCE);
    talk.rig.handle().unsubscribe_user(ClientSelector { user: "ann", client: None }, &room);
    assert_eq!(talk.hear()["push"]["unsubscribe"]["code"], 2000);
    talk.subscribe("room");
    assert!(talk.session.next_expiry().is_none(), "the new subscription does not expire");

    talk.session.expiries.set_subscription(room.clone(), Instant::now());
    talk.rig.handle().unsubscribe_user(ClientSelector { user: "ann", client: None }, &room);
    assert_eq!(talk.hear()["push"]["unsubscribe"]["code"], 2000);
    assert_eq!(talk.session.on_expiry(), Flow::Continue);
    assert!(talk.session.next_expiry().is_none());
    talk.expect_nothing();
}

#[test]
fn an_expiry_between_two_turns_is_told_at_once() {
    let mut talk = Talk::open("");
    talk.subscribe("room");
    talk.session.expiries.set_subscription("room".parse().unwrap(), Instant::now());
    assert_eq!(talk.session.on_expiry(), Flow::Continue);
    assert_eq!(talk.hear()["push"]["unsubscribe"]["code"], 2501);
    talk.session.leave_all();
}

#[test]
fn a_command_that_asks_the_database_waits_for_others_queries() {
    let rpc = |method: &str, data: Value| json!({ "id": 2, "rpc": { "method": method, "data": data } });
    let to = |method: &str, channel: &str| json!({ "id": 2, method: { "channel": channel, "data": 1 } });
    for command in [
        to("history", "lobby"),
        to("subscribe", "direct:a"),
        to("subscribe", "made:a"),
        to("subscribe", "club:a"),
        to("publish", "direct:a"),
        to("publish", "club:a"),
        to("presence", "direct:a"),
        to("presence_stats", "club:a"),
        rpc("publish", json!({ "channel": "club:a", "data": 1 })),
        rpc("contacts.add", json!({ "user": "bob" })),
        rpc("contacts.remove", json!({ "user": "bob" })),
        rpc("contacts.list", json!({})),
        rpc("rooms.read", json!({ "channel": "lobby", "seq": 1 })),
        rpc("rooms.unread", json!({})),
    ] {
        let club =
            "[namespace.club]\nsubscribe = 'members'\npublish = 'members'\nread_presence = 'members'\n";
        let mut talk = Talk::of("ann", &format!("[namespace.made]\nauto_create = false\n{club}"));
        talk.subscribe("lobby");
        let method = ["history", "subscribe", "publish", "presence", "presence_stats", "rpc"]
            .into_iter()
            .find(|method| command[method].is_object())
            .unwrap();
        let (before, slots) = (talk.commands_total(method), talk.take_slots());
        for _ in 0..2 {
            assert_eq!(talk.session.on_frame(Frame::Text(&command.to_string())), Flow::Wait(0), "{command}");
            talk.session.end_turn();
            assert!(talk.session.is_in_line() && talk.session.deadline().is_some(), "{command}");
        }
        talk.expect_nothing();
        drop(slots);
        assert_eq!(talk.ask(&command)["id"], 2);
        assert!(!talk.session.is_in_line());
        assert_eq!(talk.commands_total(method), before + 1, "{command} is one command");
        assert!(talk.queries.ask_once(Kind::Read).is_some() && talk.queries.ask_once(Kind::Write).is_some());
    }
}

#[test]
fn a_command_that_asks_nothing_waits_for_nobodys_queries() {
    let mut talk = Talk::of("ann", "");
    talk.subscribe("lobby");
    let _slots = talk.take_slots();
    for (method, channel) in
        [("publish", "lobby"), ("presence", "lobby"), ("subscribe", "hall"), ("unsubscribe", "lobby")]
    {
        let command = json!({ "id": 3, method: { "channel": channel, "data": 1 } });
        assert_eq!(talk.say(&command), Flow::Continue, "{command}");
        while talk.hear()["id"] != 3 {}
    }
}

#[test]
fn nobody_stands_in_line_with_publishes_on_their_way() {
    let mut talk = Talk::of("ann", "[namespace.club]\npublish = 'members'\n");
    talk.subscribe("lobby");
    let slots = talk.take_slots();
    let publish = json!({ "id": 2, "publish": { "channel": "lobby", "data": 1 } }).to_string();
    let asks = json!({ "id": 3, "publish": { "channel": "club:a", "data": 1 } }).to_string();
    let text = format!("{publish}\n{asks}");
    assert_eq!(talk.session.on_frame(Frame::Text(&text)), Flow::Wait(publish.len() + 1));
    assert!(!talk.session.is_in_line(), "it would keep a slot while it waits for its commit");
    talk.session.end_turn();
    talk.session.take_work().unwrap()();
    while talk.session.wake_when_committed() {}
    assert_eq!(talk.session.on_frame(Frame::Text(&asks)), Flow::Wait(0));
    assert!(talk.session.is_in_line());
    talk.session.leave_line();
    drop(slots);
    assert_eq!(talk.say_text(&asks), Flow::Continue);
    while talk.hear()["id"] != 3 {}
}
