//! The client protocol in Protobuf, translated from and into the JSON that tests are written in.
//!
//! Written from the published numbers, apart from the server's schema, so that each checks the other.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;

/// A message: its fields in the order in which the server writes their members in JSON.
type Shape = &'static [Field];

struct Field(&'static str, u64, Kind);

#[derive(Clone, Copy)]
enum Kind {
    Text,
    /// Bytes that are JSON text.
    Json,
    Number,
    /// The same, told also when it is 0.
    Count,
    /// Text that is told also when it is empty.
    Name,
    Flag,
    One(Shape),
    /// Told also when it is empty.
    All(Shape),
    Many(Shape),
    ByName(Shape),
    /// The same, told also when it is empty.
    EachByName(Shape),
    Pairs,
}

use Kind::{All, ByName, Count, EachByName, Flag, Json, Many, Name, Number, One, Pairs, Text};

const NOTHING: Shape = &[];
const CHANNEL: Shape = &[Field("channel", 1, Text)];
const TOKEN: Shape = &[Field("token", 1, Text)];
const POSITION: Shape = &[Field("offset", 1, Number), Field("epoch", 2, Text)];
const SUBSCRIBE: Shape = &[
    Field("channel", 1, Text),
    Field("token", 2, Text),
    Field("recover", 3, Flag),
    Field("epoch", 6, Text),
    Field("offset", 7, Number),
    Field("data", 8, Json),
    Field("positioned", 9, Flag),
    Field("recoverable", 10, Flag),
    Field("join_leave", 11, Flag),
    Field("delta", 12, Text),
    Field("tf", 13, One(&[Field("key", 2, Text), Field("cmp", 3, Text), Field("val", 4, Text)])),
    Field("flag", 14, Number),
    Field("type", 15, Number),
];
const CONNECT: Shape = &[
    Field("token", 1, Text),
    Field("data", 2, Json),
    Field("subs", 3, ByName(SUBSCRIBE)),
    Field("name", 4, Text),
    Field("version", 5, Text),
];
const HISTORY: Shape = &[
    Field("channel", 1, Text),
    Field("limit", 7, Number),
    Field("since", 8, One(POSITION)),
    Field("reverse", 9, Flag),
];
const SUB_REFRESH: Shape = &[Field("channel", 1, Text), Field("token", 2, Text), Field("type", 3, Number)];
const COMMAND: Shape = &[
    Field("id", 1, Number),
    Field("connect", 4, One(CONNECT)),
    Field("subscribe", 5, One(SUBSCRIBE)),
    Field("unsubscribe", 6, One(CHANNEL)),
    Field("publish", 7, One(&[Field("channel", 1, Text), Field("data", 2, Json), Field("type", 3, Number)])),
    Field("presence", 8, One(CHANNEL)),
    Field("presence_stats", 9, One(CHANNEL)),
    Field("history", 10, One(HISTORY)),
    Field("ping", 11, One(NOTHING)),
    Field("send", 12, One(&[Field("data", 1, Json)])),
    Field("rpc", 13, One(&[Field("data", 1, Json), Field("method", 2, Text)])),
    Field("refresh", 14, One(TOKEN)),
    Field("sub_refresh", 15, One(SUB_REFRESH)),
];

const INFO: Shape = &[
    Field("user", 1, Name),
    Field("client", 2, Name),
    Field("conn_info", 3, Json),
    Field("chan_info", 4, Json),
];
const PUBLICATION: Shape = &[
    Field("data", 4, Json),
    Field("info", 5, One(INFO)),
    Field("offset", 6, Number),
    Field("tags", 7, Pairs),
];
const SUBSCRIBED: Shape = &[
    Field("expires", 1, Flag),
    Field("ttl", 2, Number),
    Field("recoverable", 3, Flag),
    Field("positioned", 10, Flag),
    Field("epoch", 6, Text),
    Field("offset", 9, Number),
    Field("was_recovering", 12, Flag),
    Field("recovered", 8, Flag),
    Field("publications", 7, Many(PUBLICATION)),
    Field("data", 11, Json),
];
const CONNECTED: Shape = &[
    Field("client", 1, Name),
    Field("version", 2, Text),
    Field("expires", 3, Flag),
    Field("ttl", 4, Number),
    Field("data", 5, Json),
    Field("subs", 6, ByName(SUBSCRIBED)),
    Field("ping", 7, Number),
    Field("pong", 8, Flag),
];
const PUSH: Shape = &[
    Field("channel", 2, Name),
    Field("pub", 4, One(PUBLICATION)),
    Field("join", 5, One(&[Field("info", 1, One(INFO))])),
    Field("leave", 6, One(&[Field("info", 1, One(INFO))])),
    Field("unsubscribe", 7, One(&[Field("code", 2, Count), Field("reason", 3, Name)])),
];
const REPLY: Shape = &[
    Field("id", 1, Number),
    Field(
        "error",
        2,
        One(&[Field("code", 1, Count), Field("message", 2, Name), Field("temporary", 3, Flag)]),
    ),
    Field("push", 4, One(PUSH)),
    Field("connect", 5, One(CONNECTED)),
    Field("subscribe", 6, One(SUBSCRIBED)),
    Field("unsubscribe", 7, One(NOTHING)),
    Field("publish", 8, One(NOTHING)),
    Field("presence", 9, One(&[Field("presence", 1, EachByName(INFO))])),
    Field("presence_stats", 10, One(&[Field("num_clients", 1, Count), Field("num_users", 2, Count)])),
    Field(
        "history",
        11,
        One(&[
            Field("publications", 1, All(PUBLICATION)),
            Field("epoch", 2, Name),
            Field("offset", 3, Count),
        ]),
    ),
    Field("ping", 12, One(NOTHING)),
    Field("rpc", 13, One(&[Field("data", 1, Json)])),
    Field("refresh", 14, One(&[Field("expires", 3, Flag), Field("ttl", 4, Number)])),
    Field("sub_refresh", 15, One(&[Field("expires", 1, Flag), Field("ttl", 2, Number)])),
];

/// The binary frame that says the same as these lines. A line that is no JSON is none in Protobuf either.
pub fn frame_of(lines: &str) -> Vec<u8> {
    let lines = lines.strip_suffix('\n').unwrap_or(lines).split('\n');
    let command = |line: &str| match line.starts_with('{') {
        true => delimited(&message(COMMAND, line)),
        false => delimited(&[0xff; 3]),
    };
    lines.flat_map(command).collect()
}

/// The binary frame of a publish, whose data may be any bytes.
pub fn publish(id: u32, channel: &str, data: &[u8]) -> Vec<u8> {
    let request = [with_length(1, channel.as_bytes()), with_length(2, data)].concat();
    delimited(&[number_bytes(1 << 3), number_bytes(id.into()), with_length(7, &request)].concat())
}

/// The lines that say the same as a binary frame. Bytes that are no text are shown with escapes.
pub fn lines_of(mut frame: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    while !frame.is_empty() {
        let length = varint(&mut frame) as usize;
        let (reply, rest) = frame.split_at(length);
        lines.push(object(REPLY, reply));
        frame = rest;
    }
    lines
}

fn message(shape: Shape, json: &str) -> Vec<u8> {
    let members: HashMap<String, Box<RawValue>> =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let mut bytes = Vec::new();
    for Field(name, number, kind) in shape {
        let Some(value) = members.get(*name).map(|value| value.get()).filter(|value| *value != "null") else {
            continue;
        };
        let mut put = |content: &[u8]| bytes.extend(with_length(*number, content));
        let text = |value| serde_json::from_str::<String>(value).unwrap();
        match kind {
            Text | Name => put(text(value).as_bytes()),
            Json => put(value.as_bytes()),
            One(shape) => put(&message(shape, value)),
            Number | Count => {
                let value: i64 = value.parse().unwrap();
                bytes.extend([number_bytes(number << 3), number_bytes(value as u64)].concat());
            }
            Flag => bytes.extend([number_bytes(number << 3), vec![u8::from(value == "true")]].concat()),
            ByName(shape) => {
                for (key, value) in serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(value).unwrap() {
                    let value = if value.get() == "null" { Vec::new() } else { message(shape, value.get()) };
                    put(&[with_length(1, key.as_bytes()), with_length(2, &value)].concat());
                }
            }
            Many(_) | All(_) | EachByName(_) | Pairs => panic!("no client sends {name}"),
        }
    }
    bytes
}

fn object(shape: Shape, bytes: &[u8]) -> String {
    let fields = fields(bytes);
    let known = |number| shape.iter().any(|field| field.1 == number);
    assert!(fields.iter().all(|(number, _)| known(*number)), "fields that nobody knows: {fields:?}");
    let mut members = Vec::new();
    for Field(name, number, kind) in shape {
        let values: Vec<&Value<'_>> =
            fields.iter().filter(|(one, _)| one == number).map(|(_, value)| value).collect();
        let last = values.last();
        let bytes = || last.map_or(&[][..], |value| value.bytes());
        let count = || last.map_or(0, |value| value.number());
        let each = |shape| values.iter().map(|value| object(shape, value.bytes())).collect::<Vec<_>>();
        let told = match kind {
            Text if bytes().is_empty() => continue,
            Text | Name => string(bytes()),
            Json if last.is_none() => continue,
            Json => shown(bytes()),
            Number if count() == 0 => continue,
            Number | Count => count().to_string(),
            Flag if count() == 0 => continue,
            Flag => "true".to_owned(),
            One(_) if last.is_none() => continue,
            One(shape) => object(shape, bytes()),
            Many(_) | ByName(_) | Pairs if last.is_none() => continue,
            Many(shape) | All(shape) => format!("[{}]", each(shape).join(",")),
            ByName(shape) | EachByName(shape) => {
                entries(&values, |value| object(shape, value.map_or(&[], Value::bytes)))
            }
            Pairs => entries(&values, |value| string(value.map_or(&[], Value::bytes))),
        };
        members.push(format!("\"{name}\":{told}"));
    }
    format!("{{{}}}", members.join(","))
}

fn entries(values: &[&Value<'_>], told: impl Fn(Option<&Value<'_>>) -> String) -> String {
    let entry = |value: &&Value<'_>| {
        let pair = fields(value.bytes());
        let of = |number| pair.iter().find(|(one, _)| *one == number).map(|(_, value)| value);
        format!("{}:{}", string(of(1).map_or(&[], Value::bytes)), told(of(2)))
    };
    format!("{{{}}}", values.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[derive(Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("a number where bytes belong"),
        }
    }

    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("bytes where a number belongs"),
        }
    }
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(content)
            }
            other => panic!("a field of wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn shown(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned)
}

fn string(bytes: &[u8]) -> String {
    serde_json::to_string(std::str::from_utf8(bytes).unwrap()).unwrap()
}

fn with_length(number: u64, content: &[u8]) -> Vec<u8> {
    [number_bytes(number << 3 | 2), delimited(content)].concat()
}

fn delimited(content: &[u8]) -> Vec<u8> {
    [&number_bytes(content.len() as u64), content].concat()
}

fn number_bytes(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a whole number");
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number of more than 64 bits");
}
