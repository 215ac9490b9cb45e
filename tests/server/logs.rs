//! A log is never worth a message: whatever standard error and standard output are, the service goes on; and no
//! log shows what is nobody's business.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::http;
use crate::support::server::TestServer;
use crate::support::token::{seconds_from_now, token};
use crate::support::{PATIENCE, eventually};

const TEMPORARY: &str = r#"{"error":{"code":100,"message":"internal server error","temporary":true}}"#;
const PUBLISH: &str = r#"{"publish":{"channel":"room","data":1}}"#;
const TRACE: &str = "[api]\nkey = \"key\"\n[client]\ninsecure = true\n[log]\nfilter = \"trace\"\n";

/// A pipe that takes no more byte, and its reader.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn closed_pipe() -> PipeWriter {
    pipe().unwrap().1
}

/// A server that logs everything to `log`.
fn logging_to(log: impl Into<Stdio>) -> TestServer {
    let mut server = TestServer::with(TRACE);
    assert_eq!(server.stop(), Some(0));
    server.run_logging_to(log);
    server
}

/// Everything that a server does and that logs a line, its end included.
fn goes_on(mut server: TestServer) {
    let mut ann = server.connect("ann");
    ann.join("room");
    ann.publish_numbers("room", 1..=1);
    ann.expect_numbers(1..=1);
    assert!(server.api("publish", r#"{"channel":"room","data":2}"#).contains(r#""offset":2"#));
    ann.expect_numbers(2..=2);

    let file = server.folder.0.join("chat.db");
    fs::rename(&file, server.folder.0.join("elsewhere")).unwrap();
    assert_eq!(ann.ask(PUBLISH), TEMPORARY);
    assert_eq!(server.get("/health").status, 503);
    assert!(server.api("publish", r#"{"channel":"room","data":2}"#).contains(r#""code":100"#));
    fs::rename(server.folder.0.join("elsewhere"), &file).unwrap();
    eventually("it works again", || ann.ask(PUBLISH) == r#"{"publish":{}}"#);
    assert_eq!(server.metric("reader_panics_total"), 0);

    crate::support::signal("TERM", server.pid());
    ann.expect_close(3001);
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    let server = logging_to(closed_pipe());
    server.get("/health");
    eventually("lost lines are counted", || server.metric("log_lines_lost_total") > 0);
    goes_on(server);
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let server = logging_to(File::options().write(true).open("/dev/full").unwrap());
    server.get("/health");
    eventually("lost lines are counted", || server.metric("log_lines_lost_total") > 0);
    goes_on(server);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    let (_reader, writer) = full_pipe();
    goes_on(logging_to(writer));
}

#[test]
fn a_log_that_is_read_again_says_what_is_missing() {
    let (mut reader, writer) = full_pipe();
    let server = logging_to(writer);
    let path = format!("/{}", "x".repeat(7000));
    eventually("more is logged than may wait", || {
        assert_eq!(server.get(&path).status, 404);
        server.metric("log_lines_lost_total") > 0
    });
    // To the end, so that the server can write its last lines.
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || {
        let mut chunk = [0; 64 * 1024];
        while let Ok(length @ 1..) = reader.read(&mut chunk) {
            let _ = sender.send(chunk[..length].to_vec());
        }
    });
    let mut read = String::new();
    while !read.contains("log lines were lost") {
        let chunk = chunks.recv_timeout(PATIENCE).expect("the line that says how many were lost");
        read.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    assert!(read.contains("xxxxxxx"), "what waited was not lost");
    goes_on(server);
}

#[test]
fn nobody_has_to_read_what_is_printed() {
    let full = full_pipe();
    let unwritable = [Stdio::from(closed_pipe()), Stdio::from(full.1), full_disk()];
    for stdout in unwritable {
        let folder = crate::support::TempDir::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let server = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(["serve", "--insecure", "--listen", &address.to_string()])
            .current_dir(&folder.0)
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("it serves", || std::net::TcpStream::connect(address).is_ok());
        assert_eq!(http::request(address, "GET", "/health", "", "").status, 200);
        crate::support::signal("TERM", server.id());
        assert_eq!(ended(server), Some(0));
    }
}

/// The exit code of a process that ends soon.
#[track_caller]
fn ended(mut process: Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            process.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn commands_end_whoever_reads_them() {
    let run = |line: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        command.args(line).env_remove("ROOMCAST_CLIENT_TOKEN_HMAC_SECRET");
        ended(command.stdout(stdout).stderr(stderr).spawn().unwrap())
    };
    for line in [&["version"][..], &["check-config"], &["--help"]] {
        assert_eq!(run(line, closed_pipe().into(), Stdio::null()), Some(0), "{line:?}");
    }
    assert_eq!(run(&["version"], full_disk(), full_disk()), Some(1));
    let (_reader, writer) = full_pipe();
    for nowhere in [Stdio::from(closed_pipe()), writer.into(), full_disk()] {
        assert_eq!(run(&["token", "--user=ann"], Stdio::null(), nowhere), Some(1));
    }
}

#[test]
fn no_level_shows_tokens_messages_or_keys() {
    let config = "[log]\nfilter = \"trace,tungstenite=trace,tungstenite::protocol=trace\"\n";
    let mut server = TestServer::secured(config);
    let words = token(&format!(r#"{{"sub":"ann","exp":{}}}"#, seconds_from_now(600)));
    let mut ann = server.open();
    ann.connect(&format!(r#"{{"token":"{words}","data":{{"hidden":"connect data"}}}}"#), "ann");
    ann.join("room");
    ann.publish("room", r#""a hidden message""#);
    ann.next_push();
    ann.ask(r#"{"rpc":{"method":"publish","data":{"channel":"room","data":"hidden","key":"hidden key"}}}"#);
    let refused = token(r#"{"sub":"hidden user","exp":"hidden claim"}"#);
    let mut eve = server.open();
    eve.call(&format!(r#"{{"connect":{{"token":"{refused}"}}}}"#));
    eve.expect_close(3500);
    server.post("/api/publish?api_key=hidden", "X-API-Key: hidden\r\n", "hidden");
    server.api("publish", r#"{"channel":"room","data":"hidden","idempotency_key":"hidden key"}"#);
    let health = server.get("/health?token=hidden");
    assert_eq!(health.status, 200);
    assert_eq!(server.stop(), Some(0));

    let log = server.log();
    assert!(log.contains("a connection token was refused") && log.contains("DEBUG"), "{log}");
    let shown: Vec<_> = log
        .lines()
        .filter(|line| {
            line.contains("hidden")
                || line.contains(&words[..20])
                || line.contains(&refused[30..60])
                || line.contains("only the tests")
        })
        .collect();
    assert_eq!(shown, [] as [&str; 0]);
}
