//! HTTP/1.1 as far as one port needs it: a head with a size limit, and answers.
//!
//! The grammar is `httparse`'s; what it leaves to its caller, and what a proxy might read in another way, is
//! decided here: line breaks, the target, the host, and in `body` the length. Text only: `exchange` reads and writes.

use std::io::Write;

use super::authority::Authority;
use super::bad_request::BadRequest;
use super::body::{Body, Framing};
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::net::peers::Refusal;

/// The head of a request.
#[derive(Debug)]
pub(in crate::net) struct Head {
    pub(in crate::net) method: String,
    /// Path without the query.
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// The server as the client calls it: in an absolute target, else in `Host`. Always there in HTTP/1.1.
    pub(super) host: Option<Authority>,
    headers: Vec<(String, String)>,
    framing: Framing,
    /// False for HTTP/1.0.
    pub(super) is_http_11: bool,
}

impl Head {
    /// The value of a header, by any spelling of its name.
    pub(in crate::net) fn header(&self, name: &str) -> Option<&str> {
        lines_of(&self.headers, name).next()
    }

    /// The values of all lines of a header, by any spelling of its name.
    pub(super) fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        lines_of(&self.headers, name)
    }

    /// The value of a header that takes one line and no more; `None` also when there are several.
    pub(super) fn only_line(&self, name: &str) -> Option<&str> {
        let mut lines = self.lines(name);
        lines.next().filter(|_| lines.next().is_none())
    }

    /// The names of all headers, as they were written.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(|(name, _)| name.as_str())
    }

    /// True when a comma-separated header holds the token.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The tokens of a comma-separated header.
    pub(super) fn tokens(&self, name: &str) -> impl Iterator<Item = &str> {
        self.lines(name).flat_map(|line| line.split(',')).map(str::trim)
    }

    /// A parameter of the query, undecoded.
    pub(in crate::net) fn query_value(&self, name: &str) -> Option<&str> {
        let pairs = self.query.as_deref()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// True when the connection may serve another request.
    pub(super) fn keep_alive(&self) -> bool {
        self.is_http_11 && !self.has_token("connection", "close")
    }

    /// True when the client waits for a word before it sends the body.
    pub(super) fn expects_continue(&self) -> bool {
        self.is_http_11 && self.has_token("expect", "100-continue")
    }

    /// Makes sure that the request has no body: nobody wants it.
    pub(super) fn no_body(&self) -> Result<(), BadRequest> {
        match self.framing {
            Framing::Length(0) => Ok(()),
            Framing::Length(_) | Framing::Chunked => {
                Err(BadRequest(413, "this address takes no request body"))
            }
        }
    }

    /// The body that follows.
    pub(super) fn body(&self) -> Result<Body, BadRequest> {
        self.framing.body()
    }
}

const TOO_LARGE: BadRequest = BadRequest(431, "the request head is too large");

/// The head at the beginning of `bytes` and its length; `None` when more of it has to come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= HTTP_HEAD_BYTES_MAX => return Err(TOO_LARGE),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(BadRequest(431, "the request has too many headers"));
        }
        Err(_) => return Err(BadRequest(400, "this is not HTTP/1.1")),
    };
    if length > HTTP_HEAD_BYTES_MAX {
        return Err(TOO_LARGE);
    }
    if memchr::memchr_iter(b'\n', &bytes[..length]).any(|at| at == 0 || bytes[at - 1] != b'\r') {
        return Err(BadRequest(400, "a line of the head does not end with CR LF"));
    }
    head(&request).map(|head| Some((head, length)))
}

fn head(request: &httparse::Request<'_, '_>) -> Result<Head, BadRequest> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<_> =
        request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect();
    let lines = |name| lines_of(&headers, name);
    let is_http_11 = request.version == Some(1);
    let (authority, target) = target(request.path.unwrap_or("/"))?;
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let host = host(lines("host"), is_http_11)?;
    Ok(Head {
        method: request.method.unwrap_or("").to_owned(),
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        query,
        host: authority.or(host),
        framing: Framing::of(lines("content-length"), lines("transfer-encoding"), is_http_11)?,
        is_http_11,
        headers,
    })
}

/// The host that an absolute target names, and the target without it.
fn target(text: &str) -> Result<(Option<Authority>, &str), BadRequest> {
    if text.starts_with('/') || text == "*" {
        return Ok((None, text));
    }
    let is_http = |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let rest = text.split_once("://").filter(|(scheme, _)| is_http(scheme)).map(|(_, rest)| rest);
    let parts = rest.map(|rest| rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())));
    match parts.map(|(authority, target)| (Authority::parse(authority), target)) {
        Some((Some(authority), target)) => Ok((Some(authority), target)),
        _ => Err(BadRequest(400, "the target is no path and no http URL")),
    }
}

