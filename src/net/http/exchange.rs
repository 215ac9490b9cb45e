//! A socket that speaks HTTP, or nothing yet: requests one by one, until one makes it a WebSocket.
//!
//! Reads and writes what the socket takes now; between two turns it is a buffer, a stage and a deadline. The
//! clock of a head starts with its first byte, so a kept-alive connection may be idle for longer; head, body
//! and answer each have one deadline, which a peer cannot prolong by a byte now and then.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::message::{BadRequest, Head, Response, parse};
use super::routes::{Route, Router};
use crate::limits::{
    HTTP_BODY_DEADLINE, HTTP_HEAD_DEADLINE, HTTP_KEEP_ALIVE, HTTP_REQUESTS_PER_TURN_MAX, TURN_BYTES_MAX,
};
use crate::net::readers::{Interest, Wait};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 2048;

#[cfg(any(target_os = "linux", target_os = "android"))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// Elsewhere the standard library already turned SIGPIPE off for the socket.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT;

/// The HTTP side of one socket.
#[derive(Debug)]
pub(in crate::net) struct Exchange {
    router: Arc<Router>,
    peer: SocketAddr,
    /// Bytes that were read and belong to no request yet.
    buffer: Vec<u8>,
    stage: Stage,
    deadline: Instant,
    /// Requests answered in this turn.
    answered: usize,
    /// Bytes read in this turn.
    taken: usize,
}

/// What comes next on the socket.
#[derive(Debug)]
enum Stage {
    /// The head of a request, or more of it.
    Head,
    /// The body of a request, of so many bytes.
    Body(Box<Head>, usize),
    /// What is left of an answer.
    Answer { bytes: Vec<u8>, sent: usize, then: Then },
}

/// The step behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    NextRequest,
    Close,
    Upgrade,
}

/// The next step of the connection after a turn.
#[derive(Debug)]
pub(in crate::net) enum Outcome {
    /// Another turn, after those of others.
    Again,
    /// A turn when the socket is ready or the time is over.
    Wait(Wait),
    /// The socket is a WebSocket; these bytes came behind the request.
    Upgrade(Vec<u8>),
    /// The last answer is sent, and the client is to see it.
    Close,
    /// The client left, or was too slow for an answer.
    Gone,
}

impl Exchange {
    /// The HTTP side of a socket that was just accepted.
    pub(in crate::net) fn new(router: Arc<Router>, peer: SocketAddr) -> Self {
        Self {
            router,
            peer,
            buffer: Vec::new(),
            stage: Stage::Head,
            deadline: Instant::now() + HTTP_HEAD_DEADLINE,
            answered: 0,
            taken: 0,
        }
    }

    /// The moment by which the next bytes must have come or gone.
    pub(in crate::net) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the socket is served with.
    pub(in crate::net) fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Goes on as far as the socket allows now. While the server stops, only an answer is finished.
    pub(in crate::net) fn turn(&mut self, socket: &TcpStream, stopping: bool) -> Outcome {
        (self.answered, self.taken) = (0, 0);
        loop {
            if self.deadline <= Instant::now() && !self.on_deadline() {
                return Outcome::Gone;
            }
            let step = match &self.stage {
                Stage::Head | Stage::Body(..) if stopping => Err(Outcome::Gone),
                Stage::Head => self.read_head(socket),
                Stage::Body(..) => self.read_body(socket),
                Stage::Answer { .. } => self.send_answer(socket),
            };
            if let Err(outcome) = step {
                return outcome;
            }
            if self.answered >= HTTP_REQUESTS_PER_TURN_MAX || self.taken >= TURN_BYTES_MAX {
                return Outcome::Again;
            }
        }
    }

    /// A client that was too slow with a request is told so. False when there is nothing to tell, or it is
    /// too slow even for the answer.
    fn on_deadline(&mut self) -> bool {
        match &self.stage {
            Stage::Answer { .. } => return false,
            Stage::Head if self.buffer.is_empty() => return false,
            Stage::Head | Stage::Body(..) => {}
        }
        self.refuse(BadRequest(408, "the request took too long"));
        true
    }

    fn read_head(&mut self, socket: &TcpStream) -> Result<(), Outcome> {
        match parse(&self.buffer) {
            Ok(Some((head, length))) => {
                debug_assert!(length <= self.buffer.len(), "a head is a part of what was read");
                self.buffer.drain(..length);
                self.on_head(socket, head)
            }
            Ok(None) => self.fill(socket),
            Err(bad) => {
                self.refuse(bad);
                Ok(())
            }
        }
    }

