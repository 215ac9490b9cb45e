//! The programs of `examples/`, run as they are.

#![allow(clippy::unwrap_used)]
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "shared with the tests of the server"
)]

#[path = "support/temp.rs"]
mod temp;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use temp::{PATIENCE, TempDir};

/// A running example, which ends with this.
struct Example {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        let program = path.parent().unwrap().join("examples").join(name);
        let child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("`cargo test` builds it, and `cargo build --examples` does");
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The address it says it listens on.
    fn address(&mut self) -> String {
        self.line().strip_prefix("listening on ").unwrap().to_owned()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn database(folder: &TempDir) -> String {
    folder.0.join("example.db").display().to_string()
}

#[test]
fn an_order_and_its_message_are_one() {
    let folder = TempDir::new();
    let mut example = Example::start("order_transaction", &[&database(&folder), "tea", "tea", "coffee"]);
    assert_eq!(example.line(), r#"tea: order 1, everybody hears ["tea"]"#);
    assert_eq!(example.line(), "tea: sold out, nobody hears of it");
    assert_eq!(example.line(), r#"coffee: order 2, everybody hears ["coffee"]"#);
    assert!(example.child.wait().unwrap().success());
}

struct Caller(BufReader<TcpStream>);

impl Caller {
    fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

#[test]
fn lines_are_messages_to_everybody() {
    let folder = TempDir::new();
    let mut example = Example::start("line_chat", &["127.0.0.1:0", &database(&folder)]);
    let address = example.address();
    let [mut ann, mut bob] = ["ann", "bob"].map(|name| {
        let mut caller = Caller::connect(&address);
        caller.say(name);
        assert_eq!(caller.hear(), format!("hello {name}"));
        caller
    });
    ann.say("hello");
    assert_eq!((ann.hear(), bob.hear()), ("1 ann: hello".to_owned(), "1 ann: hello".to_owned()));
    bob.say("\"goodbye\"");
    assert_eq!((ann.hear(), bob.hear()), ("2 bob: \"goodbye\"".to_owned(), "2 bob: \"goodbye\"".to_owned()));
    drop(ann);
    bob.say("still here");
    assert_eq!(bob.hear(), "3 bob: still here");
}

#[test]
fn a_bot_answers_in_its_own_name() {
    let folder = TempDir::new();
    let mut example = Example::start("bot", &["127.0.0.1:0", &database(&folder)]);
    let address = example.address();
    let socket = TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{address}/connection/websocket");
    let (mut socket, _) = tungstenite::client(url, socket).unwrap();
    let mut until = |commands: &[&str], wanted: &str| {
        commands.iter().for_each(|command| socket.send((*command).into()).unwrap());
        loop {
            let text = socket.read().unwrap().into_text().unwrap();
            if let Some(line) = text.lines().find(|line| line.contains(wanted)) {
                return line.to_owned();
            }
        }
    };
    let subscribed =
        until(&[r#"{"id":1,"connect":{}}"#, r#"{"id":2,"subscribe":{"channel":"chat"}}"#], r#""id":2"#);
    assert!(!subscribed.contains("error"), "{subscribed}");
    let say =
        |text: &str| format!(r#"{{"id":3,"publish":{{"channel":"chat","data":{{"input":"{text}"}}}}}}"#);
    let answer = until(&[&say("hello"), &say("!what")], "I do not know");
    assert!(answer.contains(r#""user":"bot""#) && answer.contains(r#""offset":3"#), "{answer}");
    assert!(until(&[&say("!time")], "seconds since 1970").contains(r#""offset":5"#));
}