/// The host of the header `Host`, of which HTTP/1.1 has exactly one (RFC 9112 §3.2).
fn host<'a>(
    mut lines: impl Iterator<Item = &'a str>,
    is_http_11: bool,
) -> Result<Option<Authority>, BadRequest> {
    match (lines.next(), lines.next()) {
        (None, _) if is_http_11 => Err(BadRequest(400, "the header Host is missing")),
        (None, _) => Ok(None),
        (Some(line), None) => match Authority::parse(line) {
            Some(host) => Ok(Some(host)),
            None => Err(BadRequest(400, "the header Host names no host")),
        },
        (Some(_), Some(_)) => Err(BadRequest(400, "there is more than one Host")),
    }
}

/// The values of all lines of a header, by any spelling of its name.
fn lines_of<'a>(headers: &'a [(String, String)], name: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// An answer to a request.
#[derive(Debug)]
pub(in crate::net) struct Response {
    pub(in crate::net) status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
    /// Seconds after which another try may succeed.
    retry_after: Option<u64>,
}

impl Response {
    pub(in crate::net) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        debug_assert!(status == 500 || reason(status) != reason(500), "{status} has no reason phrase");
        Self { status, content_type, body: body.into(), allow: None, retry_after: None }
    }

    pub(in crate::net) fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(in crate::net) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{body}\n"))
    }

    pub(in crate::net) fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::text(405, "method not allowed") }
    }

    /// The answer to a socket or an upgrade that a limit refuses.
    pub(in crate::net) fn refusal(refusal: Refusal) -> Self {
        let retry_after = Some(refusal.retry_after());
        Self { retry_after, ..Self::text(refusal.status(), refusal.text()) }
    }

    /// The answer to somebody who was too fast, and may come back after so many seconds.
    pub(in crate::net) fn too_many(text: &str, retry_after: u64) -> Self {
        Self { retry_after: Some(retry_after), ..Self::text(429, text) }
    }

    /// The answer as it is sent.
    pub(in crate::net) fn encode(&self, keep_alive: bool, head_only: bool) -> Vec<u8> {
        debug_assert_eq!(self.status == 405, self.allow.is_some(), "405 and Allow come together (RFC 9110)");
        let mut bytes = Vec::with_capacity(self.body.len() + 256);
        // Writing to a Vec does not fail.
        let _ = write!(
            bytes,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        );
        if let Some(allow) = self.allow {
            let _ = write!(bytes, "Allow: {allow}\r\n");
        }
        if let Some(seconds) = self.retry_after {
            let _ = write!(bytes, "Retry-After: {seconds}\r\n");
        }
        if self.status == 426 {
            bytes.extend_from_slice(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        }
        if self.content_type.starts_with("text/html") {
            let _ = write!(bytes, "Content-Security-Policy: {PAGE_POLICY}\r\n");
        }
        bytes.extend_from_slice(if keep_alive { b"\r\n" } else { b"Connection: close\r\n\r\n" });
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// The built-in page may talk to its own server only.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation;

    fn parsed(text: &str) -> Result<Option<(Head, usize)>, BadRequest> {
        parse(text.as_bytes())
    }

    #[test]
    fn a_head_is_read_in_full_or_not_at_all() {
        assert!(parsed("GET / HT").unwrap().is_none());
        let text =
            "GET /api/x?a=1&api_key=k HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\r\nrest";
        let (head, length) = parsed(text).unwrap().unwrap();
        assert_eq!(&text[length..], "rest");
        assert_eq!((head.path.as_str(), head.query_value("api_key")), ("/api/x", Some("k")));
        assert!(head.has_token("connection", "upgrade") && head.keep_alive());
        assert_eq!(head.header("HOST"), Some("h"));
    }

    #[test]
    fn the_target_may_be_absolute() {
        let host = |host: &str, port| Some(Authority { host: host.to_owned(), port });
        for (target, expected) in [
            ("/a?b=1", ("/a", Some("b=1"), host("h", None))),
            ("http://Chat.example.com/a?b=1", ("/a", Some("b=1"), host("chat.example.com", None))),
            ("HTTPS://x:8443", ("/", None, host("x", Some(8443)))),
            ("http://[::1]:8000?b", ("/", Some("b"), host("[::1]", Some(8000)))),
            ("*", ("*", None, host("h", None))),
        ] {
            let (head, _) = parsed(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap().unwrap();
            assert_eq!((head.path.as_str(), head.query.as_deref(), head.host), expected, "{target}");
        }
        for target in ["x", "ftp://h/", "ws://h/", "http:///a", "http://ann@h/", "http:/h", "h:80", "://h/"] {
            let outcome = parsed(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            assert!(matches!(outcome, Err(BadRequest(400, _))), "{target}: {outcome:?}");
        }
    }

    #[test]
    fn http_11_has_one_host() {
        for lines in
            ["", "Host:\r\n", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host: a, b\r\n", "Host: a/\r\n"]
        {
            let outcome = parsed(&format!("GET / HTTP/1.1\r\n{lines}\r\n"));
            assert!(matches!(outcome, Err(BadRequest(400, _))), "{lines}: {outcome:?}");
            let outcome = parsed(&format!("GET / HTTP/1.0\r\n{lines}\r\n"));
            assert_eq!(outcome.is_ok(), lines.is_empty(), "{lines}: {outcome:?}");
        }
    }

    #[test]
    fn a_line_ends_with_both_characters() {
        for text in [
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\nContent-Length: 2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            assert!(matches!(parsed(text), Err(BadRequest(400, _))), "{text:?}");
        }
    }

    #[test]
    fn every_error_of_the_api_has_a_reason_phrase() {
        for code in crate::protocol::code::ErrorCode::ALL {
            let status = code.http_status();
            assert_eq!(reason(status) == reason(500), status == 500, "{status}");
        }
    }

    #[test]
    fn a_header_may_take_several_lines() {
        let text = "GET / HTTP/1.1\r\nVia: a, b\r\nHost: h\r\nvia: c\r\n\r\n";
        let (head, _) = parsed(text).unwrap().unwrap();
        assert_eq!(head.lines("VIA").collect::<Vec<_>>(), ["a, b", "c"]);
        assert!(head.has_token("via", "c") && head.lines("none").next().is_none());
    }

    #[test]
    fn every_refusal_says_when_to_come_back() {
        for refusal in Refusal::ALL {
            let answer = Response::refusal(refusal).encode(false, false);
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut read = httparse::Response::new(&mut headers);
            let length = read.parse(&answer).unwrap().unwrap();
            assert_eq!(read.code, Some(refusal.status()));
            let header = |name| {
                let header = read.headers.iter().find(|header| header.name == name).unwrap();
                std::str::from_utf8(header.value).unwrap()
            };
            assert_eq!(header("Content-Length"), (answer.len() - length).to_string());
            assert!((1..=10).contains(&header("Retry-After").parse().unwrap()));
            assert_eq!(header("Connection"), "close");
        }
    }

    #[test]
    fn text_that_is_no_request_gets_a_status() {
        assert!(matches!(parsed("\x16\x03\x01hello\r\n\r\n"), Err(BadRequest(400, _))));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HTTP_HEADERS_MAX + 1));
        assert!(matches!(parsed(&many), Err(BadRequest(431, _))));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX));
        assert!(matches!(parsed(&long), Err(BadRequest(431, _))));
    }

    #[test]
    fn no_bytes_break_the_reader_of_heads() {
        let examples = [
            "GET /api/x?a=1 HTTP/1.1\r\nHost: h:80\r\nContent-Length: 2\r\n\r\n{}",
            "POST http://[::1]:8000/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "\r\nGET * HTTP/1.0\r\nConnection: keep-alive, Upgrade\r\nOrigin: null\r\n\r\n",
        ];
        let mut heads = 0;
        mutation::each(&examples.map(|text| text.as_bytes().to_vec()), 20_000, |bytes| {
            let Ok(Some((head, length))) = parse(bytes) else { return };
            heads += 1;
            let text = String::from_utf8_lossy(&bytes[..length]).to_ascii_lowercase();
            let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
            assert!(count("host:") == 1 || (count("host:") == 0 && !head.is_http_11), "{text}");
            assert!(count("content-length:") + count("transfer-encoding:") <= 1, "{text}");
            assert!(head.path.starts_with('/') || head.path == "*", "{text}");
            assert!(
                !matches!(parse(&bytes[..length - 1]), Ok(Some(_))),
                "a part of it is another head: {text}"
            );
        });
        assert!(heads > 1000, "{heads}");
    }
}
