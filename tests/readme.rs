//! The documents tell the truth: every example of README and of the HTTP API is run
//! against a real server, and what comes back is compared with what the document says.
//!
//! An example is a fenced block after `<!-- test: KIND -->`. What differs from run to run (ids,
//! times) is masked on both sides.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail by panic, as the tests do")]

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the server")]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use diesel::deserialize::{self, FromSql, QueryableByName};
use diesel::row::{Field, NamedRow, Row};
use diesel::sql_types::Text;
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel::{Connection, RunQueryDsl};

use support::TempDir;
use support::websocket::WebSocket;

/// The address documents use.
const DOCUMENTED: &str = "127.0.0.1:8000";

#[test]
fn the_readme_examples_print_what_it_shows() {
    let readme = read("README.md");
    let server = Server::start(&[]);
    for block in examples(&readme, "websocat") {
        server.type_by_hand(&block);
    }
    for block in examples(&readme, "curl") {
        server.run_curl(&block);
    }
    for block in examples(&readme, "sql") {
        server.run_sql(&block);
    }
    assert_eq!(examples(&readme, "js").len() + examples(&readme, "python").len(), 2);
}

#[test]
fn the_http_api_answers_as_its_document_says() {
    let document = read("docs/http-api.md");
    let config = examples(&document, "config").pop().unwrap();
    let server = Server::start_with(&config, &[]);
    let mut carl = server.connect();
    for line in
        [r#"{"id":1,"connect":{"data":{"user":"carl"}}}"#, r#"{"id":2,"subscribe":{"channel":"lobby"}}"#]
    {
        carl.send_text(line);
        let _ = carl.read().unwrap();
    }
    for block in examples(&document, "curl") {
        server.run_curl(&block);
    }
}

#[test]
fn every_api_method_has_its_section() {
    let (code, document) = (read("src/net/api/mod.rs"), read("docs/http-api.md"));
    let methods: Vec<&str> = code
        .lines()
        .filter(|line| line.contains("=>") && line.contains("node, out)"))
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'))
        .map(|(method, _)| method)
        .collect();
    assert!(methods.len() >= 14, "{methods:?}");
    for method in methods {
        assert!(
            document.contains(&format!("\n### {method}\n")),
            "docs/http-api.md tells nothing of {method}"
        );
    }
}

#[test]
fn every_metric_is_documented() {
    let missing = undocumented_metrics(&read("docs/metrics.md"));
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    let without = read("docs/metrics.md").replace("`roomcast_stalled_total`", "");
    assert_eq!(undocumented_metrics(&without), ["roomcast_stalled_total"]);
}

/// The metrics of the code that a document does not name together with their type.
fn undocumented_metrics(document: &str) -> Vec<String> {
    let code = read("src/metrics.rs");
    let (_, declared) = code.split_once("\nmetrics! {\n").unwrap();
    let (declared, _) = declared.split_once("\n}\n").unwrap();
    let mut metrics = declared.lines().filter(|line| !line.trim().starts_with("///"));
    let is_missing = |line: &str| {
        let (name, kind) = line.trim().trim_end_matches(',').split_once(": ").unwrap();
        let (kind, label) = kind.split_once('[').unwrap_or((kind, ""));
        let label = label.trim_end_matches(']').trim_matches('"').replace("\", \"", "` `");
        let (kind, label) = match kind {
            "counter_vec" => ("counter", format!("`{label}`")),
            "gauge_vec" => ("gauge", format!("`{label}`")),
            "seconds" => ("counter", String::new()),
            kind => (kind, String::new()),
        };
        let row = format!("| `roomcast_{name}` | {kind} | {label}");
        (!document.contains(&row)).then(|| format!("roomcast_{name}"))
    };
    metrics.by_ref().filter_map(is_missing).collect()
}

/// The blocks of a document that belong to a kind of test, in order.
fn examples(document: &str, kind: &str) -> Vec<String> {
    let mark = format!("<!-- test: {kind} -->\n```");
    let block = |rest: &str| {
        let (_, body) = rest.split_once('\n').unwrap();
        body.split_once("\n```").unwrap().0.to_owned()
    };
    let blocks: Vec<String> = document.split(&mark).skip(1).map(block).collect();
    assert!(!blocks.is_empty(), "no example of kind {kind}");
    blocks
}

/// Commands of a console block with what each prints.
fn dialogue(block: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command.to_owned(), String::new())),
            None => {
                let (_, output) = steps.last_mut().unwrap();
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    steps
}

