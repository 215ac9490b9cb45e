//! A socket that speaks HTTP, or nothing yet: requests one by one, until one makes it a WebSocket.
//!
//! Reads and writes what the socket takes now; between two turns it is a buffer, a stage and a deadline. The
//! clock of a head starts with its first byte, so a kept-alive connection may be idle for longer; head, body
//! and answer each have one deadline, which a peer cannot prolong by a byte now and then. What it keeps between
//! two turns counts as bytes of a stranger, unless the request showed the key of the API.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::bad_request::BadRequest;
use super::body::Body;
use super::message::{Head, Response, parse};
use super::origin::Scheme;
use super::routes::{Route, Router};
use crate::limits::{
    HTTP_BODY_DEADLINE, HTTP_HEAD_DEADLINE, HTTP_KEEP_ALIVE, HTTP_REQUESTS_PER_TURN_MAX,
    HTTP_RESERVE_HEAD_DEADLINE, QUERY_ANSWER_MAX, TURN_BYTES_MAX,
};
use crate::net::peers::{ClientAddress, Peer, ProxyHeader, Refusal};
use crate::net::queries::{Asker, NoSlot, Place, Slot};
use crate::net::readers::{Interest, Wait};
use crate::protocol::format::Format;
use crate::sync::deadline::Deadline;

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
    /// Bytes that were read and belong to no request yet.
    buffer: Vec<u8>,
    stage: Stage,
    deadline: Instant,
    /// The request under way is here in full and waits until it may query the database.
    place: Option<Box<Place>>,
    /// When it would have queried it.
    asked_at: Option<Instant>,
    /// The request under way showed the key of the API.
    is_keyed: bool,
    /// Requests answered in this turn.
    answered: usize,
    /// Bytes read in this turn.
    taken: usize,
}

/// What comes next on the socket.
#[derive(Debug)]
enum Stage {
    /// The header of the PROXY protocol, ahead of everything else.
    ProxyHeader,
    /// The head of a request, or more of it.
    Head,
    /// The body of a request.
    Body(Box<Request>, Body),
    /// What is left of an answer.
    Answer { bytes: Vec<u8>, sent: usize, then: Then },
}

/// A request without its body.
#[derive(Debug)]
struct Request {
    head: Head,
    /// Who asks; behind a proxy, not the peer of the socket.
    client: ClientAddress,
}

/// The step behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    NextRequest,
    Close,
    Upgrade(Format),
}

/// The next step of the connection after a turn.
#[derive(Debug)]
pub(in crate::net) enum Outcome {
    /// Another turn, after those of others.
    Again,
    /// A turn when the socket is ready or the time is over.
    Wait(Wait),
    /// The socket is a WebSocket for messages of this format; these bytes came behind the request.
    Upgrade(Format, Vec<u8>),
    /// The last answer is sent, and the client is to see it.
    Close,
    /// The client left, or was too slow for an answer.
    Gone,
}

