//! One accepted socket, from its first byte to its file being closed: a value that the readers serve.
//!
//! ```text
//!           upgrade               closed by either side, refused, kicked
//!   Head ─────────────► Open ──────────────────────────────────────────────► Ending ──► dropped
//!    │  the last answer is sent                                                ▲
//!    └─────────────────────────────────────────────────────────────────────────┘
//! ```

use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use super::ending::Ending;
use super::http::{Exchange, Outcome, Router};
use super::peers::Peer;
use super::queries::Asker;
use super::readers::{self, Next, Tick};
use super::sockets::{ConnectionPermit, Phase};
use super::websocket::WebSocket;
use crate::ids::ConnectionId;
use crate::outbox::{Reader, Work};
use crate::protocol::format::Format;

/// A connection, whatever it speaks.
pub(super) struct Connection {
    state: State,
    socket: Arc<TcpStream>,
    /// Left by a turn to its thread.
    work: Option<Work>,
    /// Behind the socket, so that its places are free when its file is closed.
    peer: Peer,
    /// Last, so that it is returned when everything else is gone.
    permit: ConnectionPermit,
}

/// The state a connection is in; boxed, because most connections of a server are silent WebSockets.
#[derive(Debug)]
enum State {
    Head(Box<Exchange>),
    Open(Box<WebSocket>),
    Ending(Box<Ending>),
}

impl Connection {
    /// A socket that was just accepted.
    pub(super) fn new(socket: TcpStream, peer: Peer, permit: ConnectionPermit, router: Arc<Router>) -> Self {
        let state = State::Head(Box::new(Exchange::new(router, &peer)));
        Self { state, socket: Arc::new(socket), work: None, peer, permit }
    }

    /// The moment by which its first request must have come.
    pub(super) fn deadline(&self) -> Instant {
        match &self.state {
            State::Head(exchange) => exchange.deadline(),
            State::Open(_) | State::Ending(_) => Instant::now(),
        }
    }

    fn end(&mut self, ending: Ending) {
        self.peer.release();
        self.state = State::Ending(Box::new(ending));
    }

    fn become_websocket(
        &mut self,
        router: &Router,
        (format, early): (Format, Vec<u8>),
        reader: &Arc<dyn Reader>,
    ) -> Option<()> {
        let (id, socket) = (self.permit.id(), self.socket.clone());
        // An error says that the client is gone already.
        let outbox = router.node().outbox_for_socket(id, format, socket, Some(reader.clone())).ok()?;
        let (node, rules, queries) = (router.node(), router.client_rules(), router.queries());
        let origin = rules.rates.somebody(self.peer.address(), id);
        self.state = State::Open(Box::new(WebSocket::new(outbox, early, node, rules, queries, origin)));
        Some(())
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("state", &self.state).finish_non_exhaustive()
    }
}

impl readers::Connection for Connection {
    fn id(&self) -> ConnectionId {
        self.permit.id()
    }

    fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    fn turn(&mut self, reader: &Arc<dyn Reader>) -> Next {
        let phase = self.permit.phase();
        if phase == Phase::CutOff {
            return Next::End;
        }
        let asker = Asker { id: self.permit.id(), reader: Some(reader) };
        loop {
            let (peer, stopping) = (&mut self.peer, phase == Phase::Stopping);
            match &mut self.state {
                State::Head(exchange) => match exchange.turn(&self.socket, peer, asker, stopping) {
                    Outcome::Again => return Next::Again,
                    Outcome::Wait(wait) => return Next::Wait(wait),
                    Outcome::Gone => return Next::End,
                    Outcome::Close => self.end(Ending::of_http(&self.socket)),
                    Outcome::Upgrade(format, early) => {
                        let router = exchange.router().clone();
                        if self.become_websocket(&router, (format, early), reader).is_none() {
                            return Next::End;
                        }
                    }
                },
                State::Open(websocket) => {
                    let next = websocket.turn(peer, stopping);
                    self.work = websocket.take_work();
                    if let Some(next) = next {
                        return next;
                    }
                    let ending = websocket.end();
                    self.end(ending);
                }
                State::Ending(ending) => return ending.turn(&self.socket),
            }
        }
    }

    fn take_work(&mut self) -> Option<Work> {
        self.work.take()
    }

    fn tick(&mut self, now: Instant) -> Tick {
        let deadline = match &mut self.state {
            State::Open(websocket) => return websocket.tick(now),
            State::Head(exchange) => exchange.deadline(),
            State::Ending(ending) => ending.deadline(),
        };
        if deadline <= now { Tick::Turn(None) } else { Tick::Until(Some(deadline)) }
    }
}
