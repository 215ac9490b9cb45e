//! The stage that `tests/sdk/stage` sets up: a server, and the backend and the network of an application.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run by tests/run"))
}

/// The address of the server.
pub(crate) fn url() -> String {
    variable("ROOMCAST_URL")
}

pub(crate) fn token(options: &str) -> String {
    answer("GET", &format!("/token?{options}"), "")
}

pub(crate) fn post(path: &str) -> String {
    answer("POST", path, "")
}

pub(crate) fn api(method: &str, body: &str) {
    answer("POST", &format!("/api/{method}"), body);
}

fn answer(method: &str, path: &str, body: &str) -> String {
    ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// One request on a connection of its own.
pub(crate) fn ask(method: &str, path: &str, body: &str) -> io::Result<String> {
    let stage = variable("ROOMCAST_STAGE");
    let host = stage.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(text)),
    }
}