    fn on_head(&mut self, socket: &TcpStream, head: Head) -> Result<(), Outcome> {
        match self.router.route(&head) {
            Route::Upgrade(answer) => self.answer(answer.into_bytes(), Then::Upgrade),
            Route::Refuse(response) => self.answer_to(&head, &response, false),
            Route::Respond { body_bytes: 0 } => self.respond(&head, &[]),
            Route::Respond { body_bytes } => {
                if head.expects_continue() {
                    ask_for_body(socket)?;
                }
                self.stage = Stage::Body(Box::new(head), body_bytes);
                self.deadline = Instant::now() + HTTP_BODY_DEADLINE;
            }
        }
        Ok(())
    }

    fn read_body(&mut self, socket: &TcpStream) -> Result<(), Outcome> {
        match std::mem::replace(&mut self.stage, Stage::Head) {
            Stage::Body(head, length) if self.buffer.len() >= length => {
                let rest = self.buffer.split_off(length);
                let body = std::mem::replace(&mut self.buffer, rest);
                self.respond(&head, &body);
                Ok(())
            }
            stage => {
                self.stage = stage;
                self.fill(socket)
            }
        }
    }

    fn respond(&mut self, head: &Head, body: &[u8]) {
        let response = self.router.respond(head, body);
        let (peer, status) = (self.peer, response.status);
        tracing::debug!(%peer, method = head.method, path = head.path, status, "http");
        self.answer_to(head, &response, head.keep_alive());
    }

    fn answer_to(&mut self, head: &Head, response: &Response, keep_alive: bool) {
        self.router.count(response.status);
        let then = if keep_alive { Then::NextRequest } else { Then::Close };
        self.answer(response.encode(keep_alive, head.method == "HEAD"), then);
    }

    fn refuse(&mut self, BadRequest(status, text): BadRequest) {
        self.router.count(status);
        self.answer(Response::text(status, text).encode(false, false), Then::Close);
    }

    fn answer(&mut self, bytes: Vec<u8>, then: Then) {
        debug_assert!(!matches!(self.stage, Stage::Answer { .. }), "one answer a request");
        self.stage = Stage::Answer { bytes, sent: 0, then };
        self.deadline = Instant::now() + HTTP_BODY_DEADLINE;
    }

    fn send_answer(&mut self, socket: &TcpStream) -> Result<(), Outcome> {
        let Stage::Answer { bytes, sent, then } = &mut self.stage else { return Ok(()) };
        match send(socket, &bytes[*sent..], SEND_FLAGS).map_err(io::Error::from) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let wait = Wait { interest: Some(Interest::Write), deadline: Some(self.deadline) };
                return Err(Outcome::Wait(wait));
            }
            Err(_) => return Err(Outcome::Gone),
        }
        if *sent < bytes.len() {
            return Ok(());
        }
        match then {
            Then::Close => Err(Outcome::Close),
            Then::Upgrade => Err(Outcome::Upgrade(std::mem::take(&mut self.buffer))),
            Then::NextRequest => {
                self.stage = Stage::Head;
                self.answered += 1;
                let patience = if self.buffer.is_empty() { HTTP_KEEP_ALIVE } else { HTTP_HEAD_DEADLINE };
                self.deadline = Instant::now() + patience;
                Ok(())
            }
        }
    }

    /// Reads what the socket holds, up to a chunk.
    fn fill(&mut self, socket: &TcpStream) -> Result<(), Outcome> {
        let mut chunk = [0; CHUNK_BYTES];
        match recv(socket, &mut chunk, RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((0, _)) => Err(Outcome::Gone),
            Ok((count, _)) => {
                if self.buffer.is_empty() && matches!(self.stage, Stage::Head) {
                    self.deadline = Instant::now() + HTTP_HEAD_DEADLINE;
                }
                self.buffer.extend_from_slice(&chunk[..count]);
                self.taken += count;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Memory for what may come is not kept while nothing does.
                if self.buffer.is_empty() {
                    self.buffer = Vec::new();
                }
                Err(Outcome::Wait(Wait::bytes(Some(self.deadline))))
            }
            Err(_) => Err(Outcome::Gone),
        }
    }
}

/// Tells a client that waits for it to send the body. A socket that does not take these few bytes has answers
/// in it that nobody reads.
fn ask_for_body(socket: &TcpStream) -> Result<(), Outcome> {
    let word = b"HTTP/1.1 100 Continue\r\n\r\n";
    match send(socket, word, SEND_FLAGS) {
        Ok(count) if count == word.len() => Ok(()),
        Ok(_) | Err(_) => Err(Outcome::Gone),
    }
}
