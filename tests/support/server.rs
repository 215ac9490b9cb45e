//! The real server as its own process.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use diesel::Connection;
use diesel::connection::SimpleConnection;

use super::client::Client;
use super::http::{self, Answer};
use super::token::SECRET;
use super::{PATIENCE, TempDir, postgres, signal};

/// Where a server keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// The namespaces of every test server. The default one pushes no joins, so that tests about
/// something else need not read them.
const NAMESPACES: &str = r#"
shutdown_grace = "2s"
[default_namespace]
join_leave = false
publish = "everyone"
read_presence = "everyone"
read_history = "everyone"
[namespace.talk]
[namespace.typing]
persist = false
join_leave = false
[namespace.last2]
history_size = 2
join_leave = false
[namespace.made]
auto_create = false
[namespace.news]
publish = "nobody"
join_leave = false
"#;

/// Names by the client ids that the server gave, so that expected texts can be written down.
pub type Names = Arc<Mutex<HashMap<String, String>>>;

/// A running server; it ends with the test.
#[derive(Debug)]
pub struct TestServer {
    pub address: SocketAddr,
    pub folder: TempDir,
    pub names: Names,
    /// Its clients do.
    pub speaks_protobuf: bool,
    database: String,
    /// Where strace notes what the process asks of the kernel.
    record: Option<PathBuf>,
    child: Option<Child>,
}

impl TestServer {
    /// A server that lets everybody in, on SQLite.
    pub fn start() -> Self {
        Self::with("")
    }

    /// The same with more configuration, which may begin with settings outside any table.
    pub fn with(extras: &str) -> Self {
        Self::on(Backend::Sqlite, extras)
    }

    /// A server that demands tokens; `extras` come first and may go on with the table `client`.
    pub fn secured(extras: &str) -> Self {
        Self::with(&format!("[api]\nkey = \"key\"\n[client]\ntoken_hmac_secret = \"{SECRET}\"\n{extras}"))
    }

    /// A server on either database.
    pub fn on(backend: Backend, extras: &str) -> Self {
        let folder = TempDir::new();
        let database = match backend {
            Backend::Sqlite => format!("sqlite:{}", folder.0.join("chat.db").display()),
            Backend::Postgres => postgres::shared().database(),
        };
        Self::at(database, folder, extras)
    }

    /// A server on a database of the test's own. Keys in `extras` before its first table are those of the
    /// server itself.
    pub fn at(database: String, folder: TempDir, extras: &str) -> Self {
        let mut server = Self::prepare(database, folder, extras);
        server.run();
        server
    }

    /// The same under strace, which writes what is done with files and sockets into `record`.
    pub fn recorded(database: String, folder: TempDir, extras: &str, record: PathBuf) -> Self {
        let mut server = Self::prepare(database, folder, extras);
        server.record = Some(record);
        server.run();
        server
    }

    fn prepare(database: String, folder: TempDir, extras: &str) -> Self {
        let (keys, tables) = extras.split_at(extras.find('[').unwrap_or(extras.len()));
        fs::write(folder.0.join("roomcast.toml"), format!("{keys}{NAMESPACES}{tables}")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            address,
            folder,
            names: Names::default(),
            speaks_protobuf: false,
            database,
            record: None,
            child: None,
        }
    }

    fn command(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_roomcast");
        let Some(record) = &self.record else {
            // A test run under nohup hands on that SIGHUP is ignored; a server must not live on for that reason.
            let mut command = Command::new("env");
            command.args(["--default-signal=HUP", program]);
            return command;
        };
        let mut command = Command::new("strace");
        // -D keeps the server this process's own child. Strings are not cut short and wholly in hexadecimal.
        command.args(["-D", "-f", "-y", "-xx", "-s", "4194304", "-o"]).arg(record);
        command.args([
            "-e",
            "trace=write,pwrite64,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,sendto,sendmsg",
        ]);
        command.arg(program);
        command
    }

    /// Starts the process on what is already in its database.
    pub fn run(&mut self) {
        let log = File::options().create(true).append(true).open(self.folder.0.join("log")).unwrap();
        self.run_logging_to(log);
    }

