//! A request that is not served as it came.

/// A request that is refused with this status and explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadRequest(pub(super) u16, pub(super) &'static str);