impl Exchange {
    /// The HTTP side of a socket that was just accepted.
    pub(in crate::net) fn new(router: Arc<Router>, peer: &Peer) -> Self {
        Self {
            router,
            buffer: Vec::new(),
            stage: if peer.expects_proxy_header() { Stage::ProxyHeader } else { Stage::Head },
            deadline: Instant::now() + head_patience(peer),
            place: None,
            asked_at: None,
            is_keyed: false,
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
    pub(in crate::net) fn turn(
        &mut self,
        socket: &TcpStream,
        peer: &mut Peer,
        asker: Asker<'_>,
        stopping: bool,
    ) -> Outcome {
        (self.answered, self.taken) = (0, 0);
        loop {
            let step = match &self.stage {
                Stage::ProxyHeader | Stage::Head | Stage::Body(..) if stopping => Err(Outcome::Gone),
                Stage::ProxyHeader => self.read_proxy_header(socket, peer),
                Stage::Head => self.read_head(socket, peer),
                Stage::Body(..) => self.read_body(socket, peer, asker),
                Stage::Answer { .. } => self.send_answer(socket, peer),
            };
            let pause = match step {
                Ok(()) if !self.is_turn_full() => continue,
                Ok(()) => Outcome::Again,
                // What came in time is taken, however late this turn is.
                Err(Outcome::Wait(_)) if self.deadline <= Instant::now() => match self.on_deadline() {
                    true => continue,
                    false => return Outcome::Gone,
                },
                Err(Outcome::Wait(wait)) => Outcome::Wait(wait),
                Err(end) => return end,
            };
            match self.hold(peer) {
                Ok(()) => return pause,
                Err(refusal) if !matches!(self.stage, Stage::Answer { .. }) => self.refuse_peer(refusal),
                Err(_) => return Outcome::Gone,
            }
        }
    }

    fn is_turn_full(&self) -> bool {
        self.answered >= HTTP_REQUESTS_PER_TURN_MAX || self.taken >= TURN_BYTES_MAX
    }

    /// Counts what is kept until the next turn.
    fn hold(&self, peer: &mut Peer) -> Result<(), Refusal> {
        if self.is_keyed {
            return Ok(());
        }
        let stage = match &self.stage {
            Stage::Answer { bytes, .. } => bytes.capacity(),
            Stage::Body(_, body) => body.held_bytes(),
            Stage::ProxyHeader | Stage::Head => 0,
        };
        peer.hold(self.buffer.capacity() + stage, Instant::now())
    }

    /// A client that was too slow with a request is told so. False when there is nothing to tell, or it is
    /// too slow even for the answer.
    fn on_deadline(&mut self) -> bool {
        match &self.stage {
            Stage::ProxyHeader | Stage::Answer { .. } => return false,
            // It is told by the next step.
            Stage::Body(..) if self.place.is_some() => return true,
            Stage::Head if self.buffer.is_empty() => return false,
            Stage::Head | Stage::Body(..) => {}
        }
        self.refuse(&Response::text(408, "the request took too long"));
        true
    }

    fn read_proxy_header(&mut self, socket: &TcpStream, peer: &mut Peer) -> Result<(), Outcome> {
        match ProxyHeader::parse(&self.buffer) {
            ProxyHeader::NeedMore => self.fill(socket, peer),
            ProxyHeader::Bad => {
                peer.bad_proxy_header();
                Err(Outcome::Gone)
            }
            ProxyHeader::Whole { consumed, source } => {
                let now = Instant::now();
                self.buffer.drain(..consumed);
                self.stage = Stage::Head;
                self.deadline = now + head_patience(peer);
                if let Err(refusal) = peer.proxy_header(source, now) {
                    self.refuse_peer(refusal);
                }
                Ok(())
            }
        }
    }

    fn read_head(&mut self, socket: &TcpStream, peer: &mut Peer) -> Result<(), Outcome> {
        match parse(&self.buffer) {
            Ok(Some((head, length))) => {
                debug_assert!(length <= self.buffer.len(), "a head is a part of what was read");
                self.buffer.drain(..length);
                let client = peer.client_of_request(head.lines("x-forwarded-for"), head.lines("forwarded"));
                self.on_request(socket, peer, Request { head, client })
            }
            Ok(None) => self.fill(socket, peer),
            Err(BadRequest(status, text)) => {
                self.refuse(&Response::text(status, text));
                Ok(())
            }
        }
    }

    fn on_request(&mut self, socket: &TcpStream, peer: &mut Peer, request: Request) -> Result<(), Outcome> {
        let schemes = || Scheme::forwarded(request.head.lines("x-forwarded-proto"));
        let scheme = if peer.is_trusted_proxy() { schemes() } else { None };
        match self.router.route(&request.head, request.client, scheme) {
            Route::Upgrade(format, answer) => match peer.upgrade(request.client, Instant::now()) {
                Ok(()) => {
                    tracing::debug!(client = %request.client.ip(), "a WebSocket");
                    self.answer(answer.into_bytes(), Then::Upgrade(format));
                }
                Err(refusal) => self.answer_to(&request, &Response::refusal(refusal), false),
            },
            Route::Refuse(response) => self.answer_to(&request, &response, false),
            Route::Respond { body, is_keyed } => {
                self.is_keyed = is_keyed;
                if is_keyed {
                    peer.known();
                }
                if !body.is_empty() && request.head.expects_continue() {
                    ask_for_body(socket)?;
                }
                self.stage = Stage::Body(Box::new(request), body);
                self.deadline = Instant::now() + HTTP_BODY_DEADLINE;
            }
        }
        Ok(())
    }

    fn read_body(&mut self, socket: &TcpStream, peer: &mut Peer, asker: Asker<'_>) -> Result<(), Outcome> {
        let Stage::Body(request, mut body) = std::mem::replace(&mut self.stage, Stage::Head) else {
            return Ok(());
        };
        match body.read(&mut self.buffer) {
            Ok(true) => {}
            Ok(false) => {
                self.stage = Stage::Body(request, body);
                return self.fill(socket, peer);
            }
            Err(BadRequest(status, text)) => {
                self.refuse(&Response::text(status, text));
                return Ok(());
            }
        }
        match self.slot(&request, asker) {
            Ok(_slot) => {
                let content = body.take(&mut self.buffer);
                self.respond(peer, &request, &content);
            }
            Err(NoSlot::TooLate | NoSlot::TooMany) => {
                body.take(&mut self.buffer);
                let response = self.router.respond_too_late(&request.head);
                self.answer_to(&request, &response, request.head.keep_alive());
            }
            Err(NoSlot::Wait) => {
                self.stage = Stage::Body(request, body);
                return Err(Outcome::Wait(Wait::wake(Some(self.deadline))));
            }
        }
        Ok(())
    }

    /// The slot that a request needs, if it queries the database.
    fn slot(&mut self, request: &Request, asker: Asker<'_>) -> Result<Option<(Slot, Deadline)>, NoSlot> {
        let Some(kind) = self.router.query(&request.head) else { return Ok(None) };
        // A backend acts for many users, so its connections are not one in line.
        let who = self.router.client_rules().rates.connection(asker.id);
        let since = *self.asked_at.get_or_insert_with(Instant::now);
        let slot = self.router.queries().ask(kind, &mut self.place, (who, asker), since);
        match &self.place {
            Some(place) => self.deadline = place.deadline(),
            None => self.asked_at = None,
        }
        slot.map(|slot| Some((slot, Deadline::set(since + QUERY_ANSWER_MAX))))
    }

    fn respond(&mut self, peer: &mut Peer, request: &Request, body: &[u8]) {
        let response = self.router.respond(&request.head, body);
        if response.status < 400 {
            peer.known();
        }
        // A place of the reserve is for one request, then for the next socket.
        self.answer_to(request, &response, request.head.keep_alive() && !peer.is_in_reserve());
    }

    fn answer_to(&mut self, request: &Request, response: &Response, keep_alive: bool) {
        let (Request { head, client }, status) = (request, response.status);
        tracing::debug!(client = %client.ip(), method = head.method, path = head.path, status, "http");
        self.router.count(status);
        let then = if keep_alive { Then::NextRequest } else { Then::Close };
        self.answer(response.encode(keep_alive, head.method == "HEAD"), then);
    }

    /// Tells a peer that a limit was reached.
    fn refuse_peer(&mut self, refusal: Refusal) {
        self.buffer = Vec::new();
        self.refuse(&Response::refusal(refusal));
    }

    /// Ends the connection with this answer.
    fn refuse(&mut self, response: &Response) {
        self.router.count(response.status);
        self.answer(response.encode(false, false), Then::Close);
    }

    fn answer(&mut self, bytes: Vec<u8>, then: Then) {
        debug_assert!(!matches!(self.stage, Stage::Answer { .. }), "one answer a request");
        self.place = None;
        self.stage = Stage::Answer { bytes, sent: 0, then };
        self.deadline = Instant::now() + HTTP_BODY_DEADLINE;
    }

    fn send_answer(&mut self, socket: &TcpStream, peer: &Peer) -> Result<(), Outcome> {
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
            Then::Upgrade(format) => Err(Outcome::Upgrade(*format, std::mem::take(&mut self.buffer))),
            Then::NextRequest => {
                self.stage = Stage::Head;
                self.is_keyed = false;
                self.answered += 1;
                let patience = if self.buffer.is_empty() { HTTP_KEEP_ALIVE } else { head_patience(peer) };
                self.deadline = Instant::now() + patience;
                Ok(())
            }
        }
    }

    /// Lets the buffer grow as it does, but for a body to no more than its length: its capacity is counted.
    fn make_space(&mut self, count: usize) {
        let length = self.buffer.len();
        if let Stage::Body(_, Body::Length(body_bytes)) = self.stage
            && self.buffer.capacity() < length + count
        {
            self.buffer.reserve_exact(length.min(body_bytes.saturating_sub(length)).max(count));
        }
    }

    /// Reads what the socket holds, up to a chunk.
    fn fill(&mut self, socket: &TcpStream, peer: &Peer) -> Result<(), Outcome> {
        let mut chunk = [0; CHUNK_BYTES];
        match recv(socket, &mut chunk, RecvFlags::DONTWAIT).map_err(io::Error::from) {
            Ok((0, _)) => Err(Outcome::Gone),
            Ok((count, _)) => {
                if self.buffer.is_empty() && matches!(self.stage, Stage::Head) {
                    self.deadline = Instant::now() + head_patience(peer);
                }
                self.make_space(count);
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

/// Time that a peer has for the head of a request.
fn head_patience(peer: &Peer) -> Duration {
    if peer.is_in_reserve() { HTTP_RESERVE_HEAD_DEADLINE } else { HTTP_HEAD_DEADLINE }
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

#[cfg(test)]
#[cfg(not(feature = "model"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::ids::ConnectionId;
    use crate::net::peers::Peers;
    use crate::net::queries::Kind;
    use crate::node::tests::rig::{Backend, Rig};

    /// What comes of a socket that had a turn when `early` had come, and the next when the deadline had passed and
    /// `unseen` had come: the outcome, and the answer.
    fn late_turn(early: &[u8], unseen: &[u8]) -> (Outcome, String) {
        let rig = Rig::new(Backend::Sqlite, "");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let peers = Peers::new(&rig.config.client, 1, rig.handle().metrics().clone());
        let mut peer = peers.accept(address.ip(), Instant::now()).unwrap();
        let mut exchange = Exchange::new(Arc::new(Router::new(&rig.config, rig.handle().clone())), &peer);
        let mut turn_after = |bytes: &[u8], exchange: &mut Exchange| {
            client.write_all(bytes).unwrap();
            if !bytes.is_empty() {
                // They have arrived.
                socket.peek(&mut [0]).unwrap();
            }
            exchange.turn(&socket, &mut peer, Asker { id: ConnectionId(1), reader: None }, false)
        };
        assert!(matches!(turn_after(early, &mut exchange), Outcome::Wait(_)));
        exchange.deadline = Instant::now();
        let outcome = turn_after(unseen, &mut exchange);
        drop(socket);
        let mut answer = String::new();
        // A reset says that nothing more comes.
        let _ = client.read_to_string(&mut answer);
        (outcome, answer)
    }

    #[test]
    fn a_request_that_came_in_time_is_answered_in_a_late_turn() {
        let (outcome, answer) = late_turn(b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(matches!(outcome, Outcome::Wait(_)), "{outcome:?}");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (_, answer) = late_turn(b"GET /health HTTP", b"/1.1\r\nHost: localhost\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[test]
    fn half_a_request_is_told_when_the_time_is_over() {
        let (outcome, answer) = late_turn(b"GET /health", b" HT");
        assert!(matches!(outcome, Outcome::Close), "{outcome:?}");
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let (outcome, answer) = late_turn(b"", b"");
        assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
        assert_eq!(answer, "");
    }

    #[test]
    fn a_request_that_asks_the_database_waits_for_others_queries() {
        let rig = Rig::new(Backend::Sqlite, "");
        let router = Arc::new(Router::new(&rig.config, rig.handle().clone()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, address) = listener.accept().unwrap();
        let peers = Peers::new(&rig.config.client, 1, rig.handle().metrics().clone());
        let mut peer = peers.accept(address.ip(), Instant::now()).unwrap();
        let mut exchange = Exchange::new(router.clone(), &peer);
        let mut turn = |exchange: &mut Exchange| {
            exchange.turn(&socket, &mut peer, Asker { id: ConnectionId(1), reader: None }, false)
        };
        let answer = || {
            let mut answer = vec![0; 4096];
            let count = (&client).read(&mut answer).unwrap();
            String::from_utf8(answer[..count].to_vec()).unwrap()
        };
        let params = r#"{"channel":"room"}"#;
        let request = |method| {
            format!(
                "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{params}",
                params.len()
            )
        };
        let send = |text: String| {
            (&client).write_all(text.as_bytes()).unwrap();
            socket.peek(&mut [0]).unwrap();
        };
        let slots: Vec<_> = std::iter::from_fn(|| router.queries().ask_once(Kind::Read)).collect();
        send(request("presence") + &request("history"));
        for _ in 0..2 {
            let outcome = turn(&mut exchange);
            assert!(
                matches!(outcome, Outcome::Wait(Wait { interest: None, deadline: Some(_) })),
                "{outcome:?}"
            );
        }
        assert!(answer().contains(r#"{"result":{"presence":{}}}"#), "others are answered");
        exchange.place.as_mut().unwrap().expire();
        exchange.deadline = Instant::now();
        assert!(matches!(turn(&mut exchange), Outcome::Wait(Wait { interest: Some(_), .. })));
        let refusal = answer();
        assert!(refusal.contains(r#"{"error":{"code":100,"#), "{refusal}");
        send(request("history"));
        assert!(matches!(turn(&mut exchange), Outcome::Wait(Wait { interest: None, .. })));
        drop(slots);
        turn(&mut exchange);
        let history = answer();
        assert!(history.contains(r#"{"result":{"publications":[]"#), "{history}");
        assert!(exchange.place.is_none());
    }
}
