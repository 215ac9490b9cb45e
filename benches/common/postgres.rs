//! A throw-away PostgreSQL that keeps its promise: unlike the one of the tests it really waits for
//! the disk, since a commit that does not is no measure of one that does.
//!
//! A small shell stands between, as in the tests: it stops the database by its id and removes the
//! files when its standard input ends, which it does when the bench ends, however it ends.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cpu;
use super::temp::TempDir;

/// What to do about a machine without PostgreSQL.
const MISSING: &str = "is missing: this bench needs PostgreSQL 14 or later (Debian: apt-get install \
    postgresql; elsewhere put its programs on the path)";

/// `$1` is the folder, the rest the command of the server.
const GUARD: &str = r#"folder=$1; shift
"$@" & server=$!
read -r _
kill -INT "$server"
wait "$server"
rm -rf "$folder""#;

const SETTINGS: &[&str] = &[
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=on",
    "synchronous_commit=on",
    "max_connections=100",
    "lc_messages=C",
];

/// A running server; it ends with this value.
#[derive(Debug)]
pub(crate) struct Cluster {
    port: u16,
    guard: Child,
    /// The guard waits for its end.
    words: Option<ChildStdin>,
    folder: TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new();
        let account = Account::find();
        account.own(&folder);
        let data = folder.0.join("data");
        let mut initdb = account.command(tool("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]).arg(&data);
        run(&mut initdb);

        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = account.command(tool("postgres"));
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(&folder.0).arg(server.get_program()).args(server.get_args());
        guard.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        guard.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        guard.env("LC_ALL", "C").current_dir("/");
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut guard = guard.spawn().unwrap();
        await_ready(&mut guard);
        Self { port, words: guard.stdin.take(), guard, folder }
    }

    /// Processor time of the server and of those of its processes that have ended, such as the ones of
    /// connections that were closed.
    pub(crate) fn used(&self) -> Duration {
        let pid = fs::read_to_string(self.folder.0.join("data/postmaster.pid")).unwrap();
        cpu::of_family(pid.lines().next().unwrap())
    }

    /// A fresh database; its URL.
    pub(crate) fn database(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("bench{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        run(Command::new(tool("createdb")).args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", &name]));
        format!("postgres://postgres@127.0.0.1:{port}/{name}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.words = None;
        let _ = self.guard.wait();
    }
}

/// Reads the log until connections are accepted, and the rest of it in the background.
fn await_ready(guard: &mut Child) {
    let mut lines = BufReader::new(guard.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut log = Vec::new();
    loop {
        let Some(line) = lines.next() else { panic!("PostgreSQL does not start:\n{}", log.join("\n")) };
        if line.contains("ready to accept connections") {
            break;
        }
        log.push(line);
    }
    std::thread::spawn(move || lines.for_each(drop));
}

/// Who runs the server: it refuses to be run by root.
struct Account {
    /// User and group, when not those of this process.
    other: Option<(&'static str, String)>,
}

impl Account {
    fn find() -> Self {
        if id(&["-u"]).as_deref() != Some("0") {
            return Self { other: None };
        }
        let user = if id(&["postgres"]).is_some() { "postgres" } else { "nobody" };
        let group = id(&["-g", user]).expect("the account has a group");
        Self { other: Some((user, group)) }
    }

    fn own(&self, folder: &TempDir) {
        if let Some((user, _)) = &self.other {
            run(Command::new("chown").arg(user).arg(&folder.0));
        }
    }

    fn command(&self, program: PathBuf) -> Command {
        let mut command = match &self.other {
            None => Command::new(program),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
                command.arg("--clear-groups").arg(program);
                command
            }
        };
        command.current_dir("/");
        command
    }
}

fn id(arguments: &[&str]) -> Option<String> {
    let output = Command::new("id").args(arguments).output().unwrap();
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A program of PostgreSQL: of the newest version in the place Debian puts it, or from the path.
fn tool(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered = |folder: fs::DirEntry| Some((folder.file_name().to_str()?.parse::<u32>().ok()?, folder));
    let newest = versions.filter_map(numbered).max_by_key(|(number, _)| *number);
    let folders = newest.map(|(_, folder)| folder.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = folders.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    places.find(|file| file.exists()).unwrap_or_else(|| panic!("{name} {MISSING}"))
}
