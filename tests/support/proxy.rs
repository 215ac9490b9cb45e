//! A TCP proxy in front of a PostgreSQL server that can lose a connection in the middle of a commit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

/// What happens to the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum NextCommit {
    /// It passes.
    Passes = 0,
    /// The server never gets it, and the connection is lost.
    IsLost = 1,
    /// The server does it, but the answer is lost with the connection.
    LosesItsAnswer = 2,
}

/// The proxy; its threads end with their connections.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    next_commit: Arc<AtomicU8>,
}

impl Proxy {
    /// Starts a proxy in front of a server on this port of the loopback address.
    pub(crate) fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let next_commit = Arc::new(AtomicU8::new(NextCommit::Passes as u8));
        let shared = Arc::clone(&next_commit);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                let shared = Arc::clone(&shared);
                let (to_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || relay_commands(client, server, &shared));
                thread::spawn(move || relay_answers(from_server, to_client));
            }
        });
        Self { port, next_commit }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Decides about the next COMMIT, once.
    pub(crate) fn next_commit(&self, fate: NextCommit) {
        self.next_commit.store(fate as u8, Ordering::SeqCst);
    }
}

/// Commands are small and a client waits for each answer, so one read is one command.
fn relay_commands(mut client: TcpStream, mut server: TcpStream, next_commit: &AtomicU8) {
    let mut buffer = vec![0; 1024 * 1024];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let command = &buffer[..read];
        if command == b"Q\0\0\0\x0bCOMMIT\0" {
            let fate = next_commit.swap(NextCommit::Passes as u8, Ordering::SeqCst);
            if fate != NextCommit::Passes as u8 {
                // No answer passes any more: the client sees the end of the connection.
                let _ = client.shutdown(Shutdown::Both);
                if fate == NextCommit::LosesItsAnswer as u8 {
                    let _ = server.write_all(command);
                    // The server does what it has read before it notices that we hang up.
                    let _ = server.shutdown(Shutdown::Write);
                } else {
                    let _ = server.shutdown(Shutdown::Both);
                }
                return;
            }
        }
        if server.write_all(command).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn relay_answers(mut server: TcpStream, mut client: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = server.read(&mut buffer) {
        if client.write_all(&buffer[..read]).is_err() {
            // Go on reading, so that the server can finish what it does.
            continue;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
