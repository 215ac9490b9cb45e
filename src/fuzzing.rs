//! Entry points for fuzzers: each takes any bytes, gives them to what reads bytes of strangers, and panics when a
//! promise is broken.
//!
//! `fuzz/` runs them with libFuzzer; the tests here run them with changed examples each time. Nothing else may call them.

use std::sync::LazyLock;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Config;
use crate::auth::{Verifier, issue};
use crate::protocol::api::{self, params};
use crate::protocol::command;
use crate::protocol::command::{BadCommand, Command, Method, decode_frame};
use crate::protocol::format::{Format, Frame};
use crate::publication::Content;

pub use crate::net::fuzz::{frames, head};

/// The time at which tokens are looked at, in seconds since 1970 UTC.
const NOW: i64 = 1_800_000_000;

/// Reads a text frame of commands. What passes has an id where one is needed and payloads that are JSON.
pub fn commands(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check_commands(decode_frame(text));
}

/// Reads a binary frame of commands. What passes is as in a text frame, also when it is taken in parts.
pub fn protobuf(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    let whole: Vec<_> = Format::Protobuf.decode(Frame::Binary(&frame)).collect();
    check_commands(whole.iter().cloned());
    let (mut parts, mut begin) = (Vec::new(), Some(0));
    while let Some(position) = begin {
        let rest = frame.slice(position..);
        let mut commands = Format::Protobuf.decode(Frame::Binary(&rest));
        parts.extend(commands.next());
        begin = commands.position().map(|next| position + next);
        assert!(begin.is_none_or(|next| next > position), "the same command again");
    }
    assert_eq!(parts, whole, "other commands when they are taken one by one");
}

fn check_commands(commands: impl Iterator<Item = Result<Command, BadCommand>>) {
    for command in commands {
        match command {
            Ok(Command { id, method }) => {
                let needs_none = matches!(method, Method::Send(_) | Method::Pong);
                assert!(id > 0 || needs_none, "a command without an id");
                payloads(&method).into_iter().for_each(assert_fit);
            }
            Err(BadCommand::Refuse { id, .. }) => assert!(id > 0, "nobody can be answered"),
            Err(BadCommand::Close(_)) => break,
        }
    }
}

fn payloads(method: &Method) -> Vec<&str> {
    let payload = match method {
        Method::Connect(request) => request.data.as_deref(),
        Method::Subscribe(request) => request.data.as_deref(),
        Method::Publish(command::PublishRequest { data, .. }) => data.as_json(),
        Method::Rpc(request) => request.data.as_ref().and_then(Content::as_json),
        _ => None,
    };
    payload.into_iter().collect()
}

/// A payload goes to every listener as one line of the same value, and to SQL as JSON.
fn assert_fit(payload: &str) {
    assert_eq!(crate::json::check(payload), Ok(()), "not fit for clients");
    let mut line = Vec::new();
    crate::json::push_line(&mut line, payload);
    let line = String::from_utf8(line).unwrap_or_default();
    assert!(!line.contains('\n'), "a payload breaks the line: {payload:?}");
    assert_eq!(crate::json::compact(payload), crate::json::compact(&line), "another value");
}

/// Reads the body of every method of the HTTP API, and bare payloads.
pub fn api(bytes: &[u8]) {
    fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) {
        let _ = api::decode::<T>(bytes);
    }
    read::<params::PublishParams>(bytes);
    read::<params::BroadcastParams>(bytes);
    read::<params::UnsubscribeParams>(bytes);
    read::<params::DisconnectParams>(bytes);
    read::<params::ChannelsParams>(bytes);
    read::<params::ContactParams>(bytes);
    read::<params::UserParams>(bytes);
    read::<params::RoomCreateParams>(bytes);
    read::<params::RoomsReadParams>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(payload) = api::payload(text) {
        assert_fit(&payload);
        let [given, passed_on] =
            [text, &payload].map(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        assert!(given.is_some() && given == passed_on, "another value");
    }
}

/// Reads a token, and the bytes once more as claims that were signed. What is not signed by the secret does not pass.
pub fn tokens(bytes: &[u8]) {
    static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| Verifier::new(SECRET, None, None));
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(VERIFIER.verify_connection(text, NOW).is_err(), "nobody signed {text}");
    let Ok(claims) = serde_json::from_str::<&RawValue>(text) else { return };
    let token = issue::sign(SECRET, claims.get());
    if let Ok(verified) = VERIFIER.verify_connection(&token, NOW) {
        assert!(verified.expires_at().is_none_or(|at| at > NOW), "an expired token passed");
    }
    let _ = VERIFIER.verify_subscription(&token, NOW, "ann", None);
}

const SECRET: &str = "a secret of thirty-two bytes or more";

