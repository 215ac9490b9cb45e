//! HTTP/1.1 as far as one port needs it: a head with a size limit and a deadline, a body with both,
//! and answers.
//!
//! Parsing is `httparse`'s. Everything else a request may want (pipelining, trailers, chunked
//! uploads, `Expect`) is refused with the status that says so.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::limits::{
    HTTP_BODY_BYTES_MAX, HTTP_BODY_DEADLINE, HTTP_HEAD_BYTES_MAX, HTTP_HEAD_DEADLINE, HTTP_HEADERS_MAX,
    HTTP_KEEP_ALIVE,
};

/// The head of a request.
#[derive(Debug)]
pub(in crate::net) struct Head {
    pub(in crate::net) method: String,
    /// Path without the query.
    pub(super) path: String,
    pub(super) query: Option<String>,
    headers: Vec<(String, String)>,
    /// False for HTTP/1.0.
    is_http_11: bool,
}

/// A request that could not be read.
#[derive(Debug)]
pub(super) enum BadRequest {
    /// The client left, or was too slow to get an answer.
    Gone,
    /// Refused with this status and explanation.
    Status(u16, &'static str),
}

impl From<io::Error> for BadRequest {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Head {
    /// The value of a header, by any spelling of its name.
    pub(in crate::net) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// True when a comma-separated header holds the token.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(token))
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
}

/// Reads requests from one socket; keeps what came after the last one.
#[derive(Debug)]
pub(super) struct RequestReader<'a> {
    socket: &'a TcpStream,
    buffer: Vec<u8>,
}

impl<'a> RequestReader<'a> {
    pub(super) fn new(socket: &'a TcpStream) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Bytes that came behind the last head or body.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.buffer
    }

    /// The next head. The clock of its deadline starts with its first byte, so a kept-alive
    /// connection may be idle for longer.
    pub(super) fn head(&mut self, first: bool) -> Result<Head, BadRequest> {
        if self.buffer.is_empty() {
            let patience = if first { HTTP_HEAD_DEADLINE } else { HTTP_KEEP_ALIVE };
            self.fill(Instant::now() + patience)?;
        }
        let deadline = Instant::now() + HTTP_HEAD_DEADLINE;
        loop {
            if let Some((head, length)) = parse(&self.buffer)? {
                debug_assert!(length <= self.buffer.len(), "a head is a part of what was read");
                self.buffer.drain(..length);
                return Ok(head);
            }
            if self.buffer.len() >= HTTP_HEAD_BYTES_MAX {
                return Err(BadRequest::Status(431, "the request head is too large"));
            }
            self.fill(deadline)?;
        }
    }

    /// Makes sure that the request has no body, without reading one: nobody wants it.
    pub(super) fn no_body(&self, head: &Head) -> Result<(), BadRequest> {
        let is_empty = head.header("content-length").is_none_or(|length| length.trim() == "0");
        if head.header("transfer-encoding").is_some() || !is_empty {
            return Err(BadRequest::Status(413, "this address takes no request body"));
        }
        Ok(())
    }

    /// The body that belongs to the head.
    pub(super) fn body(&mut self, head: &Head) -> Result<Vec<u8>, BadRequest> {
        if head.header("transfer-encoding").is_some() {
            return Err(BadRequest::Status(411, "send the body with a Content-Length"));
        }
        let Some(length) = head.header("content-length") else { return Ok(Vec::new()) };
        let length: usize = match length.trim().parse() {
            Ok(length) if length <= HTTP_BODY_BYTES_MAX => length,
            Ok(_) => return Err(BadRequest::Status(413, "the request body is too large")),
            Err(_) => return Err(BadRequest::Status(400, "Content-Length is not a number")),
        };
        if head.has_token("expect", "100-continue") {
            write_all(self.socket, b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let deadline = Instant::now() + HTTP_BODY_DEADLINE;
        while self.buffer.len() < length {
            self.fill(deadline)?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), BadRequest> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(BadRequest::Status(408, "the request took too long"));
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut chunk = [0; 2048];
        match (&mut &*self.socket).read(&mut chunk) {
            Ok(0) => Err(BadRequest::Gone),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if is_timeout(&error) && self.buffer.is_empty() => Err(BadRequest::Gone),
            Err(error) if is_timeout(&error) => Err(BadRequest::Status(408, "the request took too long")),
            Err(_) => Err(BadRequest::Gone),
        }
    }
}

/// True for both kinds of error that a read timeout can be.
pub(in crate::net) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, BadRequest> {
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(BadRequest::Status(431, "the request has too many headers"));
        }
        Err(_) => return Err(BadRequest::Status(400, "this is not HTTP/1.1")),
    };
    if length > HTTP_HEAD_BYTES_MAX {
        return Err(BadRequest::Status(431, "the request head is too large"));
    }
    let target = request.path.unwrap_or("/");
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let head = Head {
        method: request.method.unwrap_or("").to_owned(),
        path: path.to_owned(),
        query,
        headers: request.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        is_http_11: request.version == Some(1),
    };
    Ok(Some((head, length)))
}

/// An answer to a request.
#[derive(Debug)]
pub(in crate::net) struct Response {
    pub(in crate::net) status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    allow: Option<&'static str>,
}

impl Response {
    pub(in crate::net) fn new(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        debug_assert!(status == 500 || reason(status) != reason(500), "{status} has no reason phrase");
        Self { status, content_type, body: body.into(), allow: None }
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

    /// Writes the answer; gives up on a client that does not take it within the body deadline.
    pub(super) fn write(&self, socket: &TcpStream, keep_alive: bool, head_only: bool) -> io::Result<()> {
        debug_assert_eq!(self.status == 405, self.allow.is_some(), "405 and Allow come together (RFC 9110)");
        let mut bytes = Vec::with_capacity(self.body.len() + 256);
        write!(
            bytes,
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len(),
        )?;
        if let Some(allow) = self.allow {
            write!(bytes, "Allow: {allow}\r\n")?;
        }
        if self.status == 426 {
            write!(bytes, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")?;
        }
        if self.content_type.starts_with("text/html") {
            write!(bytes, "Content-Security-Policy: {PAGE_POLICY}\r\n")?;
        }
        bytes.extend_from_slice(if keep_alive { b"\r\n" } else { b"Connection: close\r\n\r\n" });
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        write_all(socket, &bytes)
    }
}

/// The built-in page may talk to its own server only.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Writes all bytes within the body deadline, which the peer cannot prolong by taking a few of them.
pub(super) fn write_all(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    write_until(socket, bytes, Instant::now() + HTTP_BODY_DEADLINE)
}

fn write_until(mut socket: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_write_timeout(Some(left))?;
        match socket.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    socket.set_write_timeout(None::<Duration>)
}

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
    fn every_error_of_the_api_has_a_reason_phrase() {
        for code in crate::protocol::code::ErrorCode::ALL {
            let status = code.http_status();
            assert_eq!(reason(status) == reason(500), status == 500, "{status}");
        }
    }

    #[test]
    fn text_that_is_no_request_gets_a_status() {
        assert!(matches!(parsed("\x16\x03\x01hello\r\n\r\n"), Err(BadRequest::Status(400, _))));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HTTP_HEADERS_MAX + 1));
        assert!(matches!(parsed(&many), Err(BadRequest::Status(431, _))));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HTTP_HEAD_BYTES_MAX));
        assert!(matches!(parsed(&long), Err(BadRequest::Status(431, _))));
    }
}
