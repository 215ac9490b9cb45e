//! A pooler in front of a PostgreSQL server, as PgBouncer is with `pool_mode = transaction`: its clients share one
//! connection, each for a transaction at a time. Knows only what the start of a program needs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// What all clients share.
struct Shared {
    server: Mutex<TcpStream>,
    /// What the server said when it was connected to.
    welcome: OnceLock<Vec<u8>>,
}

/// Starts a pooler in front of a server on this port of the loopback address; its own port.
pub(crate) fn start(server_port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Mutex::new(TcpStream::connect(("127.0.0.1", server_port)).unwrap());
    let shared = Arc::new(Shared { server, welcome: OnceLock::new() });
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = shared.clone();
            thread::spawn(move || serve(client, &shared));
        }
    });
    port
}

/// Commands are small and a client waits for each answer, so one read is one command.
fn serve(mut client: TcpStream, shared: &Shared) {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_welcome = false;
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        let command = &buffer[..read];
        let is_encryption_request = !is_welcome && read == 8;
        let answer = if is_encryption_request {
            b"N".to_vec()
        } else if is_welcome {
            ask(&mut shared.server.lock().unwrap(), command)
        } else {
            is_welcome = true;
            shared.welcome.get_or_init(|| ask(&mut shared.server.lock().unwrap(), command)).clone()
        };
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}

/// The server's messages up to the one that says that it is ready.
fn ask(server: &mut TcpStream, command: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // The goodbye of a client is not the server's.
    if command.first() == Some(&b'X') {
        return answer;
    }
    server.write_all(command).unwrap();
    loop {
        let mut head = [0; 5];
        server.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        server.read_exact(&mut body).unwrap();
        answer.extend_from_slice(&head);
        answer.extend_from_slice(&body);
        if head[0] == b'Z' {
            return answer;
        }
    }
}