/// Reads a configuration file: a configuration, or problems that are told.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = Config::from_toml("roomcast.toml", text) {
        assert!(!error.to_string().is_empty(), "nobody is told what is wrong");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    /// Gives a target the examples, and changed copies of them.
    fn run(target: fn(&[u8]), count: usize, examples: &[&[u8]]) {
        let examples: Vec<_> = examples.iter().map(|example| example.to_vec()).collect();
        examples.iter().for_each(|example| target(example));
        mutation::each(&examples, count, target);
    }

    #[test]
    fn commands_of_strangers_are_read_or_refused() {
        run(
            commands,
            50_000,
            &[
                br#"{"id":1,"connect":{"token":"a.b.c","data":{"user":"ann"},"name":"js","subs":{"r":{"recover":true,"offset":3,"epoch":"x"}}}}"#,
                br#"{"id":2,"subscribe":{"channel":"lobby","recover":true,"offset":4294967296,"epoch":"abc","positioned":true}}"#,
                b"{\"id\":3,\"publish\":{\"channel\":\"lobby\",\"data\":{\"a\" : [1, 2.5e3, \"\\u0041\\n\"]}}}\n{}\n{\"send\":{\"data\":1}}",
                br#"{"id":4,"history":{"channel":"lobby","limit":-1,"since":{"offset":1,"epoch":"x"},"reverse":true}}"#,
                br#"{"id":5,"rpc":{"method":"publish","data":{"channel":"x","data":1,"key":"k"}}}"#,
                br#"{"id":6,"presence":{"channel":"$r"}}"#,
                br#"{"id":7,"sub_refresh":{"channel":"r","token":"t"}}"#,
            ],
        );
    }

    #[test]
    fn binary_commands_of_strangers_are_read_or_refused() {
        run(
            protobuf,
            50_000,
            &[
                b">\x08\x01\x22:\x0a\x01t\x12\x0f{\"user\": \"ann\"}\x1a\x0c\x0a\x01a\x12\x07\x18\x012\x01e8\x05\x1a\x05\x0a\x01c\x12\x00\x22\x02js*\x0112\x06\x0a\x01x\x12\x01y8\x03",
                b" \x08\x02*\x1c\x0a\x04news\x12\x01t\x18\x012\x01e8\xac\x02B\x011H\x01P\x01X\x01p\x02\x00\x04\x08\x08Z\x00",
                b"\x14\x08\x04:\x10\x0a\x04news\x12\x08{\"a\": 1}\x14\x08\x05:\x10\x0a\x04news\x12\x08{\"a\":\n2}",
                b"\x1e\x08\x07R\x1a\x0a\x04news8\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01B\x05\x08\x02\x12\x01eH\x01",
                b"\x05b\x03\x0a\x011\x0b\x08\x09j\x07\x0a\x02[]\x12\x01m\x16\x08\x02*\x12\x0a\x04newsj\x0a\x12\x01k\x1a\x02eq\x22\x01v",
            ],
        );
    }

    #[test]
    fn bodies_of_the_api_are_read_or_refused() {
        run(
            api,
            50_000,
            &[
                br#"{"channel":"lobby","data":{"text":"hello"},"tags":{"a":"b"},"idempotency_key":"k","skip_history":false}"#,
                br#"{"channels":["a","b","c"],"data":[1,2,3]}"#,
                br#"{"user":"ann","contact":"bob","channel":"lobby","client":"x"}"#,
                br#"{"channel":"group","kind":"group","members":["ann","bob"]}"#,
                br#"{"channel":"lobby","b64data":"eyJhIjoxfQ=="}"#,
                b"{\"a\" : \"\\ud83d\\ude00\\u0000\", \"b\":\t[ ]}",
                b"2E622",
            ],
        );
    }

    #[test]
    fn only_signed_tokens_pass() {
        run(
            tokens,
            5_000,
            &[
                br#"{"sub":"ann","exp":1900000000,"info":{"name":"Ann"},"channels":["a","b"]}"#,
                br#"{"sub":"ann","channel":"lobby","exp":1900000000.5,"nbf":1,"aud":["a"],"iss":"i"}"#,
                br#"{"sub":"ann","subs":{"lobby":{"info":{},"data":1,"expire_at":5}},"exp":"1"}"#,
                b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
                b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm4ifQ.AAAA",
            ],
        );
    }

    #[test]
    fn configurations_are_read_or_refused_with_words() {
        run(
            configuration,
            2_000,
            &[
                b"listen = \"127.0.0.1:8000\"\nworkers = 2\n[client]\nping_interval = \"25s\"\ninsecure = true\n",
                b"[database]\nurl = \"sqlite:chat.db\"\ndurability = \"full\"\n[default_namespace]\npublish = \"everyone\"\n",
                b"[namespace.talk]\nhistory_size = 100\nhistory_ttl = \"1h\"\npersist = false\n[rooms]\nidle_timeout = \"10m\"\n",
            ],
        );
    }

    #[test]
    fn heads_of_requests_are_read_or_refused() {
        run(
            head,
            50_000,
            &[
                b"GET /connection/websocket?format=json HTTP/1.1\r\nHost: chat.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                b"POST /api/publish HTTP/1.1\r\nHost: [::1]:8000\r\nContent-Length: 12\r\nX-API-Key: k\r\nOrigin: https://a.b\r\n\r\n{\"a\":\"b\"}",
                b"POST http://host/api HTTP/1.0\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ],
        );
    }

    #[test]
    fn frames_end_where_they_end_however_they_come() {
        run(
            frames,
            50_000,
            &[
                &[0x81, 0x85, 1, 2, 3, 4, b'h', b'e', b'l', b'l', b'o', 0x89, 0x80, 0, 0, 0, 0],
                &[0x01, 0x81, 0, 0, 0, 0, b'a', 0x89, 0x80, 9, 9, 9, 9, 0x80, 0x81, 0, 0, 0, 0, b'b'],
                &[0x82, 0xfe, 0, 3, 0, 0, 0, 0, 1, 2, 3, 0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
                &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 1, 1, b'x', b'y'],
            ],
        );
    }
}
