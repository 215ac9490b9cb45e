//! The rules for single members: null as absent, payloads as they came, names checked.
//!
//! Shared by client commands and API parameters. A failure here means "bad request".

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ids::{Channel, Seq};
use crate::json;
use crate::limits::{PUBLISH_KEY_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::publication::Content;

/// Positions stay below this (2^53), because JavaScript holds them in a double.
pub(super) const OFFSET_MAX: u64 = 1 << 53;

/// A struct that is read from an object only; serde's own structs accept lists too.
#[derive(Debug)]
pub(super) struct Fields<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// `null` is the same as an absent member.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// True when the member is there, whatever it holds.
pub(super) fn is_present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_some())
}

/// An object or `null`.
pub(super) fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Fields<T>>::deserialize(deserializer)?.map(|fields| fields.0))
}

/// Text; empty text is the same as an absent member.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// Any JSON, as the text it came in.
pub(super) fn payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    let raw = Option::<&'de RawValue>::deserialize(deserializer)?;
    raw.map(|raw| fit(raw.get())).transpose().map_err(Error::custom)
}

/// A payload that came as bytes, byte for byte. What is no JSON that clients can read is binary, and so is `null`.
pub(super) fn payload_of_bytes(bytes: &[u8]) -> Content {
    match json_of_bytes(bytes).filter(|text| text.trim_ascii() != "null") {
        Some(text) => Content::from(text),
        None => Content::binary(bytes),
    }
}

/// The JSON text that bytes hold, if clients can read it.
pub(super) fn json_of_bytes(bytes: &[u8]) -> Option<Arc<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    fit(text).ok()
}

/// The text of a JSON value, byte for byte.
///
/// # Errors
/// [`json::Unfit`] when clients could not read it.
pub(super) fn fit(valid: &str) -> Result<Arc<str>, json::Unfit> {
    json::check(valid)?;
    Ok(Arc::from(valid))
}

/// The text of a JSON value without insignificant white space, in one allocation if it had none.
///
/// # Errors
/// [`json::Unfit`] when clients could not read it.
pub(super) fn compact(raw: &RawValue) -> Result<Arc<str>, json::Unfit> {
    json::compact(raw.get())
}

/// Any JSON that has to be there, as the text it came in.
pub(super) fn required_payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
    payload(deserializer)?.map(Content::from).ok_or_else(|| Error::custom("data is missing"))
}

/// Any JSON, as a payload.
pub(super) fn rpc_data<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Content>, D::Error> {
    Ok(payload(deserializer)?.map(Content::from))
}

/// A legal channel name.
pub(super) fn channel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Channel, D::Error> {
    struct NameVisitor;

    impl Visitor<'_> for NameVisitor {
        type Value = Channel;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a channel name")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Channel, E> {
            Channel::new(name).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(NameVisitor)
}

/// A channel name as a value of its own, for lists and keys.
#[derive(Debug)]
pub(super) struct Name(pub(super) Channel);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        channel(deserializer).map(Self)
    }
}

/// A legal channel name or nothing; empty counts as nothing.
pub(super) fn optional_channel<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Channel>, D::Error> {
    text(deserializer)?.map(|name| Channel::new(&name).map_err(Error::custom)).transpose()
}

/// A list of legal channel names.
pub(super) fn channels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Channel>, D::Error> {
    let names = Option::<Vec<Name>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(names.into_iter().map(|name| name.0).collect())
}

/// A legal user id; an anonymous user (the empty id) does not count.
pub(super) fn user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let id = any_user(deserializer)?;
    if id.is_empty() { Err(Error::custom("the user id is empty")) } else { Ok(id) }
}

/// A legal user id, empty for anonymous users.
pub(super) fn any_user<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let id = Option::<Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    check_user(&id).map_err(Error::custom)?;
    Ok(Arc::from(id))
}

/// A list of legal user ids, none of them empty.
pub(super) fn users<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<str>>, D::Error> {
    let ids = Option::<Vec<User>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// A user id as a value of its own, for lists.
struct User(Arc<str>);

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        user(deserializer).map(Self)
    }
}

/// An idempotency key; empty counts as absent.
pub(super) fn publish_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    let key = text(deserializer)?;
    if key.as_ref().is_some_and(|key| key.len() > PUBLISH_KEY_BYTES_MAX || key.contains('\0')) {
        return Err(Error::custom(format_args!(
            "the idempotency key is longer than {PUBLISH_KEY_BYTES_MAX} bytes or holds a zero byte"
        )));
    }
    Ok(key.map(Arc::from))
}

/// A position in a room: a whole number from 0 to 2^53, also when written like `5.0`.
pub(super) fn offset<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seq, D::Error> {
    Ok(Option::<Offset>::deserialize(deserializer)?.map_or(0, |offset| offset.0))
}

struct Offset(Seq);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffsetVisitor;

        impl Visitor<'_> for OffsetVisitor {
            type Value = Offset;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 2^53")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Offset, E> {
                if number <= OFFSET_MAX {
                    Ok(Offset(number))
                } else {
                    Err(E::custom("the offset is larger than 2^53"))
                }
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Offset, E> {
                if number.fract() == 0.0 && (0.0..=OFFSET_MAX as f64).contains(&number) {
                    Ok(Offset(number as u64))
                } else {
                    Err(E::custom("the offset is no whole number from 0 to 2^53"))
                }
            }
        }

        deserializer.deserialize_any(OffsetVisitor)
    }
}

fn check_user(id: &str) -> Result<(), &'static str> {
    if id.len() > USER_ID_BYTES_MAX {
        return Err("the user id is too long");
    }
    if id.chars().any(char::is_control) {
        return Err("the user id holds a control character");
    }
    Ok(())
}
