//! Decoded API bodies, and the exact text of every result and error.

use std::fmt::Debug;
use std::sync::Arc;

use super::page::*;
use super::params::*;
use super::results::*;
use super::*;
use crate::ids::Channel;
use crate::protocol::code::Close;
use crate::protocol::command::{ChannelRequest, HistoryRequest};
use crate::protocol::reply::{HistoryResult, PresenceStatsResult};
use crate::publication::Content;

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

fn params<'a, T: Deserialize<'a>>(body: &'a str) -> T {
    decode(body.as_bytes()).unwrap_or_else(|bad| panic!("{body}: {bad}"))
}

fn rejected<'a, T: Deserialize<'a> + Debug>(bodies: &[&'a str]) {
    for body in bodies {
        let outcome = decode::<T>(body.as_bytes());
        assert!(matches!(outcome, Err(BadParams::Rejected(_))), "{body:.80}: {outcome:?}");
    }
}

fn plain_message(data: &str) -> ApiMessage {
    ApiMessage { data: data.into(), tags: None, idempotency_key: None, skip_history: false }
}

#[test]
fn publish_params() {
    assert_eq!(
        params::<PublishParams>(
            "{\n  \"channel\": \"news\",\n  \"data\": {\n \"a\": \"b c\"\n}\n, \"delta\": true}"
        ),
        PublishParams { channel: channel("news"), message: plain_message("{\n \"a\": \"b c\"\n}") }
    );
    assert_eq!(
        params::<PublishParams>(
            r#"{"channel":"c","b64data":"eyJhIjogMX0=","tags":{ "k":"v" },"idempotency_key":"k","skip_history":true}"#
        ),
        PublishParams {
            channel: channel("c"),
            message: ApiMessage {
                tags: Some(r#"{"k":"v"}"#.into()),
                idempotency_key: Some("k".into()),
                skip_history: true,
                ..plain_message(r#"{"a": 1}"#)
            }
        }
    );
    // No JSON; whether the room takes it is for others to say.
    let bytes = params::<PublishParams>(r#"{"channel":"c","b64data":"e30x"}"#).message.data;
    assert_eq!((bytes.as_json(), bytes.as_bytes()), (None, &b"{}1"[..]));
    assert_eq!(
        params::<PublishParams>(r#"{"channel":"c","data":0,"tags":{},"idempotency_key":"","b64data":""}"#)
            .message,
        plain_message("0")
    );
    let long_key = format!(r#"{{"channel":"c","data":1,"idempotency_key":"{}"}}"#, "k".repeat(129));
    rejected::<PublishParams>(&[
        "",
        "{}",
        "[]",
        "null",
        r#"["c",[],1]"#,
        r#"{"channel":"c"}"#,
        r#"{"channel":"c","data":null}"#,
        r#"{"channel":"","data":1}"#,
        r#"{"data":1}"#,
        r#"{"channel":"a b","data":1}"#,
        r#"{"channel":5,"data":1}"#,
        r#"{"channel":"c","data":1,"tags":{"k":1}}"#,
        r#"{"channel":"c","data":1,"tags":["k"]}"#,
        r#"{"channel":"c","b64data":"%%"}"#,
        &long_key,
    ]);
}

#[test]
fn payloads_from_code_are_checked() {
    assert_eq!(payload(" { \"a\" : 1 }\n"), Ok(r#"{ "a" : 1 }"#.into()));
    for text in ["", "{", "{} {}", "NaN"] {
        assert!(matches!(payload(text), Err(BadParams::Malformed(_))), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for text in [" null ", &deep, r#""\u0000""#, r#"["\ud83d"]"#, "1e20000"] {
        assert!(matches!(payload(text), Err(BadParams::Rejected(_))), "{text:.20}");
    }
}

#[test]
fn broadcast_params() {
    assert_eq!(
        params::<BroadcastParams>(r#"{"channels":["a","b"],"data":[1, 2]}"#),
        BroadcastParams { channels: vec![channel("a"), channel("b")], message: plain_message("[1, 2]") }
    );
    rejected::<BroadcastParams>(&[
        r#"{"channels":[],"data":1}"#,
        r#"{"channel":"a","data":1}"#,
        r#"{"channels":["a",""],"data":1}"#,
        r#"{"channels":"a","data":1}"#,
        r#"{"channels":["a"]}"#,
    ]);
}

#[test]
fn the_other_params() {
    let channels = |pattern: Option<&str>, after: Option<&str>, limit| ChannelsParams {
        pattern: pattern.map(Into::into),
        after: after.map(Into::into),
        limit,
    };
    assert_eq!(params::<ChannelsParams>(""), channels(None, None, 1000));
    assert_eq!(params::<ChannelsParams>(r#"{"pattern":"a*"}"#), channels(Some("a*"), None, 1000));
    assert_eq!(params::<ChannelsParams>(r#"{"after":"b","limit":7}"#), channels(None, Some("b"), 7));
    assert_eq!(params::<ContactsParams>(r#"{"user":"ann","limit":null}"#).limit, 1000);
    assert_eq!(params::<ChannelPageParams>(r#"{"channel":"c","after":""}"#).after, None);
    assert_eq!(params::<PageParams>(""), PageParams::default());
    assert_eq!(params::<NoParams>(r#"{"x":1}"#), NoParams {});
    assert_eq!(params::<ChannelRequest>(r#"{"channel":"c"}"#).channel, channel("c"));
    let history =
        params::<HistoryRequest>(r#"{"channel":"c","limit":5,"since":{"offset":2},"reverse":true}"#);
    assert_eq!((history.limit, history.since.map(|since| since.offset), history.reverse), (5, Some(2), true));
    assert_eq!(
        params::<DisconnectParams>(
            r#"{"user":"42","whitelist":["c1"],"disconnect":{"code":4501,"reason":"gone"},"session":"s"}"#
        ),
        DisconnectParams {
            user: "42".into(),
            client: None,
            whitelist: vec!["c1".into()],
            disconnect: Close::custom(4501, "gone".into()).ok(),
        }
    );
    assert_eq!(
        params::<UnsubscribeParams>(r#"{"user":"","channel":"c","client":"c1"}"#),
        UnsubscribeParams { user: "".into(), channel: channel("c"), client: Some("c1".into()) }
    );
    assert_eq!(
        params::<ContactParams>(r#"{"user":"ann","contact":"bob"}"#),
        ContactParams { user: "ann".into(), contact: "bob".into() }
    );
    assert_eq!(params::<UserParams>(r#"{"user":"ann"}"#), UserParams { user: "ann".into() });
    let room = params::<RoomCreateParams>(r#"{"channel":"c","members":["ann","bob"]}"#);
    assert_eq!((room.kind(), room.members.len()), (NewRoomKind::Group, 2));
    assert_eq!(params::<RoomCreateParams>(r#"{"channel":"c"}"#).kind(), NewRoomKind::Public);
    assert_eq!(params::<RoomCreateParams>(r#"{"channel":"c","kind":"group"}"#).kind(), NewRoomKind::Group);
}

#[test]
fn senseless_params_are_rejected() {
    rejected::<ChannelRequest>(&["", "{}", r#"{"channel":""}"#]);
    rejected::<HistoryRequest>(&[
        r#"{"channel":"c","since":{"offset":-1}}"#,
        r#"{"channel":"c","limit":1.5}"#,
    ]);
    rejected::<DisconnectParams>(&[
        "{}",
        r#"{"user":"a\u0000"}"#,
        r#"{"user":"a","disconnect":{"code":1000,"reason":"x"}}"#,
        r#"{"user":"a","disconnect":{"code":4000,"reason":"7"}}"#,
        r#"{"user":"a","disconnect":{"code":4000}}"#,
    ]);
    let long_user = format!(r#"{{"user":"{}"}}"#, "u".repeat(256));
    rejected::<UserParams>(&["{}", r#"{"user":""}"#, r#"{"user":7}"#, &long_user]);
    rejected::<PageParams>(&[r#"{"limit":0}"#, r#"{"limit":1001}"#, r#"{"after":1}"#]);
    rejected::<ContactParams>(&[r#"{"user":"a"}"#, r#"{"contact":"a"}"#]);
    rejected::<RoomCreateParams>(&[
        r#"{"channel":"c","kind":"direct"}"#,
        r#"{"channel":"c","members":[""]}"#,
    ]);
    for body in ["{", "x", "{} {}", "{\"channel\":}"] {
        assert!(matches!(decode::<ChannelRequest>(body.as_bytes()), Err(BadParams::Malformed(_))), "{body}");
    }
    assert!(matches!(decode::<ChannelRequest>(b"{\"channel\":\"\xff\"}"), Err(BadParams::Malformed(_))));
}

#[test]
fn rpc_params() {
    assert_eq!(
        decode_rpc::<RpcPublishParams>(Some(&r#"{"channel":"c","data":{"a":1},"key":"k"}"#.into())),
        Ok(RpcPublishParams { channel: channel("c"), data: r#"{"a":1}"#.into(), key: Some("k".into()) })
    );
    assert_eq!(
        decode_rpc::<RoomsReadParams>(Some(&r#"{"channel":"c","seq":7}"#.into())),
        Ok(RoomsReadParams { channel: channel("c"), seq: 7 })
    );
    assert_eq!(decode_rpc::<NoParams>(None), Ok(NoParams {}));
    for data in [None, Some("[]"), Some("7"), Some(r#"{"channel":"c"}"#), Some(r#"{"channel":"c","seq":-1}"#)]
    {
        let data = data.map(Content::from);
        assert_eq!(decode_rpc::<RoomsReadParams>(data.as_ref()), Err(ErrorCode::BadRequest), "{data:?}");
    }
}

fn text(result: &impl WriteMembers) -> String {
    let mut out = Vec::new();
    super::result(&mut out, result);
    let text = String::from_utf8(out).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    text.strip_prefix(r#"{"result":"#).and_then(|text| text.strip_suffix('}')).unwrap().to_owned()
}

#[test]
fn publish_results() {
    let kept = PublishResult { offset: 7, epoch: "aXbYcZdW" };
    assert_eq!(text(&Done), "{}");
    assert_eq!(text(&PublishResult::default()), "{}");
    assert_eq!(text(&kept), r#"{"offset":7,"epoch":"aXbYcZdW"}"#);
    let failed = ApiError { code: ErrorCode::BadRequest, detail: "\"x\" is odd".into() };
    assert_eq!(
        text(&BroadcastResult(&[Ok(kept), Err(ErrorCode::UnknownChannel.into()), Err(failed)])),
        concat!(
            r#"{"responses":[{"result":{"offset":7,"epoch":"aXbYcZdW"}},"#,
            r#"{"error":{"code":102,"message":"unknown channel"}},"#,
            r#"{"error":{"code":107,"message":"bad request: \"x\" is odd"}}]}"#
        )
    );
}

#[test]
fn a_large_broadcast_is_summed_up() {
    let error = ApiError::from(ErrorCode::UnknownChannel);
    let errors = [ChannelError { channel: &channel("x:y"), error: &error }];
    let summary = BroadcastSummary { published: 7, refused: 2, errors: &errors };
    assert_eq!(
        text(&summary),
        r#"{"responses":[],"published":7,"refused":2,"errors":[{"channel":"x:y","error":{"code":102,"message":"unknown channel"}}]}"#
    );
}

/// The last page of a list.
fn page<T, const N: usize>(entries: [T; N]) -> Page<T> {
    Page { entries: entries.into(), next: None }
}

#[test]
fn results_about_the_server() {
    assert_eq!(text(&ChannelsResult(&page([]))), r#"{"channels":{}}"#);
    let mut some = page([(channel("a"), 2), (channel("q\""), 0)]);
    some.next = Some("q".to_owned());
    assert_eq!(
        text(&ChannelsResult(&some)),
        r#"{"channels":{"a":{"num_clients":2},"q\"":{"num_clients":0}},"next":"q"}"#
    );
    let node =
        NodeInfo { uid: "u", name: "n", version: "1", num_clients: 3, num_users: 2, ..NodeInfo::default() };
    assert_eq!(
        text(&InfoResult(&[node])),
        r#"{"nodes":[{"uid":"u","name":"n","version":"1","num_clients":3,"num_users":2,"num_channels":0,"num_subs":0,"uptime":0}]}"#
    );
    let stats = PresenceStatsResult { num_clients: 2, num_users: 1 };
    assert_eq!(text(&stats), r#"{"num_clients":2,"num_users":1}"#);
    let history = HistoryResult { publications: &[], epoch: "e", offset: 4 };
    assert_eq!(text(&history), r#"{"publications":[],"epoch":"e","offset":4}"#);
}

#[test]
fn results_about_people_and_rooms() {
    let bob = ContactResult { user: "bob".into(), channel: channel("direct:1") };
    assert_eq!(text(&bob), r#"{"user":"bob","channel":"direct:1"}"#);
    assert_eq!(text(&ContactsResult(&page([bob]))), r#"{"contacts":[{"user":"bob","channel":"direct:1"}]}"#);
    assert_eq!(text(&ContactsResult(&page([]))), r#"{"contacts":[]}"#);
    let member = RoomMember { user: Arc::from("ann"), last_read: 3 };
    let room = RoomResult {
        channel: &channel("c"),
        kind: "group",
        head: 5,
        epoch: "e",
        created_at_ms: 1_700_000_000_000,
        last_activity_ms: -1,
        num_clients: 1,
        members: &page([member]),
    };
    assert_eq!(
        text(&room),
        r#"{"channel":"c","kind":"group","head":5,"epoch":"e","created_at":1700000000000,"last_activity":0,"num_clients":1,"members":[{"user":"ann","last_read":3}]}"#
    );
    assert_eq!(text(&ReadResult { last_read: 3, unread: 2 }), r#"{"last_read":3,"unread":2}"#);
    let unread = UnreadRoom { channel: channel("c"), head: 5, last_read: 3 };
    assert_eq!(
        text(&UnreadResult(&page([unread]))),
        r#"{"rooms":[{"channel":"c","head":5,"last_read":3,"unread":2}]}"#
    );
}

#[test]
fn errors_in_both_modes() {
    let told = |mode, error: &ApiError| {
        let mut out = Vec::new();
        let status = super::error(&mut out, mode, error);
        (status, String::from_utf8(out).unwrap())
    };
    let unknown = ApiError::from(ErrorCode::UnknownChannel);
    assert_eq!(
        told(ErrorMode::Body, &unknown),
        (200, r#"{"error":{"code":102,"message":"unknown channel"}}"#.to_owned())
    );
    assert_eq!(
        told(ErrorMode::Transport, &unknown),
        (404, r#"{"code":102,"message":"unknown channel"}"#.to_owned())
    );
    assert_eq!(
        told(ErrorMode::Transport, &ErrorCode::MethodNotFound.into()).1,
        r#"{"code":104,"message":"method not found"}"#
    );
    assert_eq!(ErrorMode::from_header(Some("transport")), ErrorMode::Transport);
    assert_eq!(ErrorMode::from_header(Some("x")), ErrorMode::Body);
    assert_eq!(ErrorMode::from_header(None), ErrorMode::Body);
}
