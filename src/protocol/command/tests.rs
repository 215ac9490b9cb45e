//! Decoded command texts, garbage included.

use std::sync::Arc;

use super::method::*;
use super::*;
use crate::ids::Channel;
use crate::protocol::code::ErrorCode;
use crate::publication::Content;

fn one(line: &str) -> Result<Command, BadCommand> {
    let mut decoded = decode_frame(line);
    let first = decoded.next().unwrap();
    assert!(decoded.next().is_none(), "{line} is more than one command");
    first
}

fn method(line: &str) -> Method {
    let command = one(line).unwrap_or_else(|bad| panic!("{line}: {bad}"));
    let wanted = u32::from(!matches!(command.method, Method::Send(_) | Method::Pong));
    assert_eq!(command.id, wanted, "{line}");
    command.method
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

fn json(text: &str) -> Option<Arc<str>> {
    Some(Arc::from(text))
}

fn subscribe(name: &str) -> SubscribeRequest {
    SubscribeRequest {
        channel: channel(name),
        token: None,
        data: None,
        recover: false,
        offset: 0,
        epoch: String::new(),
        positioned: false,
        recoverable: false,
        join_leave: false,
        flag: 0,
        kind: 0,
        tags_filter: false,
    }
}

#[test]
fn connect_is_decoded() {
    for line in [
        r#"{"connect":{},"id":1}"#,
        r#"{"id":1,"connect":{"token":null,"data":null,"name":null,"subs":null,"headers":{"a":"b"}}}"#,
        r#"{"id":1,"connect":{"token":"","subs":{},"flag":3,"profile":"x","future":[{}]}}"#,
    ] {
        assert_eq!(method(line), Method::Connect(ConnectRequest::default()), "{line}");
    }
    let full = r#"{"id":1,"connect":{"token":"t","data":{ "user": "ann" },"name":"js","version":"1",
        "subs":{"a":{"recover":true,"offset":5,"epoch":"e"},"b":null,"c":{}}}}"#
        .replace('\n', " ");
    let recover = RecoverRequest { recover: true, offset: 5, epoch: "e".into() };
    assert_eq!(
        method(&full),
        Method::Connect(ConnectRequest {
            token: Some("t".into()),
            data: json(r#"{ "user": "ann" }"#),
            name: "js".into(),
            version: "1".into(),
            subs: vec![
                (channel("a"), recover),
                (channel("b"), RecoverRequest::default()),
                (channel("c"), RecoverRequest::default()),
            ],
        })
    );
}