/// A text with everything that differs from run to run replaced: ids, times, ages, names of machines and ports.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let is_word = |c: char| c.is_ascii_hexdigit() || c == '-';
    while let Some(first) = rest.chars().next() {
        let run = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if run >= 32 {
            out.push_str("ID");
            rest = &rest[run..];
        } else if digits == 13 {
            out.push_str("TIME");
            rest = &rest[digits..];
        } else if let Some(after) = rest.strip_prefix("\"epoch\":\"") {
            out.push_str("\"epoch\":\"EPOCH");
            rest = after.trim_start_matches(|c: char| c.is_ascii_lowercase());
        } else if let Some(after) = rest.strip_prefix("\"name\":\"") {
            out.push_str("\"name\":\"MACHINE");
            rest = after.trim_start_matches(|c| c != '"');
        } else if let Some((name, after)) = chosen(rest) {
            out.push_str(name);
            out.push_str("CHOSEN");
            rest = after.trim_start_matches(|c| c != '"');
        } else if let Some((name, after)) = measured(rest) {
            out.push_str(name);
            out.push_str("MEASURED");
            rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else {
            let length = if run > 0 { run } else { first.len_utf8() };
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    out.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// The name of a member whose value was chosen by what else went on at that moment, and what follows.
fn chosen(text: &str) -> Option<(&str, &str)> {
    let names = ["\"strategy\":\"", "\"reason\":\""];
    names.iter().find(|name| text.starts_with(**name)).map(|name| text.split_at(name.len()))
}

/// The name of a member whose value is a measurement, and what follows.
fn measured(text: &str) -> Option<(&str, &str)> {
    let names = ["\"uptime\":", "\"rate\":", "\"cost_us\":"];
    names.iter().find(|name| text.starts_with(**name)).map(|name| text.split_at(name.len()))
}

/// A running server and its folder; both are gone with it.
struct Server {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Server {
    fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_with("", variables)
    }

    fn start_with(config: &str, variables: &[(&str, &str)]) -> Self {
        let folder = TempDir::new();
        fs::write(folder.0.join("roomcast.toml"), config).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--config", "roomcast.toml"])
            .envs(variables.iter().copied())
            .current_dir(&folder.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines
            .map(|line| line.trim().to_owned())
            .find_map(|line| Some(line.strip_prefix("address")?.trim().to_owned()))
            .expect("the server prints its address");
        Self { process, address, folder }
    }

    fn connect(&self) -> WebSocket {
        WebSocket::open(self.address.parse().unwrap())
    }

    /// Sends the `>` lines of a block; the `<` lines after each come back, in whatever order.
    fn type_by_hand(&self, block: &str) {
        let mut websocket = self.connect();
        let steps = block.split("> ").filter(|step| !step.trim().is_empty());
        for step in steps {
            let mut lines = step.lines();
            websocket.send_text(lines.next().unwrap());
            let mut expected: Vec<String> =
                lines.map(|line| masked(line.strip_prefix("< ").unwrap())).collect();
            let mut received = Vec::new();
            while received.len() < expected.len() {
                let frame = String::from_utf8(websocket.read().unwrap().payload).unwrap();
                received.extend(frame.lines().map(masked));
            }
            expected.sort();
            received.sort();
            assert_eq!(received, expected, "after {step}");
        }
    }

    fn run_curl(&self, block: &str) {
        for (command, expected) in dialogue(block) {
            assert!(command.starts_with("curl "), "{command}");
            let run = Command::new("sh").args(["-c", &command.replace(DOCUMENTED, &self.address)]).output();
            let output = String::from_utf8(run.unwrap().stdout).unwrap().replace('\r', "");
            // `info` tells the configured address, which here is any free port.
            let output =
                output.replace(&self.address, DOCUMENTED).replace("127.0.0.1:0\"", "127.0.0.1:8000\"");
            assert_eq!(masked(&output), masked(&expected), "{command} (is curl installed?)");
        }
    }

    fn run_sql(&self, block: &str) {
        for (command, expected) in dialogue(block) {
            let sql = command.strip_prefix("sqlite3 roomcast.db \"").and_then(|rest| rest.strip_suffix('"'));
            let mut database =
                SqliteConnection::establish(self.folder.0.join("roomcast.db").to_str().unwrap()).unwrap();
            let rows = load(&mut database, sql.unwrap());
            assert_eq!(rows.join("\n"), expected.trim_end(), "{command}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A row as `sqlite3` prints it: its fields with bars between.
struct Printed(String);

impl QueryableByName<Sqlite> for Printed {
    fn build<'a>(row: &impl NamedRow<'a, Sqlite>) -> deserialize::Result<Self> {
        let mut fields = Vec::new();
        for number in 0..row.field_count() {
            let field = Row::get(row, number).ok_or("a field is missing")?;
            let text = match field.value() {
                Some(value) => <String as FromSql<Text, Sqlite>>::from_sql(value)?,
                None => String::new(),
            };
            fields.push(text);
        }
        Ok(Self(fields.join("|")))
    }
}

fn load(database: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let rows = diesel::sql_query(sql).load::<Printed>(database);
    let rows = rows.unwrap_or_else(|error| panic!("{error}:\n{sql}"));
    rows.into_iter().map(|row| row.0).collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
