//! The built-in page: one self-contained file to chat with.

/// The page, as served at `/`.
pub(super) const HTML: &str = include_str!("page/index.html");