#[test]
fn a_client_may_name_its_user() {
    let user = |data: Option<&str>| {
        let data = data.map(Arc::from);
        ConnectRequest { data, ..ConnectRequest::default() }.named_user().map(|user| user.to_string())
    };
    for (data, wanted) in [
        (None, Ok("")),
        (Some("7"), Ok("")),
        (Some("[1]"), Ok("")),
        (Some("{}"), Ok("")),
        (Some(r#"{"user":null}"#), Ok("")),
        (Some(r#"{"x":1,"user":"ann\u00e4"}"#), Ok("annä")),
        (Some(r#"{"user":5}"#), Err(ErrorCode::BadRequest)),
        (Some(r#"{"user":"a\u0000b"}"#), Err(ErrorCode::BadRequest)),
    ] {
        assert_eq!(user(data), wanted.map(str::to_owned), "{data:?}");
    }
    assert_eq!(user(Some(&format!(r#"{{"user":"{}"}}"#, "u".repeat(256)))), Err(ErrorCode::BadRequest));
}

#[test]
fn subscribe_is_decoded() {
    let cases = [
        (r#"{"id":1,"subscribe":{"channel":"news"}}"#, subscribe("news")),
        (
            r#"{"id":1,"subscribe":{"channel":"news","flag":1}}"#,
            SubscribeRequest { flag: 1, ..subscribe("news") },
        ),
        (
            r#"{"id":1,"subscribe":{"channel":"c","flag":3,"recover":true}}"#,
            SubscribeRequest { flag: 3, recover: true, ..subscribe("c") },
        ),
        (
            r#"{"id":1,"subscribe":{"channel":"c","token":"t","data":[1, 2],"recover":true,"offset":8,"epoch":"e","positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil"}}"#,
            SubscribeRequest {
                token: Some("t".into()),
                data: json("[1, 2]"),
                recover: true,
                offset: 8,
                epoch: "e".into(),
                positioned: true,
                recoverable: true,
                join_leave: true,
                ..subscribe("c")
            },
        ),
        (
            r#"{"id":1,"subscribe":{"channel":"\u0063","offset":null,"epoch":null,"tf":null,"recover":null}}"#,
            subscribe("c"),
        ),
        (
            r#"{"id":1,"subscribe":{"channel":"c","offset":5.0}}"#,
            SubscribeRequest { offset: 5, ..subscribe("c") },
        ),
        (
            r#"{"id":1,"subscribe":{"channel":"c","offset":9007199254740992}}"#,
            SubscribeRequest { offset: 1 << 53, ..subscribe("c") },
        ),
    ];
    for (line, wanted) in cases {
        assert_eq!(method(line), Method::Subscribe(wanted), "{line}");
    }
}

#[test]
fn subscribe_knows_what_is_not_supported() {
    let request = |members: &str| {
        let line = format!(r#"{{"id":1,"subscribe":{{"channel":"c"{members}}}}}"#);
        match method(&line) {
            Method::Subscribe(request) => request,
            other => panic!("{other:?}"),
        }
    };
    for (members, rejects, unsupported) in [
        ("", false, None),
        (r#","flag":1"#, false, None),
        (r#","flag":2"#, true, None),
        (r#","flag":3"#, true, None),
        (r#","tf":{"op":"and"}"#, false, Some(ErrorCode::BadRequest)),
        (r#","type":1,"phase":2"#, false, Some(ErrorCode::PermissionDenied)),
        (r#","type":3"#, false, Some(ErrorCode::PermissionDenied)),
        (r#","type":4"#, false, Some(ErrorCode::NotAvailable)),
        (r#","type":-1"#, false, Some(ErrorCode::NotAvailable)),
    ] {
        assert_eq!(request(members).rejects_unrecovered(), rejects, "{members}");
        assert_eq!(request(members).unsupported(), unsupported, "{members}");
    }
}

#[test]
fn publish_is_decoded() {
    let publish =
        |data: &str| Method::Publish(PublishRequest { channel: channel("x"), data: data.into(), kind: 0 });
    for (line, wanted) in [
        (r#"{"publish":{"channel":"x","data":{"a":1}},"id":1}"#, r#"{"a":1}"#),
        (r#"{"publish":{"data":"text\n","channel":"x","key":"k"},"id":1}"#, r#""text\n""#),
        ("{\"publish\":{\"channel\":\"x\",\"data\":{\r\t\"a b\" : [ ] }},\"id\":1}", "{\r\t\"a b\" : [ ] }"),
        (r#"{"publish":{"channel":"x","data":false},"id":1}"#, "false"),
        (r#"{"publish":{"channel":"x","data":1e-9999},"id":1}"#, "1e-9999"),
        (
            r#"{"publish":{"channel":"x","data":123456789012345678901234567890.10},"id":1}"#,
            "123456789012345678901234567890.10",
        ),
    ] {
        assert_eq!(method(line), publish(wanted), "{line}");
    }
    let Method::Publish(map) = method(r#"{"id":1,"publish":{"channel":"x","data":1,"type":1}}"#) else {
        panic!("no publish");
    };
    assert_eq!(map.unsupported(), Some(ErrorCode::PermissionDenied));
}

#[test]
fn the_other_commands_are_decoded() {
    let about = || ChannelRequest { channel: channel("c") };
    let history = HistoryRequest { channel: channel("c"), limit: 0, since: None, reverse: false };
    let since = |offset, epoch: &str| Some(StreamPosition { offset, epoch: epoch.into() });
    let refresh = |channel, token| SubRefreshRequest { channel, token, kind: 0 };
    let cases = [
        (r#"{"id":1,"unsubscribe":{"channel":"c"}}"#, Method::Unsubscribe(about())),
        (r#"{"id":1,"presence":{"channel":"c"}}"#, Method::Presence(about())),
        (r#"{"id":1,"presence_stats":{"channel":"c"}}"#, Method::PresenceStats(about())),
        (r#"{"id":1,"history":{"channel":"c"}}"#, Method::History(history.clone())),
        (
            r#"{"id":1,"history":{"channel":"c","limit":-1,"since":{"offset":7,"epoch":"e"},"reverse":true}}"#,
            Method::History(HistoryRequest {
                limit: -1,
                since: since(7, "e"),
                reverse: true,
                ..history.clone()
            }),
        ),
        (
            r#"{"id":1,"history":{"channel":"c","limit":10,"since":{}}}"#,
            Method::History(HistoryRequest { limit: 10, since: since(0, ""), ..history }),
        ),
        (r#"{"id":1,"rpc":{}}"#, Method::Rpc(RpcRequest::default())),
        (
            r#"{"id":1,"rpc":{"method":"m","data":{ }}}"#,
            Method::Rpc(RpcRequest { method: "m".into(), data: Some("{ }".into()) }),
        ),
        (r#"{"send":{"data":[ ]}}"#, Method::Send(SendRequest { data: json("[ ]") })),
        (r#"{"send":{},"id":9}"#, Method::Send(SendRequest::default())),
        (r#"{"id":1,"refresh":{"token":"t"}}"#, Method::Refresh(RefreshRequest { token: Some("t".into()) })),
        (r#"{"id":1,"refresh":{}}"#, Method::Refresh(RefreshRequest::default())),
        (r#"{"id":1,"sub_refresh":{"token":"t"}}"#, Method::SubRefresh(refresh(None, Some("t".into())))),
        (
            r#"{"id":1,"sub_refresh":{"channel":"c","token":"t"}}"#,
            Method::SubRefresh(refresh(Some(channel("c")), Some("t".into()))),
        ),
        (r#"{"id":1,"sub_refresh":{"channel":""}}"#, Method::SubRefresh(refresh(None, None))),
        (r#"{"id":1,"ping":{}}"#, Method::Ping),
        ("{}", Method::Pong),
        (" { } ", Method::Pong),
        (r#"{"id":null,"connect":null}"#, Method::Pong),
    ];
    for (line, wanted) in cases {
        assert_eq!(method(line), wanted, "{line}");
    }
    let Method::SubRefresh(poll) = method(r#"{"id":1,"sub_refresh":{"channel":"c","type":1}}"#) else {
        panic!("no sub_refresh");
    };
    assert_eq!(poll.unsupported(), Some(ErrorCode::NotAvailable));
}

#[test]
fn of_several_methods_the_first_in_rank_counts() {
    let ranked = [
        ("connect", "{}"),
        ("ping", "{}"),
        ("subscribe", r#"{"channel":"c"}"#),
        ("unsubscribe", r#"{"channel":"c"}"#),
        ("publish", r#"{"channel":"c","data":1}"#),
        ("presence", r#"{"channel":"c"}"#),
        ("presence_stats", r#"{"channel":"c"}"#),
        ("history", r#"{"channel":"c"}"#),
        ("rpc", "{}"),
        ("send", "{}"),
        ("refresh", "{}"),
        ("sub_refresh", "{}"),
    ];
    for pair in ranked.windows(2) {
        let [(first, its), (second, others)] = pair else { unreachable!() };
        for line in [
            format!(r#"{{"id":1,"{first}":{its},"{second}":{others}}}"#),
            format!(r#"{{"{second}":{others},"{first}":{its},"id":1}}"#),
        ] {
            assert_eq!(one(&line).unwrap().method.as_str(), *first, "{line}");
        }
        let second_alone = format!(r#"{{"id":1,"{first}":null,"{second}":{others}}}"#);
        assert_eq!(one(&second_alone).unwrap().method.as_str(), *second);
    }
}

#[test]
fn any_id_of_32_bits_is_taken() {
    let id = |line| one(line).unwrap().id;
    assert_eq!(id(r#"{"id":4294967295,"ping":{}}"#), u32::MAX);
    assert_eq!(id(r#"{"id":5,"ping":{},"id":7}"#), 7);
}

#[test]
fn text_that_is_not_json_closes() {
    for (frame, broken) in [
        ("", Broken::Blank),
        ("\n", Broken::Blank),
        (" \t\r", Broken::Blank),
        ("x", Broken::Malformed),
        ("null", Broken::Malformed),
        ("1", Broken::Malformed),
        ("\"connect\"", Broken::Malformed),
        ("[]", Broken::Malformed),
        ("[1,{}]", Broken::Malformed),
        ("{", Broken::Malformed),
        ("{\"id\":1,", Broken::Malformed),
        ("{}{}", Broken::Malformed),
        ("{} x", Broken::Malformed),
        ("{\"id\":1,\"connect\":{\"token\":\"a\tb\"}}", Broken::Malformed),
        ("\u{feff}{}", Broken::Malformed),
        ("{\"id\":-1,\"connect\":{}}", Broken::Malformed),
        ("{\"id\":1.5,\"connect\":{}}", Broken::Malformed),
        ("{\"id\":\"1\",\"connect\":{}}", Broken::Malformed),
        ("{\"id\":4294967296,\"connect\":{}}", Broken::Malformed),
        ("{\"id\":1e99,\"connect\":{}}", Broken::Malformed),
        ("{\"id\":1,\"connect\":[]}", Broken::Malformed),
        ("{\"id\":1,\"connect\":7}", Broken::Malformed),
        ("{\"id\":1,\"publish\":[\"c\",1]}", Broken::Malformed),
        ("{\"send\":{\"data\":}}", Broken::Malformed),
        ("{\"send\":5}", Broken::Malformed),
        ("{\"id\":1}", Broken::NoMethod),
        ("{\"id\":0}", Broken::NoMethod),
        ("{\"id\":1,\"suscribe\":{\"channel\":\"c\"}}", Broken::NoMethod),
        ("{\"unknown\":{}}", Broken::NoMethod),
        ("{\"connect\":{}}", Broken::NoId),
        ("{\"id\":0,\"connect\":{}}", Broken::NoId),
        ("{\"id\":null,\"ping\":{}}", Broken::NoId),
        ("{\"publish\":{\"channel\":\"c\"}}", Broken::NoId),
        ("{\"id\":1,\"subscribe\":{}}", Broken::NoChannel),
        ("{\"id\":1,\"subscribe\":{\"channel\":\"\"}}", Broken::NoChannel),
        ("{\"id\":1,\"history\":{\"channel\":null}}", Broken::NoChannel),
        ("{\"id\":1,\"publish\":{\"data\":1}}", Broken::NoChannel),
        ("{\"id\":1,\"presence\":{\"channel\":5}}", Broken::Malformed),
    ] {
        assert_eq!(one(frame), Err(BadCommand::Close(broken)), "{frame:?}");
    }
}

#[test]
fn bad_parameters_are_refused_by_id() {
    let long = "x".repeat(256);
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let digits = "9".repeat(5000);
    for parameters in [
        r#""subscribe":{"channel":"a b"}"#.to_owned(),
        r#""subscribe":{"channel":"ä"}"#.to_owned(),
        r#""subscribe":{"channel":"a\nb"}"#.to_owned(),
        format!(r#""unsubscribe":{{"channel":"{long}"}}"#),
        r#""subscribe":{"channel":"c","offset":-1}"#.to_owned(),
        r#""subscribe":{"channel":"c","offset":9007199254740993}"#.to_owned(),
        r#""subscribe":{"channel":"c","offset":1e300}"#.to_owned(),
        r#""subscribe":{"channel":"c","offset":0.5}"#.to_owned(),
        r#""subscribe":{"channel":"c","offset":"8"}"#.to_owned(),
        r#""subscribe":{"channel":"c","recover":1}"#.to_owned(),
        r#""subscribe":{"channel":"c","token":5}"#.to_owned(),
        r#""history":{"channel":"c","limit":"x"}"#.to_owned(),
        r#""history":{"channel":"c","limit":4294967296}"#.to_owned(),
        r#""history":{"channel":"c","since":5}"#.to_owned(),
        r#""history":{"channel":"c","since":{"offset":-5}}"#.to_owned(),
        r#""publish":{"channel":"c"}"#.to_owned(),
        r#""publish":{"channel":"c","data":null}"#.to_owned(),
        format!(r#""publish":{{"channel":"c","data":{deep}}}"#),
        format!(r#""publish":{{"channel":"c","data":{digits}}}"#),
        format!(r#""rpc":{{"method":"m","data":{deep}}}"#),
        r#""rpc":{"method":5}"#.to_owned(),
        r#""sub_refresh":{"channel":"a b"}"#.to_owned(),
        r#""refresh":{"token":{}}"#.to_owned(),
    ] {
        let refused = Err(BadCommand::Refuse { id: 3, connect: false });
        assert_eq!(one(&format!("{{\"id\":3,{parameters}}}")), refused, "{:.80}", parameters);
    }
    for parameters in [r#"{"token":5}"#, r#"{"subs":{"a b":{}}}"#, r#"{"subs":[]}"#, r#"{"name":{}}"#] {
        let refused = Err(BadCommand::Refuse { id: 3, connect: true });
        assert_eq!(one(&format!("{{\"connect\":{parameters},\"id\":3}}")), refused, "{parameters}");
    }
}

#[test]
fn a_frame_holds_several_commands() {
    let ids = |frame: &str| -> Vec<Result<u32, BadCommand>> {
        decode_frame(frame).map(|decoded| decoded.map(|command| command.id)).collect()
    };
    let blank = Err(BadCommand::Close(Broken::Blank));
    assert_eq!(ids("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"ping\":{}}"), [Ok(1), Ok(2)]);
    assert_eq!(ids("{\"id\":1,\"ping\":{}}\n"), [Ok(1)]);
    assert_eq!(ids("{\"id\":1,\"ping\":{}}\r\n{}\r\n"), [Ok(1), Ok(0)]);
    assert_eq!(ids("{\"id\":1,\"ping\":{}}\n\n{}"), [Ok(1), blank, Ok(0)]);
    assert_eq!(ids("{}\n\n"), [Ok(0), blank]);
    assert_eq!(ids("\n{}"), [blank, Ok(0)]);
}

#[test]
fn a_frame_can_be_taken_in_parts() {
    for frame in ["{}\n{\"id\":2,\"ping\":{}}\n{}", "{}\n{}\n\n", "{}", "{}\n"] {
        let whole: Vec<_> = decode_frame(frame).collect();
        let mut parts = Vec::new();
        let mut left = Some(0);
        let mut frame_left = frame;
        while let Some(position) = left {
            frame_left = &frame_left[position..];
            let mut commands = decode_frame(frame_left);
            parts.extend(commands.next());
            left = commands.position();
        }
        assert_eq!(parts, whole, "{frame:?}");
    }
}

#[test]
fn deep_nesting_anywhere_is_survived() {
    let deep = format!("{}{}", "{\"a\":".repeat(100_000), "1".to_owned() + &"}".repeat(100_000));
    assert_eq!(one(&deep), Err(BadCommand::Close(Broken::NoMethod)));
    assert!(one(&format!("{{\"id\":1,\"ping\":{{}},\"x\":{deep}}}")).is_ok());
    assert!(one(&format!("{{\"id\":1,\"rpc\":{{\"x\":{deep}}}}}")).is_ok());
    assert_eq!(one(&"[".repeat(500_000)), Err(BadCommand::Close(Broken::Malformed)));
    assert!(one(&format!("{{\"id\":1,\"subscribe\":{{\"channel\":{deep}}}}}")).is_err());
}

/// A small generator of pseudo-random numbers (xorshift), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn no_bytes_make_decoding_panic() {
    let seed = std::env::var("ROOMCAST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(0x5eed_0001);
    eprintln!("seed {seed}; set ROOMCAST_TEST_SEED to repeat another");
    let mut random = Random(seed);
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\n",
        " ",
        "\\",
        "\\u12",
        "\\ud800",
        "null",
        "true",
        "-",
        "1",
        "9007199254740993",
        "1e400",
        "\"id\":1",
        "\"connect\":",
        "\"subscribe\":",
        "\"publish\":",
        "\"channel\":\"c\"",
        "\"channel\":\"\\n\"",
        "\"data\":",
        "\"since\":",
        "\"offset\":",
        "\"subs\":",
        "\"history\":",
        "\"rpc\":",
        "\"send\":",
        "\"sub_refresh\":",
        "ä",
        "\u{0}",
        "\u{2028}",
        "\u{10ffff}",
    ];
    for _ in 0..60_000 {
        let length = random.below(24);
        let text: String = (0..length).map(|_| pieces[random.below(pieces.len())]).collect();
        check_decoded(&text);
        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        check_decoded(&String::from_utf8_lossy(&bytes));
    }
    let good =
        br#"{"id":7,"subscribe":{"channel":"news","data":{"a":[1,"\u00e4"]},"recover":true,"offset":8}}"#;
    for _ in 0..60_000 {
        let mut bytes = good.to_vec();
        for _ in 0..=random.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
        check_decoded(&String::from_utf8_lossy(&bytes));
    }
}

/// Whatever comes out must keep what the types promise.
fn check_decoded(text: &str) {
    for decoded in decode_frame(text) {
        let Ok(Command { id, method }) = decoded else { continue };
        assert_eq!(id == 0, matches!(method, Method::Send(_) | Method::Pong), "{text:?}");
        let payload = match &method {
            Method::Connect(ConnectRequest { data, .. })
            | Method::Subscribe(SubscribeRequest { data, .. })
            | Method::Send(SendRequest { data }) => data.as_deref(),
            Method::Rpc(RpcRequest { data, .. }) => data.as_ref().and_then(Content::as_json),
            Method::Publish(request) => request.data.as_json(),
            _ => None,
        };
        if let Some(payload) = payload {
            assert!(!payload.contains('\n'), "{text:?}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(payload).is_ok(), "{text:?}");
        }
    }
}
