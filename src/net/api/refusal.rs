//! Refusals of API calls, and the writing of results.

use crate::node::{AppendError, PublishError, RequestError, StoreError};
use crate::protocol::WriteMembers;
use crate::protocol::api::{self, ApiError, BadParams};
use crate::protocol::code::ErrorCode;

/// A call without a result.
pub(super) enum Refusal {
    UnknownMethod,
    Malformed(String),
    Error(ApiError),
}

impl Refusal {
    /// A refusal that says more than its code does.
    pub(super) fn with_detail(code: ErrorCode, detail: &str) -> Self {
        Self::Error(ApiError { code, detail: detail.to_owned() })
    }
}

impl From<BadParams> for Refusal {
    fn from(error: BadParams) -> Self {
        match error {
            BadParams::Malformed(_) => Self::Malformed(error.to_string()),
            BadParams::Rejected(detail) => Self::Error(ApiError { code: ErrorCode::BadRequest, detail }),
        }
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let code = error.code();
        match error {
            RequestError::Store(StoreError::UnknownRoom) => {
                Self::with_detail(code, "the room does not exist")
            }
            RequestError::Store(error) => Self::with_detail(code, &error.to_string()),
            _ => Self::Error(code.into()),
        }
    }
}

/// The error for a message that was not published.
pub(super) fn describe(error: PublishError) -> ApiError {
    let code = error.code();
    let detail = match error {
        PublishError::AlwaysStored => {
            "this namespace stores every message; use one with persist = false".into()
        }
        PublishError::Store(AppendError::Rejected(reason)) => reason,
        PublishError::Store(AppendError::KeyTaken) => {
            "another message was published with this key; nothing was published".into()
        }
        PublishError::Store(AppendError::UnknownRoom) => {
            "the room does not exist; create it with room_create".into()
        }
        PublishError::Store(AppendError::Unavailable) => {
            "the database does not answer; nothing was published".into()
        }
        PublishError::UnknownNamespace
        | PublishError::Forbidden
        | PublishError::Json(_)
        | PublishError::TooLarge => String::new(),
    };
    ApiError { code, detail }
}

/// Writes a result; the last step of every method.
pub(super) fn done(out: &mut Vec<u8>, result: &impl WriteMembers) -> Result<(), Refusal> {
    api::result(out, result);
    Ok(())
}