    /// The same with another standard error than the file that is the log of the tests.
    pub fn run_logging_to(&mut self, log: impl Into<Stdio>) {
        let mut command = self.command();
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROOMCAST_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--config").arg(self.folder.0.join("roomcast.toml"));
        command.args(["--listen", "127.0.0.1:0", "--database", &self.database]).current_dir(&self.folder.0);
        let spawned = command.stdout(Stdio::piped()).stderr(log).stdin(Stdio::null()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        self.child = Some(child);
        // By a thread, because a server that waits for something may print nothing and not end.
        let (sender, printed) = mpsc::channel();
        thread::spawn(move || {
            let page =
                lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches('/').to_owned()));
            let _ = sender.send(page);
        });
        let page = printed.recv_timeout(PATIENCE).ok().flatten();
        let page = page.unwrap_or_else(|| panic!("the server does not start:\n{}", self.log()));
        self.address = page.parse().unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }

    /// Waits for a line of the log that holds this text, which may come after what it tells of; how many there are.
    #[track_caller]
    pub fn logged(&self, text: &str) -> usize {
        let lines = || self.log().lines().filter(|line| line.contains(text)).count();
        super::eventually(&format!("a log line with {text:?}"), || lines() > 0);
        lines()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// Takes the process away as a power cut would.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the process to stop; its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        signal("TERM", self.pid());
        self.wait()
    }

    /// Waits for the process to end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("a running server");
        let mut status = None;
        super::eventually("the server ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// Stops and starts again on the same data.
    pub fn restart(&mut self) {
        assert_eq!(self.stop(), Some(0));
        self.run();
    }

    /// A WebSocket on which nothing was said yet.
    pub fn open(&self) -> Client {
        Client::open(self)
    }

    /// A connected client; the server must take its word for who it is.
    pub fn connect(&self, user: &str) -> Client {
        let mut client = self.open();
        client.connect(&format!(r#"{{"data":{{"user":"{user}"}}}}"#), user);
        client
    }

    /// A connected client with a token of these claims.
    pub fn connect_with(&self, user: &str, claims: &str) -> Client {
        let mut client = self.open();
        client.connect(&format!(r#"{{"token":"{}"}}"#, super::token::token(claims)), user);
        client
    }

    /// Waits until the server has sent so many pings to somebody, one after the other.
    pub fn pass_pings(&self, count: usize) {
        let mut passed = 0;
        while passed < count {
            let mut witness = self.connect("witness");
            witness.receive_until(|witness| passed + witness.pings >= count);
            passed += witness.pings;
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        http::request(self.address, "GET", path, "", "")
    }

    pub fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        http::request(self.address, "POST", path, headers, body)
    }

    /// The answer of an API method, epochs replaced; its status must be 200.
    #[track_caller]
    pub fn api(&self, method: &str, params: &str) -> String {
        let answer = self.post(&format!("/api/{method}"), "X-API-Key: key\r\n", params);
        assert_eq!(answer.status, 200, "{}", answer.body);
        super::client::without_epochs(&self.named(&answer.body))
    }

    /// The epoch of the database, which is in every position.
    pub fn epoch(&self) -> String {
        let answer = self.post("/api/history", "X-API-Key: key\r\n", r#"{"channel":"any"}"#);
        super::client::epoch_in(&answer.body)
    }

    /// Client ids replaced by names.
    pub fn named(&self, text: &str) -> String {
        let names = self.names.lock().unwrap();
        names.iter().fold(text.to_owned(), |text, (id, name)| text.replace(id, name))
    }

    /// The SQLite file, opened beside the server.
    pub fn sqlite(&self) -> diesel::SqliteConnection {
        let file = self.folder.0.join("chat.db");
        let mut connection = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 10000").unwrap();
        connection
    }

    /// Where the server keeps its messages.
    pub fn backend(&self) -> Backend {
        if self.database.starts_with("sqlite:") { Backend::Sqlite } else { Backend::Postgres }
    }

    /// Runs SQL beside the server; it must succeed.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        match self.backend() {
            Backend::Sqlite => self.sqlite().batch_execute(sql).unwrap(),
            Backend::Postgres => {
                diesel::PgConnection::establish(&self.database).unwrap().batch_execute(sql).unwrap();
            }
        }
    }

    /// Keeps the server from writing as long as the value lives.
    pub fn lock_sqlite(&self) -> diesel::SqliteConnection {
        let mut connection = self.sqlite();
        connection.batch_execute("BEGIN IMMEDIATE").unwrap();
        connection
    }

    /// The value of a metric, labels included in the name; 0 when it is not there yet.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("roomcast_{name} ")));
        line.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server ---\n{}", self.log());
        }
    }
}
