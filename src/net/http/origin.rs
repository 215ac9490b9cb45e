//! The web pages that may connect: those of the server itself and those the operator names.

use super::authority::Authority;
use super::glob;
use super::message::{Head, Response};
use crate::config::{Config, Mode};
use crate::metrics::Metrics;

/// The pages of other servers that may connect.
#[derive(Debug)]
pub(super) struct Origins {
    /// Patterns in which `*` stands for any run of characters, in lower case, without default ports.
    allowed: Vec<String>,
    /// Nothing is in front of the server, so its own pages come by plain HTTP from the very port.
    is_open: bool,
}

/// What a page was loaded by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// The ports that `http` and `https` have when none is named.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

impl Scheme {
    /// Reads the scheme of a page.
    fn of_page(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// The scheme by which a proxy was reached, by the lines of its `X-Forwarded-Proto`. `None` when they do not
    /// say, or say several: then proxies stand in a row, and each names its own.
    pub(super) fn forwarded<'a>(lines: impl Iterator<Item = &'a str>) -> Option<Self> {
        // Some proxies write that of the WebSocket.
        let scheme = |text: &str| match text.trim().to_ascii_lowercase().as_str() {
            "ws" => Some(Self::Http),
            "wss" => Some(Self::Https),
            other => Self::of_page(other),
        };
        let mut schemes = lines.flat_map(|line| line.split(',')).map(scheme);
        let first = schemes.next()??;
        schemes.all(|other| other == Some(first)).then_some(first)
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Origins {
    /// Those that the configuration allows.
    pub(super) fn new(config: &Config) -> Self {
        let allowed = config.client.allowed_origins.iter().map(|pattern| pattern.to_ascii_lowercase());
        Self {
            allowed: allowed.map(|pattern| without_default_port(&pattern).to_owned()).collect(),
            is_open: config.mode() == Mode::Open,
        }
    }

    /// Refuses a request that a page of another server makes. `scheme`: that of the server's own pages, if known.
    pub(super) fn check(
        &self,
        head: &Head,
        scheme: Option<Scheme>,
        metrics: &Metrics,
    ) -> Result<(), Response> {
        if self.is_allowed(head, scheme) {
            return Ok(());
        }
        metrics.bad_input_total.with_label_values(&["origin"]).inc();
        Err(Response::text(403, "pages of this origin may not connect; add it to client.allowed_origins"))
    }

    /// True for a request of an allowed page. One without an `Origin` comes from no page, unless the browser
    /// says so in `Sec-Fetch-Site`.
    fn is_allowed(&self, head: &Head, scheme: Option<Scheme>) -> bool {
        let is_foreign = head.lines("sec-fetch-site").any(|site| !matches!(site, "same-origin" | "none"));
        let is_own = |page: &str| !is_foreign && self.is_own(page, head.host.as_ref(), scheme);
        let mut pages = head.lines("origin").map(str::to_ascii_lowercase).peekable();
        match pages.peek() {
            None => !is_foreign,
            Some(_) => pages.all(|page| is_own(&page) || self.names(&page)),
        }
    }

    /// True for a page of the server that the client calls `host`. Which of the default ports a host has
    /// makes no difference: a proxy in front may name its own.
    fn is_own(&self, page: &str, host: Option<&Authority>, scheme: Option<Scheme>) -> bool {
        let origin = page.split_once("://");
        let origin = origin.and_then(|(scheme, rest)| Scheme::of_page(scheme).zip(Authority::parse(rest)));
        let (Some((page_scheme, page)), Some(host)) = (origin, host) else { return false };
        let known = if self.is_open { Some(Scheme::Http) } else { scheme };
        let default = page_scheme.default_port();
        let (port, own) = (page.port.unwrap_or(default), host.port.unwrap_or(default));
        let is_default = |port| !self.is_open && DEFAULT_PORTS.contains(&port);
        known.is_none_or(|known| known == page_scheme)
            && page.host == host.host
            && (own == port || (port == default && is_default(own)))
    }

    /// True for a page that the operator named.
    fn names(&self, page: &str) -> bool {
        let page = without_default_port(page);
        self.allowed.iter().any(|pattern| glob::matches(pattern, page))
    }
}

/// An origin as browsers write it.
fn without_default_port(origin: &str) -> &str {
    let port = match origin.split_once("://") {
        Some(("http", _)) => ":80",
        Some(("https", _)) => ":443",
        _ => return origin,
    };
    origin.strip_suffix(port).unwrap_or(origin)
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;

    /// Origins of a server that demands tokens, or of an open one.
    fn origins(is_open: bool, allowed: &str) -> Origins {
        let secret = if is_open { "" } else { "0123456789abcdef0123456789abcdef" };
        let text = format!("[client]\ntoken_hmac_secret = '{secret}'\nallowed_origins = {allowed}");
        Origins::new(&Config::from_toml("r.toml", &text).unwrap().config)
    }

    fn is_allowed(origins: &Origins, headers: &[&str], scheme: Option<Scheme>) -> bool {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        let (head, _) = parse(text.as_bytes()).unwrap().unwrap();
        origins.is_allowed(&head, scheme)
    }

    #[test]
    fn own_pages_as_a_table() {
        let origins = origins(false, "[]");
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        for (host, page, scheme, expected) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000", None, true),
            ("127.0.0.1:8000", "http://127.0.0.1:8001", None, false),
            ("CHAT.test", "http://chat.Test", None, true),
            ("[::1]:8000", "http://[0:0::1]:8000", None, true),
            // Default ports.
            ("chat.test:443", "https://chat.test", None, true),
            ("chat.test:80", "http://chat.test", None, true),
            ("chat.test", "https://chat.test:443", None, true),
            ("chat.test:80", "https://chat.test", None, true),
            ("chat.test:8443", "https://chat.test:8443", https, true),
            ("chat.test:8443", "https://chat.test", None, false),
            ("chat.test", "https://chat.test:8443", None, false),
            ("chat.test:443", "https://chat.test:80", None, false),
            ("chat.test:443", "https://chat.test:8443", None, false),
            // Schemes.
            ("chat.test", "https://chat.test", https, true),
            ("chat.test", "http://chat.test", https, false),
            ("chat.test", "https://chat.test", http, false),
            ("chat.test", "chrome-extension://chat.test", None, false),
            ("chat.test", "ws://chat.test", None, false),
            ("chat.test", "://chat.test", None, false),
            ("chat.test", "//chat.test", None, false),
            ("chat.test", "chat.test", None, false),
            // No origins.
            ("null", "null", None, false),
            ("chat.test", "", None, false),
            ("chat.test", "http://", None, false),
            ("chat.test", "http://ann@chat.test", None, false),
            ("chat.test", "http://chat.test/", None, false),
            ("chat.test", "http://chat.test.evil.test", None, false),
        ] {
            let headers = [format!("Host: {host}"), format!("Origin: {page}")];
            let headers = headers.each_ref().map(String::as_str);
            assert_eq!(is_allowed(&origins, &headers, scheme), expected, "{page} at {host}, {scheme:?}");
        }
    }

    #[test]
    fn an_open_server_has_pages_of_its_very_port() {
        let origins = origins(true, "[]");
        for (host, page, expected) in [
            ("localhost:8000", "http://localhost:8000", true),
            ("localhost", "http://localhost:80", true),
            ("localhost:8000", "https://localhost:8000", false),
            ("localhost:443", "http://localhost", false),
            ("localhost:8000", "http://127.0.0.1:8000", false),
        ] {
            let headers = [format!("Host: {host}"), format!("Origin: {page}")];
            assert_eq!(
                is_allowed(&origins, &headers.each_ref().map(String::as_str), None),
                expected,
                "{page}"
            );
        }
    }

    #[test]
    fn pages_that_the_operator_names() {
        let origins = origins(false, "['https://*.example.com', 'http://dev:3000', 'https://Chat.test:443']");
        for (page, expected) in [
            ("https://app.example.com", true),
            ("https://APP.example.com:443", true),
            ("https://example.com", false),
            ("https://app.example.com.evil.test", false),
            ("http://dev:3000", true),
            ("http://dev:30000", false),
            ("https://chat.test", true),
        ] {
            let origin = format!("Origin: {page}");
            assert_eq!(is_allowed(&origins, &["Host: own.test", &origin], None), expected, "{page}");
        }
        let everything = self::origins(false, "['*']");
        assert!(is_allowed(&everything, &["Host: own.test", "Origin: https://any.where"], None));
    }

    #[test]
    fn a_browser_that_says_where_a_request_comes_from_is_believed() {
        let origins = origins(false, "['https://app.example.com']");
        for (site, origin, expected) in [
            ("none", None, true),
            ("same-origin", None, true),
            ("same-origin", Some("https://own.test"), true),
            ("cross-site", None, false),
            ("Cross-Site", None, false),
            ("same-origin, cross-site", None, false),
            ("same-site", None, false),
            ("cross-site", Some("https://own.test"), false),
            ("cross-site", Some("https://app.example.com"), true),
            ("same-site", Some("https://app.example.com"), true),
        ] {
            let site = format!("Sec-Fetch-Site: {site}");
            let origin = origin.map(|origin| format!("Origin: {origin}"));
            let headers: Vec<&str> = ["Host: own.test", &site].into_iter().chain(origin.as_deref()).collect();
            assert_eq!(is_allowed(&origins, &headers, None), expected, "{headers:?}");
        }
        let two = ["Host: own.test", "Origin: https://own.test", "Origin: https://evil.test"];
        assert!(!is_allowed(&origins, &two, None), "every line counts");
        assert!(is_allowed(&origins, &["Host: own.test"], None), "no browser");
    }

    #[test]
    fn the_scheme_that_a_proxy_names() {
        let forwarded = |lines: &[&str]| Scheme::forwarded(lines.iter().copied());
        for lines in [&["https"][..], &["HTTPS"], &["wss"], &["https, https"], &["https", "wss"]] {
            assert_eq!(forwarded(lines), Some(Scheme::Https), "{lines:?}");
        }
        assert_eq!(forwarded(&["http"]), Some(Scheme::Http));
        for lines in [&[][..], &[""], &["ftp"], &["https, http"], &["http", "https"], &["https,"]] {
            assert_eq!(forwarded(lines), None, "{lines:?}");
        }
    }
}
