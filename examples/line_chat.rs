//! A line chat over TCP, bridged into a room: what somebody types into `nc 127.0.0.1 7000` is a message, and every
//! message of the room is a line to everybody.
//!
//! ```sh
//! cargo run --example line_chat -- 127.0.0.1:7000 chat.db
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use roomcast::{Channel, Config, Message, Node, Payload, User};

/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().ok_or("name an address")?)?;
    let mut config = Config::default();
    config.database.url = format!("sqlite:{}", arguments.next().ok_or("name a database file")?).parse()?;
    let node = Node::open(&config)?;
    println!("listening on {}", listener.local_addr()?);
    thread::scope(|scope| {
        for socket in listener.incoming() {
            let socket = socket?;
            scope.spawn(|| {
                if let Err(error) = serve(&node, socket) {
                    println!("somebody has gone: {error}");
                }
            });
        }
        Ok(())
    })
}

/// Serves one socket: the first line is a name, every other a message.
fn serve(node: &Node, mut socket: TcpStream) -> Result<(), Box<dyn Error>> {
    let mut lines = BufReader::new(socket.try_clone()?);
    let Some(name) = read_line(&mut lines)? else { return Ok(()) };
    let (user, room) = (User::new(&name)?, Channel::new("lines")?);
    let mut heard = node.subscribe_as(&user, &room, None)?;
    let closer = heard.closer();
    writeln!(socket, "hello {name}")?;
    thread::scope(|scope| {
        let writing = scope.spawn(move || -> io::Result<()> {
            for publication in &mut heard {
                let who = publication.info.as_ref().map_or("somebody", |info| &info.user);
                let text: String = serde_json::from_slice(publication.data.as_bytes()).unwrap_or_default();
                writeln!(socket, "{} {who}: {text}", publication.seq)?;
            }
            Ok(())
        });
        let said = listen(node, &user, &room, &mut lines);
        closer.close();
        let written = writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        said.and(written.map_err(Into::into))
    })
}

fn listen(node: &Node, user: &User, room: &Channel, lines: &mut impl BufRead) -> Result<(), Box<dyn Error>> {
    while let Some(line) = read_line(lines)? {
        node.send(Message::new(room, Payload::of(&line)?).from(user))?;
    }
    Ok(())
}

/// A line without its end; `None` at the end of all.
fn read_line(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let count = io::Read::take(&mut *lines, LINE_BYTES_MAX).read_line(&mut line)?;
    Ok((count > 0).then(|| line.trim_end().to_owned()))
}
