//! Whether a log filter can be read. Only the program logs; an embedding one builds no reader of filters,
//! so there any filter will do.

/// What is wrong with a filter, if anything is.
#[cfg(feature = "server")]
pub(super) fn flaw(filter: &str) -> Option<String> {
    tracing_subscriber::EnvFilter::try_new(filter).err().map(|error| error.to_string())
}

/// Nothing is wrong with a filter that nobody applies.
#[cfg(not(feature = "server"))]
pub(super) fn flaw(_filter: &str) -> Option<String> {
    None
}
