//! `roomcast version`: this program and the databases compiled into it.

/// The lines that are printed.
#[must_use]
pub(super) fn text() -> String {
    let tls = if cfg!(feature = "postgres-tls") { "with TLS" } else { "without TLS" };
    format!(
        "roomcast {}\nSQLite {} (compiled in)\nPostgreSQL client library {tls} (compiled in)\n",
        env!("CARGO_PKG_VERSION"),
        libsqlite3_sys::SQLITE_VERSION.to_string_lossy(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named() {
        assert!(text().starts_with("roomcast 0."), "{}", text());
        assert!(text().contains("\nSQLite 3."), "{}", text());
    }
}
