//! A bot in the server: it listens to a room in its own name and answers what begins with `!`.
//!
//! ```sh
//! cargo run --example bot -- 127.0.0.1:8000 chat.db
//! ```
//! and say `{"input": "!time"}` in the room `chat` on the page at <http://127.0.0.1:8000/>.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::SystemTime;

use roomcast::{Channel, Config, Message, Node, Payload, Publication, Server, User};
use serde::Deserialize;
use serde_json::json;

/// What people say in this room.
#[derive(Deserialize)]
struct Said {
    input: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().ok_or("name an address")?.parse()?;
    let mut config = Config { listen, ..Config::default() };
    config.database.url = format!("sqlite:{}", arguments.next().ok_or("name a database file")?).parse()?;
    let server = Server::start(config)?;
    println!("listening on {}", server.local_addr());

    let room = Channel::new("chat")?;
    let bot = User::new("bot")?.with_info(Payload::of(&json!({"name": "Bot"}))?)?;
    let mut heard = server.node().subscribe_as(&bot, &room, None)?;
    for publication in &mut heard {
        answer(server.node(), &bot, &publication)?;
    }
    Ok(())
}

/// Answers a question, once however often it is seen.
fn answer(node: &Node, bot: &User, question: &Publication) -> Result<(), Box<dyn Error>> {
    let is_own = question.info.as_ref().is_some_and(|info| *info.user == *bot.id());
    let Ok(Said { input }) = serde_json::from_slice(question.data.as_bytes()) else { return Ok(()) };
    let answer = match input.strip_prefix('!') {
        Some("time") => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
            format!("{} seconds since 1970", now.as_secs())
        }
        Some(other) => format!("I do not know {other:?}"),
        None => return Ok(()),
    };
    if !is_own {
        let data = Payload::of(&json!({"input": answer}))?;
        let key = format!("answer to {}", question.seq);
        node.send(Message::new(&question.channel, data).from(bot).once(&key))?;
    }
    Ok(())
}
