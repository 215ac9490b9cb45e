//! Whether a log filter can be read. Only the program logs; an embedding one builds no reader of filters,
//! so there any filter will do.

/// The flaw of a filter, if it has one.
#[cfg(feature = "cli")]
pub(super) fn flaw(filter: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(filter).err().map(|error| error.to_string())
}

/// A filter that is never applied has no flaw.
#[cfg(not(feature = "cli"))]
pub(super) fn flaw(_filter: &str) -> Option<String> {
    None
}
