//! The web pages that may connect: those of the server itself and those the operator names.

use super::glob;
use super::message::{Head, Response};
use crate::metrics::Metrics;

/// The pages of other servers that may connect.
#[derive(Debug)]
pub(super) struct Origins {
    /// Patterns in which `*` stands for any run of characters.
    pub(super) allowed: Vec<String>,
}

impl Origins {
    /// Refuses a request that a page of another server makes.
    pub(super) fn check(&self, head: &Head, metrics: &Metrics) -> Result<(), Response> {
        let Some(page) = head.header("origin") else { return Ok(()) };
        if is_allowed(page, head.header("host"), &self.allowed) {
            return Ok(());
        }
        metrics.bad_input_total.with_label_values(&["origin"]).inc();
        Err(Response::text(403, "pages of this origin may not connect; add it to client.allowed_origins"))
    }
}

/// True when a browser page of `origin` may connect to the server it calls `host`. A request without
/// an `Origin` header comes from no browser and is not judged here.
fn is_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    let same = origin.split_once("://").map(|(_, authority)| authority);
    let own = same.is_some() && same.map(str::to_ascii_lowercase) == host.map(str::to_ascii_lowercase);
    let origin = origin.to_ascii_lowercase();
    own || allowed.iter().any(|pattern| glob::matches(&pattern.to_ascii_lowercase(), &origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_as_a_table() {
        let allowed = vec!["https://*.example.com".to_owned(), "http://dev:3000".to_owned()];
        for (origin, host, expected) in [
            ("http://127.0.0.1:8000", Some("127.0.0.1:8000"), true),
            ("http://chat.test", Some("CHAT.test"), true),
            ("https://app.example.com", Some("chat.test"), true),
            ("https://example.com", Some("chat.test"), false),
            ("https://app.example.com.evil.test", Some("chat.test"), false),
            ("http://dev:3000", None, true),
            ("http://dev:30000", None, false),
            ("null", Some("null"), false),
            ("", None, false),
        ] {
            assert_eq!(is_allowed(origin, host, &allowed), expected, "{origin}");
        }
        assert!(is_allowed("https://any.where", None, &["*".to_owned()]));
    }
}
