//! The claims of both kinds of tokens as they are written, and what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::token::{ServerSubscription, TokenError};
use crate::ids::Channel;
use crate::json;
use crate::limits::{INFO_BYTES_MAX, USER_ID_BYTES_MAX};

/// Every claim that means something. Others, `iat`, `jti`, `meta` and
/// `override` among them, are ignored: rooms are positioned and recoverable for everybody.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    sub: Option<String>,
    #[serde(deserialize_with = "seconds")]
    exp: Option<i64>,
    #[serde(deserialize_with = "seconds")]
    nbf: Option<i64>,
    aud: Option<OneOrMany>,
    iss: Option<OneOrMany>,
    #[serde(deserialize_with = "seconds")]
    expire_at: Option<i64>,
    channel: Option<String>,
    client: Option<String>,
    channels: Option<Vec<String>>,
    subs: Option<BTreeMap<String, Option<SubscriptionClaims>>>,
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
}

/// One server-side subscription.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SubscriptionClaims {
    info: Option<Box<RawValue>>,
    b64info: Option<String>,
    data: Option<Box<RawValue>>,
    b64data: Option<String>,
}

/// Audience and issuer may be one text or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn holds(&self, wanted: &str) -> bool {
        match self {
            Self::One(text) => text == wanted,
            Self::Many(texts) => texts.iter().any(|text| text == wanted),
        }
    }
}

impl Claims {
    pub(super) fn is_for(&self, audience: &str) -> bool {
        self.aud.as_ref().is_some_and(|claim| claim.holds(audience))
    }

    pub(super) fn is_from(&self, issuer: &str) -> bool {
        self.iss.as_ref().is_some_and(|claim| claim.holds(issuer))
    }

    pub(super) fn names_channel(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| !channel.is_empty())
    }

    pub(super) fn names_client(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_empty())
    }

    pub(super) fn channel(&self) -> Result<Channel, TokenError> {
        named_channel(self.channel.as_deref().unwrap_or_default())
    }

    /// The user id; empty for an anonymous user.
    pub(super) fn user(&self) -> Result<Arc<str>, TokenError> {
        let user = self.sub.as_deref().unwrap_or_default();
        if user.len() > USER_ID_BYTES_MAX {
            return Err(TokenError::Invalid("the user id is too long"));
        }
        if user.chars().any(char::is_control) {
            return Err(TokenError::Invalid("the user id contains a control character"));
        }
        Ok(Arc::from(user))
    }

    pub(super) fn info(&self) -> Result<Option<Arc<str>>, TokenError> {
        attachment(self.info.as_deref(), self.b64info.as_deref())
    }

    pub(super) fn data(&self) -> Result<Option<Arc<str>>, TokenError> {
        attachment(self.data.as_deref(), self.b64data.as_deref())
    }

    /// The server-side subscriptions: `subs`, or else `channels`.
    pub(super) fn subscriptions(&self) -> Result<Vec<ServerSubscription>, TokenError> {
        if let Some(subs) = self.subs.as_ref().filter(|subs| !subs.is_empty()) {
            return subs.iter().map(|(name, claims)| subscription(name, claims.as_ref())).collect();
        }
        let mut names: Vec<_> = self.channels.iter().flatten().collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|name| subscription(name, None)).collect()
    }

    /// The expiry of what the token grants; fails when the token or the grant is out of its time.
    pub(super) fn expires_at(&self, now: i64) -> Result<Option<i64>, TokenError> {
        if self.exp.is_some_and(|exp| now >= exp) || self.nbf.is_some_and(|nbf| now < nbf) {
            return Err(TokenError::Expired);
        }
        match self.expire_at {
            None => Ok(self.exp),
            Some(0) => Ok(None),
            Some(expire_at) if now >= expire_at => Err(TokenError::Expired),
            Some(expire_at) => Ok(Some(expire_at)),
        }
    }
}

fn subscription(name: &str, claims: Option<&SubscriptionClaims>) -> Result<ServerSubscription, TokenError> {
    let channel = named_channel(name)?;
    let Some(claims) = claims else {
        return Ok(ServerSubscription { channel, info: None, data: None });
    };
    Ok(ServerSubscription {
        channel,
        info: attachment(claims.info.as_deref(), claims.b64info.as_deref())?,
        data: attachment(claims.data.as_deref(), claims.b64data.as_deref())?,
    })
}

fn named_channel(name: &str) -> Result<Channel, TokenError> {
    Channel::new(name).map_err(|_| TokenError::Invalid("a channel is missing or has an illegal name"))
}

/// JSON the backend attached, compact; the base64 form wins if both are given.
fn attachment(plain: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Arc<str>>, TokenError> {
    let text = match base64.filter(|text| !text.is_empty()) {
        Some(text) => Some(json_of_base64(text)?),
        None => plain.map(compact).transpose()?,
    };
    match text {
        Some(text) if text.len() > INFO_BYTES_MAX => Err(TokenError::Invalid("info or data is too large")),
        other => Ok(other),
    }
}

fn json_of_base64(text: &str) -> Result<Arc<str>, TokenError> {
    let bytes = STANDARD.decode(text).map_err(|_| TokenError::Invalid("b64info or b64data is not base64"))?;
    let raw: &RawValue = serde_json::from_slice(&bytes)
        .map_err(|_| TokenError::Invalid("b64info or b64data does not hold JSON"))?;
    compact(raw)
}

fn compact(raw: &RawValue) -> Result<Arc<str>, TokenError> {
    json::compact(raw.get()).map_err(|_| TokenError::Invalid("info or data cannot be read by clients"))
}

/// A time in seconds; fractions are cut off.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let whole = number.as_i64().or_else(|| number.as_f64().map(|fraction| fraction.floor() as i64));
    whole.map(Some).ok_or_else(|| D::Error::custom("not a time"))
}
