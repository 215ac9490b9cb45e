//! The open mode: everybody on this machine, and nobody whom a browser or a proxy brings here.
//!
//! Who may ask is decided there by nothing but the loopback address. A web page of any site can have a name of its
//! own lead to that address (DNS rebinding), and is then the server's own origin to the browser; and whoever a proxy
//! serves comes from its machine. Both show in the head.

use super::authority::Authority;
use super::glob;
use super::message::{Head, Response};
use crate::config::{Config, Mode, host_of_origin};
use crate::metrics::Metrics;

/// The names that an open server answers to.
#[derive(Debug)]
pub(super) struct Local {
    /// Patterns, besides the names of the loopback.
    hosts: Vec<String>,
}

/// Headers that only a proxy writes, with those that begin with [`FORWARDED_PREFIX`].
const PROXY_HEADERS: [&str; 3] = ["forwarded", "via", "x-real-ip"];
const FORWARDED_PREFIX: &str = "x-forwarded-";

impl Local {
    /// `None` in a mode that does not depend on where a request comes from.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let hosts = config.client.allowed_origins.iter().filter_map(|origin| host_of_origin(origin));
        let hosts = hosts.map(str::to_ascii_lowercase).collect();
        (config.mode() == Mode::Open).then_some(Self { hosts })
    }

    /// Refuses a request that may not come from this machine.
    pub(super) fn check(&self, head: &Head, metrics: &Metrics) -> Result<(), Response> {
        let (kind, reason) = if is_forwarded(head) {
            ("proxied", "an open server is for programs of its own machine, not behind a proxy: set a secret")
        } else if !head.host.as_ref().is_some_and(|host| self.is_known(host)) {
            ("host", "an open server is called localhost, 127.0.0.1, or a name in client.allowed_origins")
        } else {
            return Ok(());
        };
        metrics.bad_input_total.with_label_values(&[kind]).inc();
        Err(Response::text(403, reason))
    }

    fn is_known(&self, host: &Authority) -> bool {
        host.is_loopback() || self.hosts.iter().any(|pattern| glob::matches(pattern, &host.host))
    }
}

fn is_forwarded(head: &Head) -> bool {
    head.names()
        .map(str::to_ascii_lowercase)
        .any(|name| PROXY_HEADERS.contains(&name.as_str()) || name.starts_with(FORWARDED_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;

    /// Whether an open server answers a request with these headers.
    fn is_answered(headers: &str) -> bool {
        let text = "[client]\nallowed_origins = ['http://dev.test:3000', 'https://*.dev.example', 'http://[fd00::1]:80']";
        let local = Local::new(&Config::from_toml("r.toml", text).unwrap().config).unwrap();
        let (head, _) = parse(format!("GET / HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes()).unwrap().unwrap();
        local.check(&head, &Metrics::new()).is_ok()
    }

    #[test]
    fn names_of_this_machine() {
        for (host, expected) in [
            ("localhost:8000", true),
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("dev.test:8000", true),
            ("a.dev.example", true),
            ("[fd00::1]:8000", true),
            ("dev.example", false),
            ("a.dev.example.evil.test", false),
            ("evil.test:8000", false),
            ("localhost.evil.test", false),
            ("0.0.0.0:8000", false),
            ("192.168.1.5:8000", false),
        ] {
            assert_eq!(is_answered(&format!("Host: {host}")), expected, "{host}");
        }
    }

    #[test]
    fn what_a_proxy_hands_on() {
        for header in [
            "Forwarded: for=_x",
            "X-Forwarded-For: 127.0.0.1",
            "x-forwarded-proto:",
            "X-Real-IP: ::1",
            "Via: 1.1 p",
        ] {
            assert!(!is_answered(&format!("Host: localhost\r\n{header}")), "{header}");
        }
        assert!(is_answered("Host: localhost\r\nX-Forward: x\r\nX-Forwarder: y"));
    }

    #[test]
    fn other_modes_have_no_such_rule() {
        let config = |text| Config::from_toml("r.toml", text).unwrap().config;
        assert!(Local::new(&config("[client]\ninsecure = true")).is_none());
        let secured = "[client]\ntoken_hmac_secret = '0123456789abcdef0123456789abcdef'";
        assert!(Local::new(&config(secured)).is_none());
    }
}
