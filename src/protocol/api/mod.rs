//! The JSON of the HTTP API and of the server's own rpc methods: parameters in, results out.

pub(crate) mod activity;
pub(crate) mod page;
pub(crate) mod params;
pub(crate) mod results;

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::code::ErrorCode;
use super::fields::{self, Fields};
use super::object::{Object, WriteMembers, write_object};
use crate::publication::Content;

/// Parameters that were not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BadParams {
    /// Not JSON at all: HTTP status 400, plain text.
    Malformed(String),
    /// JSON, but not what the method takes: [`ErrorCode::BadRequest`] with this detail.
    Rejected(String),
}

impl fmt::Display for BadParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(detail) => write!(f, "the body is no JSON: {detail}"),
            Self::Rejected(detail) => f.write_str(detail),
        }
    }
}

impl std::error::Error for BadParams {}

/// Reads the parameters of one API method from a request body. An empty body is an empty object.
///
/// # Errors
/// [`BadParams`] says what is wrong and how to answer.
pub(crate) fn decode<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, BadParams> {
    let text = str::from_utf8(body).map_err(|error| BadParams::Malformed(error.to_string()))?;
    let text = if text.trim_ascii().is_empty() { "{}" } else { text };
    match serde_json::from_str::<Fields<T>>(text) {
        Ok(fields) => Ok(fields.0),
        // The first thing wrong may be a value although the rest is no JSON: that weighs more.
        Err(error) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(BadParams::Rejected(error.to_string())),
            Err(malformed) => Err(BadParams::Malformed(malformed.to_string())),
        },
    }
}

/// Reads the parameters of one rpc method from the data of the command.
///
/// # Errors
/// [`ErrorCode::BadRequest`] when the method does not take them.
pub(crate) fn decode_rpc<'de, T: Deserialize<'de>>(data: Option<&'de Content>) -> Result<T, ErrorCode> {
    decode(data.map_or(b"{}", Content::as_bytes)).map_err(|_| ErrorCode::BadRequest)
}

/// Checks text that shall become a payload: for publishing from code.
///
/// # Errors
/// [`BadParams`] when it is no JSON, `null`, or JSON that clients could not read.
pub(crate) fn payload(text: &str) -> Result<Arc<str>, BadParams> {
    let raw: &RawValue =
        serde_json::from_str(text).map_err(|error| BadParams::Malformed(error.to_string()))?;
    if raw.get() == "null" {
        return Err(BadParams::Rejected("data is missing".to_owned()));
    }
    fields::fit(raw.get()).map_err(|unfit| BadParams::Rejected(unfit.to_string()))
}

/// An error as the caller of the API is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorMode {
    /// Status 200 and an object with a member `error`.
    Body,
    /// The HTTP status tells the kind, the body is the bare error object.
    Transport,
}

impl ErrorMode {
    /// The mode that the value of the header `X-Centrifugo-Error-Mode` asks for.
    pub(crate) fn from_header(value: Option<&str>) -> Self {
        if value == Some("transport") { Self::Transport } else { Self::Body }
    }
}

/// An error of the API: the code, and optionally what exactly is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The kind.
    pub code: ErrorCode,
    /// Added to the message; empty: nothing to add.
    pub detail: String,
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self { code, detail: String::new() }
    }
}

impl WriteMembers for ApiError {
    fn write(&self, object: &mut Object<'_>) {
        object.number("code", u64::from(self.code.number()));
        let words = self.code.as_str();
        if self.detail.is_empty() {
            object.string("message", words);
        } else {
            object.string("message", &format!("{words}: {}", self.detail));
        }
    }
}

/// Appends `{"result":{…}}`.
pub(crate) fn result(out: &mut Vec<u8>, result: &impl WriteMembers) {
    let mut object = Object::begin(out);
    object.object("result", result);
    object.end();
}

/// Appends the error in the given mode and returns the HTTP status to answer with.
#[must_use]
pub(crate) fn error(out: &mut Vec<u8>, mode: ErrorMode, error: &ApiError) -> u16 {
    match mode {
        ErrorMode::Body => {
            let mut object = Object::begin(out);
            object.object("error", error);
            object.end();
            200
        }
        ErrorMode::Transport => {
            write_object(out, error);
            error.code.http_status()
        }
    }
}

#[cfg(test)]
mod tests;
