//! Names and keys are data: ids of any characters, keys of different senders, and payloads that stay queryable.

use crate::support::server::TestServer;
use crate::support::token::token;

const DENIED: &str = r#"{"error":{"code":103,"message":"permission denied"}}"#;
const BAD: &str = r#"{"error":{"code":107,"message":"bad request"}}"#;
const CONFLICT: &str = r#"{"error":{"code":113,"message":"conflict"}}"#;

/// A server on which everybody has a personal channel in two namespaces.
fn personal() -> TestServer {
    let mut server = TestServer::secured("[namespace.own]\npersonal = true\njoin_leave = false\n");
    let file = server.folder.0.join("roomcast.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("[default_namespace]\n", "[default_namespace]\npersonal = true\n"))
        .unwrap();
    server.restart();
    server
}

#[test]
fn a_personal_channel_is_of_its_user_alone() {
    let server = personal();
    let ids = [
        ("ann@x.org", "ann@x.org"),
        ("a,b", "a%2Cb"),
        ("google:123", "google%3A123"),
        ("@ann:matrix.org", "@ann%3Amatrix.org"),
        ("a#b", "a%23b"),
        ("50%", "50%25"),
        ("名", "%E5%90%8D"),
        ("a b", "a%20b"),
    ];
    let strangers = ["a", "b", "google", "123", "50", "a%2Cb", "eve"];
    for (id, name) in ids {
        let mut owner = server.open();
        let claims = format!(r#"{{"sub":"{id}"}}"#);
        let reply = owner.connect(&format!(r#"{{"token":"{}"}}"#, token(&claims)), "owner");
        for channel in [format!("#{name}"), format!("own:#{name}")] {
            assert!(reply.contains(&format!(r#""{channel}":{{"recoverable":true"#)), "{id}: {reply}");
            let publish = format!(r#"{{"channel":"{channel}","data":"for {id}"}}"#);
            assert!(server.api("publish", &publish).contains(r#""offset":1"#));
            assert!(owner.next_push().contains(&format!(r#""data":"for {id}""#)));
            for stranger in strangers {
                let claims = format!(r#"{{"sub":"{stranger}"}}"#);
                let mut stranger = server.connect_with(stranger, &claims);
                for command in ["subscribe", "history", "presence"] {
                    let reply = stranger.ask(&format!(r#"{{"{command}":{{"channel":"{channel}"}}}}"#));
                    assert_eq!(reply, DENIED, "{command} {channel}");
                }
            }
        }
    }
}

/// A name has 255 bytes at most, and ids are encoded in it: the longest id that fits with the namespace, the longest that
/// fits without, and one that fits nowhere. Each user is let in.
#[test]
fn no_spelling_opens_the_personal_channel_of_others() {
    let server = personal();
    let mut owner = server.open();
    owner.connect(&format!(r#"{{"token":"{}"}}"#, token(r#"{"sub":"a,b"}"#)), "owner");
    let publish = |channel: &str, data: &str| {
        server.api("publish", &format!(r#"{{"channel":"{channel}","data":"{data}"}}"#));
    };
    publish("#a%2Cb", "private");
    owner.next_push();
    for user in ["a", "b"] {
        let mut stranger = server.connect_with(user, &format!(r#"{{"sub":"{user}"}}"#));
        for same in ["#a%2Cb", "#a%2cb", "#%61%2Cb", "#a%2C%62", "#%61%2C%62", "#a%252Cb"] {
            for command in ["subscribe", "history", "presence"] {
                let reply = stranger.ask(&format!(r#"{{"{command}":{{"channel":"{same}"}}}}"#));
                assert_eq!(reply, DENIED, "{user}: {command} {same}");
            }
        }
        // Rooms of these two or three users, which they share on purpose.
        for shared in ["#a,b", "#b,a", "#a,%62", "#a%2Cb,a,b"] {
            let reply = stranger.ask(&format!(r#"{{"subscribe":{{"channel":"{shared}"}}}}"#));
            assert!(reply.starts_with(r#"{"subscribe":"#), "{user} {shared}: {reply}");
            let reply = stranger.ask(&format!(r#"{{"history":{{"channel":"{shared}","limit":9}}}}"#));
            assert!(reply.starts_with(r#"{"history":"#) && !reply.contains("private"), "{shared}: {reply}");
        }
        publish("#a%2Cb", "more");
        publish("#a,b", "shared");
        assert!(owner.next_push().contains(r#""data":"more""#));
        loop {
            let push = stranger.next_push();
            assert!(!push.contains("more"), "{user}: {push}");
            if push.contains(r#""data":"shared""#) {
                break;
            }
        }
    }
}

#[test]
fn an_id_too_long_for_a_name_has_no_personal_channel() {
    let server = personal();
    for (id, encoded, channels) in [
        ("a".repeat(250), "a".repeat(250), 2),
        ("a".repeat(251), "a".repeat(251), 1),
        (format!("{}名", "a".repeat(245)), format!("{}%E5%90%8D", "a".repeat(245)), 1),
        (format!("{}名", "a".repeat(246)), String::new(), 0),
        ("名".repeat(85), String::new(), 0),
    ] {
        let mut client = server.open();
        let token = token(&format!(r#"{{"sub":"{id}"}}"#));
        let reply = client.connect(&format!(r#"{{"token":"{token}"}}"#), "long");
        assert!(reply.starts_with(r#"{"connect":{"client":"<long"#), "{reply}");
        let has = |channel: String| reply.contains(&format!(r#""{channel}":{{"#));
        assert_eq!(
            (has(format!("#{encoded}")), has(format!("own:#{encoded}"))),
            (channels > 0, channels > 1),
            "{reply}"
        );
        assert_eq!(reply.contains("subs"), channels > 0, "{reply}");
    }
}

on_both_databases! {
    /// Of both the key and the data is known to the other.
    a_stranger_has_no_key_of_the_backend(server, "[api]\nkey = \"key\"\n[client]\ninsecure = true\n") {
        let publish = |data: &str| format!(r#"{{"rpc":{{"method":"publish","data":{{"channel":"news2","data":"{data}","key":"order-7"}}}}}}"#);
        let (mut eve, mut mallory) = (server.connect(""), server.connect(""));
        assert!(eve.ask(&publish("spoof")).contains(r#""offset":1"#));
        let paid = r#"{"channel":"news2","data":"paid","idempotency_key":"order-7"}"#;
        for _ in 0..2 {
            assert_eq!(server.api("publish", paid), r#"{"result":{"offset":2,"epoch":"E"}}"#);
        }
        assert!(mallory.ask(&publish("paid")).contains(r#""offset":3"#));
        assert!(eve.ask(&publish("spoof")).contains(r#""offset":1"#), "the same again");
        assert_eq!(eve.ask(&publish("paid")), CONFLICT);
        let other = server.post("/api/publish", "X-API-Key: key\r\n", &paid.replace("paid", "spoof"));
        assert_eq!(other.status, 200);
        assert!(other.body.starts_with(r#"{"error":{"code":113,"message":"conflict"#), "{}", other.body);
        let history = server.api("history", r#"{"channel":"news2","limit":9}"#);
        let data: Vec<_> = history.matches(r#""data":"spoof""#).chain(history.matches(r#""data":"paid""#)).collect();
        assert_eq!(data.len(), 3, "{history}");
    }
}

on_both_databases! {
    what_sql_cannot_read_is_refused_at_every_door(server, "[api]\nkey = \"key\"\n") {
        let mut ann = server.connect("ann");
        for poison in [r#""a\u0000b""#, r#"{"\u0000":1}"#, r#""\ud83d""#, r#"["\ude00"]"#, "1e20000", "[1e-20000]"] {
            let publish = format!(r#"{{"channel":"room","data":{poison}}}"#);
            assert_eq!(ann.ask(&format!(r#"{{"publish":{publish}}}"#)), BAD, "{poison}");
            assert_eq!(ann.ask(&format!(r#"{{"rpc":{{"method":"publish","data":{publish}}}}}"#)), BAD, "{poison}");
            let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, poison);
            for (method, body) in [
                ("publish", publish.clone()),
                ("publish", format!(r#"{{"channel":"room","b64data":"{base64}"}}"#)),
                ("broadcast", publish.replace(r#""channel":"room""#, r#""channels":["room"]"#)),
            ] {
                let answer = server.api(method, &body);
                assert!(answer.starts_with(r#"{"error":{"code":107,"#), "{method} {body}: {answer}");
            }
        }
        for tags in [r#"{"k":"\u0000"}"#, r#"{"\u0000":"v"}"#, r#"{"k":"\ud83d"}"#] {
            let answer = server.api("publish", &format!(r#"{{"channel":"room","data":1,"tags":{tags}}}"#));
            assert!(answer.starts_with(r#"{"error":{"code":107,"#), "{tags}: {answer}");
        }
        for data in [r#""\ud83d\ude00""#, r#""\\u0000""#, "1e308", "[-1.5E-9999]", &"7".repeat(308), &format!("{}{}", "[".repeat(128), "]".repeat(128))] {
            ann.publish("room", data);
        }
        server.execute(match server.backend() {
            crate::support::server::Backend::Sqlite => "SELECT CASE WHEN min(json_valid(data)) = 1 THEN 1 ELSE abs(-9223372036854775808) END FROM messages",
            crate::support::server::Backend::Postgres => "SELECT data::jsonb, tags::jsonb, conn_info::jsonb, chan_info::jsonb FROM messages",
        });
    }
}

#[test]
fn tokens_give_nobody_info_that_sql_cannot_read() {
    let server = TestServer::secured("");
    for info in [r#""\u0000""#, r#"{"a":"\ud83d"}"#] {
        let mut ann = server.open();
        let token_of = |claims: &str| token(claims);
        ann.call(&format!(
            r#"{{"connect":{{"token":"{}"}}}}"#,
            token_of(&format!(r#"{{"sub":"ann","info":{info}}}"#))
        ));
        ann.expect_close(3500);
        let mut ann = server.connect_with("ann", r#"{"sub":"ann"}"#);
        let claims = token_of(&format!(r#"{{"sub":"ann","channel":"$a","info":{info}}}"#));
        assert_eq!(ann.ask(&format!(r#"{{"subscribe":{{"channel":"$a","token":"{claims}"}}}}"#)), DENIED);
    }
}
