//! What is refused with an error reply while the connection stays.

use crate::support::server::TestServer;

fn error(code: u16, message: &str) -> String {
    format!(r#"{{"error":{{"code":{code},"message":"{message}"}}}}"#)
}

#[test]
fn a_second_subscribe_is_an_error() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    ann.join("room");
    let again = ann.ask(r#"{"subscribe":{"channel":"room"}}"#);
    assert_eq!(again, error(105, "already subscribed"));
    ann.publish("room", "1");
    ann.expect_numbers(1..=1);
    ann.expect_silence("room");
}

#[test]
fn a_channel_over_the_limit_is_refused() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for number in 0..128 {
        ann.join(&format!("room{number}"));
    }
    let subscribe = r#"{"subscribe":{"channel":"more"}}"#;
    assert_eq!(ann.ask(subscribe), error(106, "limit exceeded"));
    ann.ask(r#"{"unsubscribe":{"channel":"room7"}}"#);
    assert!(ann.ask(subscribe).starts_with(r#"{"subscribe""#), "a place is free again");
}

#[test]
fn channel_names_of_every_byte() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for character in 0u8..=255 {
        let name = serde_json::to_string(&format!("a{}b", char::from(character))).unwrap();
        let reply = ann.ask(&format!(r#"{{"presence_stats":{{"channel":{name}}}}}"#));
        let legal = (0x21..=0x7e).contains(&character);
        let expected = match character {
            b':' => error(102, "unknown channel"),
            b'#' => error(103, "permission denied"),
            _ if legal => r#"{"presence_stats":{"num_clients":0,"num_users":0}}"#.to_owned(),
            _ => error(107, "bad request"),
        };
        assert_eq!(reply, expected, "{name}");
    }
}

#[test]
fn channel_names_that_are_too_long() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let subscribe = |length| format!(r#"{{"subscribe":{{"channel":"{}"}}}}"#, "x".repeat(length));
    assert_eq!(ann.ask(&subscribe(256)), error(107, "bad request"));
    assert!(ann.ask(&subscribe(255)).starts_with(r#"{"subscribe""#));
}

#[test]
fn an_unknown_namespace_is_an_unknown_channel() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for command in [
        r#"{"subscribe":{"channel":"nope:a"}}"#,
        r#"{"publish":{"channel":"nope:a","data":1}}"#,
        r#"{"history":{"channel":"nope:a"}}"#,
        r#"{"presence":{"channel":"nope:a"}}"#,
        r#"{"presence_stats":{"channel":"nope:a"}}"#,
        r#"{"rpc":{"method":"publish","data":{"channel":"nope:a","data":1}}}"#,
    ] {
        assert_eq!(ann.ask(command), error(102, "unknown channel"), "{command}");
    }
}

#[test]
fn a_namespace_forbids_what_it_does_not_allow() {
    let server = TestServer::secured("");
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    ann.join("news:a");
    for command in [
        r#"{"publish":{"channel":"news:a","data":1}}"#,
        r#"{"publish":{"channel":"talk:a","data":1}}"#,
        r#"{"presence":{"channel":"talk:a"}}"#,
        r#"{"presence_stats":{"channel":"talk:a"}}"#,
        r#"{"history":{"channel":"talk:a"}}"#,
        r#"{"rpc":{"method":"publish","data":{"channel":"news:a","data":1}}}"#,
    ] {
        assert_eq!(ann.ask(command), error(103, "permission denied"), "{command}");
    }
    ann.expect_silence("news:a");
    server.api("publish", r#"{"channel":"news:a","data":1}"#);
    ann.expect_push(r#"{"channel":"news:a","pub":{"data":1,"offset":1}}"#);
}

#[test]
fn only_members_where_the_namespace_says_so() {
    let server = TestServer::secured("[namespace.team]\nsubscribe = \"members\"\npublish = \"members\"\n");
    server.api("room_create", r#"{"channel":"team:a","members":["ann"]}"#);
    let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
    let mut bob = server.connect_with("bob", r#"{"sub":"bob"}"#);
    ann.join("team:a");
    assert_eq!(bob.ask(r#"{"subscribe":{"channel":"team:a"}}"#), error(103, "permission denied"));
    assert_eq!(bob.ask(r#"{"publish":{"channel":"team:a","data":1}}"#), error(103, "permission denied"));
    ann.publish("team:a", "1");
}

#[test]
fn channels_of_named_users_are_theirs_in_every_mode() {
    let server = TestServer::start();
    let (mut ann, mut eve) = (server.connect("ann"), server.connect("eve"));
    ann.join("plan#ann,bob");
    for command in ["subscribe", "presence", "history"] {
        let reply = eve.ask(&format!(r#"{{"{command}":{{"channel":"plan#ann,bob"}}}}"#));
        assert_eq!(reply, error(103, "permission denied"), "{command}");
    }
}

#[test]
fn invalid_payloads_are_refused() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for data in ["", r#","data":null"#] {
        let reply = ann.ask(&format!(r#"{{"publish":{{"channel":"room"{data}}}}}"#));
        assert_eq!(reply, error(107, "bad request"));
    }
    let of_size =
        |bytes: usize| format!(r#"{{"publish":{{"channel":"room","data":"{}"}}}}"#, "x".repeat(bytes - 2));
    assert_eq!(ann.ask(&of_size(64 * 1024 + 1)), error(106, "limit exceeded"));
    assert_eq!(ann.ask(&of_size(64 * 1024)), r#"{"publish":{}}"#);
    let deep =
        format!(r#"{{"publish":{{"channel":"room","data":{}1{}}}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert_eq!(ann.ask(&deep), error(107, "bad request"));
}

#[test]
fn commands_over_the_rate_are_refused() {
    let server = TestServer::with("[client]\ncommands_per_second_max = 5\n");
    let mut ann = server.connect("ann");
    let ids: Vec<_> = (0..50).map(|_| ann.with_id(r#"{"ping":{}}"#)).collect();
    let frame: Vec<_> = ids.iter().map(|(_, text)| text.as_str()).collect();
    ann.send(&frame.join("\n"));
    let replies: Vec<_> = ids.iter().map(|(id, _)| ann.reply_to(*id)).collect();
    assert_eq!(replies[0], r#"{"ping":{}}"#);
    assert_eq!(replies[49], r#"{"error":{"code":111,"message":"too many requests","temporary":true}}"#);
}

#[test]
fn unsupported_options_are_declined() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    for (command, code, message) in [
        (r#"{"subscribe":{"channel":"a","tf":{"key":"a","cmp":"eq","val":"b"}}}"#, 107, "bad request"),
        (r#"{"subscribe":{"channel":"a","type":1,"phase":2}}"#, 103, "permission denied"),
        (r#"{"subscribe":{"channel":"a","type":4}}"#, 108, "not available"),
        (r#"{"publish":{"channel":"a","data":1,"type":1,"key":"k"}}"#, 103, "permission denied"),
    ] {
        assert_eq!(ann.ask(command), error(code, message), "{command}");
    }
    let delta = ann.ask(r#"{"subscribe":{"channel":"a","delta":"fossil"}}"#);
    assert_eq!(delta, r#"{"subscribe":{"recoverable":true,"positioned":true,"epoch":"E"}}"#);
}

#[test]
fn only_the_backend_creates_a_closed_room() {
    let server = TestServer::start();
    let mut ann = server.connect("ann");
    let subscribe = r#"{"subscribe":{"channel":"made:a"}}"#;
    let publish = r#"{"publish":{"channel":"made:a","data":1}}"#;
    assert_eq!(ann.ask(subscribe), error(102, "unknown channel"));
    assert_eq!(ann.ask(publish), error(102, "unknown channel"));
    assert!(server.api("publish", r#"{"channel":"made:a","data":1}"#).contains(r#""code":102"#));
    assert!(server.api("room_create", r#"{"channel":"made:a"}"#).contains(r#""kind":"public""#));
    assert!(ann.ask(subscribe).starts_with(r#"{"subscribe""#));
    assert_eq!(ann.ask(publish), r#"{"publish":{}}"#);
}
