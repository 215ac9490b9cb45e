//! Frames as the official schema encodes them, which its own implementation wrote down, and frames that are none.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::ids::Channel;
use crate::protocol::code::{ErrorCode, UnsubscribeCode};
use crate::protocol::command::{
    BadCommand, Broken, ChannelRequest, Command, ConnectRequest, HistoryRequest, Method, PublishRequest,
    RecoverRequest, RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest,
    SubscribeRequest,
};
use crate::protocol::message::Message;
use crate::protocol::push::Push;
use crate::protocol::reply::{ConnectResult, HistoryResult, PresenceStatsResult, Reply, SubscribeResult};
use crate::publication::{ClientInfo, Publication};

fn channel() -> Channel {
    Channel::new("news").unwrap()
}

fn frame(bytes: &[u8]) -> Vec<Result<Command, BadCommand>> {
    decode_frame(&Bytes::copy_from_slice(bytes)).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn json(text: &str) -> Option<Arc<str>> {
    Some(Arc::from(text))
}

#[test]
fn every_command_is_decoded() {
    let by_channel = ChannelRequest { channel: channel() };
    let subscribe = SubscribeRequest {
        channel: channel(),
        token: some("t"),
        data: json("1"),
        recover: true,
        offset: 300,
        epoch: "e".to_owned(),
        positioned: true,
        recoverable: true,
        join_leave: true,
        flag: 2,
        kind: 0,
        tags_filter: false,
    };
    let recover = RecoverRequest { recover: true, offset: 5, epoch: "e".to_owned() };
    let connect = ConnectRequest {
        token: some("t"),
        data: json(r#"{"user": "ann"}"#),
        name: "js".to_owned(),
        version: "1".to_owned(),
        subs: vec![
            (Channel::new("a").unwrap(), recover),
            (Channel::new("c").unwrap(), RecoverRequest::default()),
        ],
    };
    let since = Some(StreamPosition { offset: 2, epoch: "e".to_owned() });
    let history = HistoryRequest { channel: channel(), limit: -1, since, reverse: true };
    let publish = PublishRequest { channel: channel(), data: r#"{"a": 1}"#.into(), kind: 0 };
    let sub_refresh = SubRefreshRequest { channel: Some(channel()), token: some("t"), kind: 0 };
    let cases: [(&[u8], u32, Method); 13] = [
        (
            b">\x08\x01\x22:\x0a\x01t\x12\x0f{\"user\": \"ann\"}\x1a\x0c\x0a\x01a\x12\x07\x18\x012\x01e8\x05\x1a\x05\x0a\x01c\x12\x00\x22\x02js*\x0112\x06\x0a\x01x\x12\x01y8\x03",
            1,
            Method::Connect(connect),
        ),
        (
            b" \x08\x02*\x1c\x0a\x04news\x12\x01t\x18\x012\x01e8\xac\x02B\x011H\x01P\x01X\x01p\x02",
            2,
            Method::Subscribe(subscribe),
        ),
        (b"\x0a\x08\x032\x06\x0a\x04news", 3, Method::Unsubscribe(by_channel.clone())),
        (b"\x14\x08\x04:\x10\x0a\x04news\x12\x08{\"a\": 1}", 4, Method::Publish(publish)),
        (b"\x0a\x08\x05B\x06\x0a\x04news", 5, Method::Presence(by_channel.clone())),
        (b"\x0a\x08\x06J\x06\x0a\x04news", 6, Method::PresenceStats(by_channel)),
        (
            b"\x1e\x08\x07R\x1a\x0a\x04news8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01B\x05\x08\x02\x12\x01eH\x01",
            7,
            Method::History(history),
        ),
        (b"\x04\x08\x08Z\x00", 8, Method::Ping),
        (b"\x05b\x03\x0a\x011", 0, Method::Send(SendRequest { data: None })),
        (
            b"\x0b\x08\x09j\x07\x0a\x02[]\x12\x01m",
            9,
            Method::Rpc(RpcRequest { method: "m".to_owned(), data: Some("[]".into()) }),
        ),
        (b"\x07\x08\x0ar\x03\x0a\x01t", 10, Method::Refresh(RefreshRequest { token: some("t") })),
        (b"\x0d\x08\x0bz\x09\x0a\x04news\x12\x01t", 11, Method::SubRefresh(sub_refresh)),
        (b"\x00", 0, Method::Pong),
    ];
    for (bytes, id, method) in &cases {
        assert_eq!(frame(bytes), [Ok(Command { id: *id, method: method.clone() })]);
    }
    let all: Vec<u8> = cases.iter().flat_map(|(bytes, ..)| *bytes).copied().collect();
    assert_eq!(frame(&all).len(), cases.len());
    assert!(frame(&all).iter().zip(&cases).all(|(one, (_, id, _))| one.as_ref().unwrap().id == *id));
}

#[test]
fn a_filter_on_tags_is_seen() {
    let bytes = b"\x16\x08\x02*\x12\x0a\x04newsj\x0a\x12\x01k\x1a\x02eq\x22\x01v";
    let [Ok(Command { method: Method::Subscribe(request), .. })] = &frame(bytes)[..] else { panic!() };
    assert_eq!(request.unsupported(), Some(ErrorCode::BadRequest));
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    for (bytes, broken) in [
        (&b""[..], Broken::Blank),
        (b"\x05\x08\x01", Broken::Malformed),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Broken::Malformed),
        (b"\xff", Broken::Malformed),
        (b"\x02\xff\xff", Broken::Malformed),
        (b"{\"id\":1,\"connect\":{}}", Broken::Malformed),
        // A channel that is no text.
        (b"\x07\x08\x032\x03\x0a\x01\xff", Broken::Malformed),
        (b"\x02\x08\x01", Broken::NoMethod),
        // A method of the future.
        (b"\x05\x08\x01\xca\x3e\x00", Broken::NoMethod),
        (b"\x02\x22\x00", Broken::NoId),
        (b"\x04\x08\x032\x00", Broken::NoChannel),
        (b"\x04\x08\x02*\x00", Broken::NoChannel),
        (b"\x04\x08\x04:\x00", Broken::NoChannel),
    ] {
        assert_eq!(frame(bytes), [Err(BadCommand::Close(broken))], "{bytes:?}");
    }
}

#[test]
fn illegal_parameters_are_answered_by_their_id() {
    let publish = |data: &[u8]| {
        let request = [&b"\x0a\x04news\x12"[..], &[data.len() as u8], data].concat();
        let length = request.len() as u8;
        [&[length + 4, 8, 4, b':', length], &request[..]].concat()
    };
    let refused = |connect| [Err(BadCommand::Refuse { id: 4, connect })];
    assert_eq!(frame(&publish(b"")), refused(false));
    for (data, is_json) in [
        (&b"[1]"[..], true),
        (b" {\n}\n", true),
        (b"null", false),
        (b"{", false),
        (b"\xff", false),
        (b"\"\\u0000\"", false),
        (b"1 2", false),
        (b"\"\xc3\"", false),
    ] {
        let [Ok(Command { method: Method::Publish(request), .. })] = &frame(&publish(data))[..] else {
            panic!()
        };
        assert_eq!((request.data.as_bytes(), request.data.as_json().is_some()), (data, is_json));
    }
    assert_eq!(frame(b"\x09\x08\x04*\x05\x0a\x03a b"), refused(false), "a name that is not legal");
    // A position of 2^53 + 1.
    assert_eq!(frame(b"\x10\x08\x04*\x0c\x0a\x01a8\x81\x80\x80\x80\x80\x80\x80\x10"), refused(false));
    assert_eq!(frame(b"\x0b\x08\x04\x22\x07\x1a\x05\x0a\x03a b"), refused(true));
}

#[test]
fn a_frame_can_be_taken_in_parts() {
    let bytes = Bytes::from_static(b"\x00\x04\x08\x08Z\x00\x00\x04\x08\x09Z\x00");
    let whole: Vec<_> = decode_frame(&bytes).collect();
    assert_eq!(whole.len(), 4);
    let (mut parts, mut left, mut begin) = (Vec::new(), bytes.clone(), Some(0));
    while let Some(position) = begin {
        left = left.slice(position..);
        let mut commands = decode_frame(&left);
        parts.extend(commands.next());
        begin = commands.position();
    }
    assert_eq!(parts, whole);
}

fn written(message: Message<'_>) -> Vec<u8> {
    let mut out = vec![b'+'];
    write(&mut out, &message);
    out.split_off(1)
}

fn info() -> ClientInfo {
    ClientInfo { user: "42".into(), client: "c1".into(), conn_info: None, chan_info: None }
}

fn told() -> ClientInfo {
    ClientInfo { conn_info: json(r#"{"n":1}"#), chan_info: json("2"), ..info() }
}

fn publication(seq: u64, data: &str) -> Publication {
    Publication { channel: channel(), seq, data: data.into(), info: None, tags: None, created_at_ms: 1 }
}

#[test]
fn every_push_is_encoded() {
    let tags = json(r#"{"k":"v","b":"c"}"#);
    let full = Publication { info: Some(Arc::new(told())), tags, ..publication(8, r#"{"a": 1}"#) };
    for (push, wanted) in [
        (
            Push::Publication(&full),
            &b"<\x22:\x12\x04news\x222\x22\x08{\"a\": 1}*\x14\x0a\x0242\x12\x02c1\x1a\x07{\"n\":1}\x22\x0120\x08:\x06\x0a\x01b\x12\x01c:\x06\x0a\x01k\x12\x01v"[..],
        ),
        (Push::Join(&channel(), &info()), b"\x14\x22\x12\x12\x04news*\x0a\x0a\x08\x0a\x0242\x12\x02c1"),
        (Push::Leave(&channel(), &info()), b"\x14\x22\x12\x12\x04news2\x0a\x0a\x08\x0a\x0242\x12\x02c1"),
        (
            Push::Unsubscribe(&channel(), UnsubscribeCode::InsufficientState),
            b"!\x22\x1f\x12\x04news:\x17\x10\xc4\x13\x1a\x12insufficient state",
        ),
    ] {
        assert_eq!(written(push.into()), wanted, "{push:?}");
    }
    assert_eq!(written(Message::Ping), b"\x00");
}

#[test]
fn every_reply_is_encoded() {
    let missed = [publication(2, "1")];
    let subscribed = SubscribeResult {
        ttl_seconds: Some(60),
        recoverable: true,
        positioned: true,
        epoch: "e",
        offset: 1,
        was_recovering: true,
        recovered: true,
        publications: &missed,
        data: Some("{}"),
    };
    let connected = ConnectResult {
        client: "c1",
        version: "1.0",
        ttl_seconds: Some(60),
        data: Some("{}"),
        subs: &[(Channel::new("a").unwrap(), subscribed)],
        ping_seconds: 25,
        pong: true,
    };
    for (id, reply, wanted) in [
        (
            1,
            Reply::Connect(&connected),
            &b"<\x08\x01*8\x0a\x02c1\x12\x031.0\x18\x01 <*\x02{}2!\x0a\x01a\x12\x1c\x08\x01\x10<\x18\x012\x01e:\x05\x22\x0110\x02@\x01H\x01P\x01Z\x02{}`\x018\x19@\x01"[..],
        ),
        (
            2,
            Reply::Subscribe(&subscribed),
            b" \x08\x022\x1c\x08\x01\x10<\x18\x012\x01e:\x05\x22\x0110\x02@\x01H\x01P\x01Z\x02{}`\x01",
        ),
        (3, Reply::Unsubscribe, b"\x04\x08\x03:\x00"),
        (3, Reply::Publish, b"\x04\x08\x03B\x00"),
        (3, Reply::Ping, b"\x04\x08\x03b\x00"),
        (
            4,
            Reply::Presence(&[Arc::new(told())]),
            b" \x08\x04J\x1c\x0a\x1a\x0a\x02c1\x12\x14\x0a\x0242\x12\x02c1\x1a\x07{\"n\":1}\x22\x012",
        ),
        (
            5,
            Reply::PresenceStats(PresenceStatsResult { num_clients: 2, num_users: 1 }),
            b"\x08\x08\x05R\x04\x08\x02\x10\x01",
        ),
        (
            6,
            Reply::History(&HistoryResult { publications: &missed, epoch: "e", offset: 2 }),
            b"\x10\x08\x06Z\x0c\x0a\x05\x22\x0110\x02\x12\x01e\x18\x02",
        ),
        (
            7,
            Reply::Rpc(&PresenceStatsResult::default()),
            b"%\x08\x07j!\x0a\x1f{\"num_clients\":0,\"num_users\":0}",
        ),
        (8, Reply::Refresh(Some(60)), b"\x08\x08\x08r\x04\x18\x01 <"),
        (8, Reply::Refresh(None), b"\x04\x08\x08r\x00"),
        (9, Reply::SubRefresh(Some(60)), b"\x08\x08\x09z\x04\x08\x01\x10<"),
        (10, Reply::Error(ErrorCode::Internal), b"\x1f\x08\x0a\x12\x1b\x08d\x12\x15internal server error\x18\x01"),
    ] {
        assert_eq!(written(Message::Reply(id, reply)), wanted, "{reply:?}");
    }
}
