//! A throw-away PostgreSQL: one cluster for all tests of a process, a fresh database for each.
//!
//! A small shell stands between: it stops the database by its id and removes the files as soon as
//! its standard input ends, which it does when the tests end, however they end.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::temp::{PATIENCE, TempDir};

/// What the guarding shell does: `$1` is the folder, the rest the command of the server.
const GUARD: &str = r#"folder=$1; shift
"$@" & server=$!
read -r words
[ "$words" = crash ] && signal=QUIT || signal=INT
kill -$signal "$server"
wait "$server"
[ -n "$words" ] || rm -rf "$folder""#;

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    port: u16,
    running: Option<(Child, ChildStdin)>,
}

/// The cluster that the tests share.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}

impl Cluster {
    pub fn start() -> Self {
        let folder = TempDir::new();
        give_away(&folder.0);
        let data = folder.0.join("data");
        run(as_user(&program("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(data)
            .current_dir("/"));
        let mut cluster = Self { folder, port: free_port(), running: None };
        cluster.run();
        cluster
    }

    /// A fresh database; its URL.
    pub fn database(&self) -> String {
        self.database_with(&[])
    }

    /// A fresh database made with more options of `createdb`; its URL.
    pub fn database_with(&self, options: &[&str]) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        let mut createdb = Command::new(program("createdb"));
        createdb.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        run(createdb.args(options).arg(&name));
        // The default of 5 seconds is too short for a machine that runs many tests beside other work.
        format!("postgres://postgres@127.0.0.1:{port}/{name}?connect_timeout=60")
    }

    /// A fresh database whose files are in this folder, which must be empty; its URL.
    pub fn database_in(&self, folder: &Path) -> String {
        give_away(folder);
        let port = self.port.to_string();
        let mut psql = Command::new(program("psql"));
        psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-c"]);
        run(psql.arg(format!("CREATE TABLESPACE apart LOCATION '{}'", folder.display())));
        self.database_with(&["-D", "apart"])
    }

    /// The port it listens on, also while it is stopped.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server as an operator would; the data stay.
    pub fn stop(&mut self) {
        self.end(b"keep\n");
    }

    /// Stops the server without a checkpoint or a word to its clients; the data stay.
    pub fn crash(&mut self) {
        self.end(b"crash\n");
    }

    /// Keeps a copy of the data, as a replica that follows no further.
    pub fn save(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(self.folder.0.join("saved"));
        run(Command::new("cp").arg("-a").arg(self.data()).arg(self.folder.0.join("saved")));
        self.run();
    }

    /// The server fails, and the copy that was kept takes over for it.
    pub fn go_back(&mut self) {
        self.crash();
        fs::remove_dir_all(self.data()).unwrap();
        run(Command::new("cp").arg("-a").arg(self.folder.0.join("saved")).arg(self.data()));
        self.run();
    }

    /// The server fails, and a copy that has everything takes over for it, on a timeline of its own.
    pub fn promote(&mut self) {
        self.crash();
        let settings = self.data().join("postgresql.auto.conf");
        let mut settings = fs::File::options().append(true).open(settings).unwrap();
        writeln!(settings, "restore_command = 'false'").unwrap();
        run(as_user(Path::new("touch")).arg(self.data().join("recovery.signal")));
        self.run();
    }

    /// A standby that follows this server, with a port of its own.
    pub fn standby(&self) -> Self {
        let folder = TempDir::new();
        give_away(&folder.0);
        let mut standby = Self { folder, port: free_port(), running: None };
        let mut copy = as_user(&program("pg_basebackup"));
        copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        run(copy.arg("-D").arg(standby.data()).current_dir("/"));
        standby.run();
        standby
    }

    /// Makes a server of a standby, whose timeline is another from now on.
    pub fn take_over(&self) {
        run(as_user(&program("pg_ctl"))
            .args(["promote", "-w", "-s", "-D"])
            .arg(self.data())
            .current_dir("/"));
    }

    /// The URL of a database of this server under which `other` is asked next: whichever takes writes is used.
    pub fn or(&self, other: &Self, url: &str) -> String {
        let (own, both) = (format!(":{}/", self.port), format!(":{},127.0.0.1:{}/", self.port, other.port));
        format!("{}&target_session_attrs=read-write", url.replace(&own, &both))
    }

    fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    fn end(&mut self, how: &[u8]) {
        let Some((mut guard, mut words)) = self.running.take() else { return };
        let _ = words.write_all(how);
        drop(words);
        let _ = guard.wait();
    }

    /// Starts the server on the data it has.
    pub fn run(&mut self) {
        let server = as_user(&program("postgres"));
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD, "guard"])
            .arg(&self.folder.0)
            .arg(server.get_program())
            .args(server.get_args());
        guard.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "max_connections=200",
            "lc_messages=C",
        ] {
            guard.args(["-c", setting]);
        }
        guard.env("LC_ALL", "C").current_dir("/");
        let mut guard =
            guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let words = guard.stdin.take().unwrap();
        let lines = BufReader::new(guard.stderr.take().unwrap()).lines().map_while(Result::ok);
        let is_standby = self.data().join("standby.signal").exists();
        await_ready(lines, if is_standby { "ready to accept read" } else { "ready to accept connections" });
        self.running = Some((guard, words));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads the log until it says that the server is `ready`; the rest of it is read in the background, so
/// that the server never waits for a reader.
fn await_ready(mut lines: impl Iterator<Item = String> + Send + 'static, ready: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut log = Vec::new();
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("PostgreSQL does not start:\n{}", log.join("\n")));
        if line.contains(ready) {
            break;
        }
        assert!(Instant::now() < deadline, "PostgreSQL does not start:\n{}", log.join("\n"));
        log.push(line);
    }
    std::thread::spawn(move || lines.for_each(drop));
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root; then this is the user it runs as.
fn other_user() -> Option<&'static str> {
    let output = Command::new("id").arg("-u").output().unwrap();
    if output.stdout != b"0\n" {
        return None;
    }
    let exists = Command::new("id").arg("postgres").stderr(Stdio::null()).stdout(Stdio::null()).status();
    Some(if exists.is_ok_and(|status| status.success()) { "postgres" } else { "nobody" })
}

/// Gives a folder, and what is in it, to the user that may run PostgreSQL.
pub fn give_away(folder: &Path) {
    if let Some(user) = other_user() {
        run(Command::new("chown").arg("-R").arg(user).arg(folder));
    }
}

/// A command under the user that may run PostgreSQL. It keeps its process id.
pub fn as_user(program: &Path) -> Command {
    let Some(user) = other_user() else { return Command::new(program) };
    let group = Command::new("id").args(["-g", user]).output().unwrap().stdout;
    let group = String::from_utf8(group).unwrap();
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={}", group.trim())).arg("--clear-groups");
    command.arg(program);
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn program(name: &str) -> PathBuf {
    tool(name, "postgresql")
}

/// A program of PostgreSQL, of the newest version in the place Debian puts it, or of another package, from the path.
pub fn tool(name: &str, package: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let newest = found.pop().map(|(_, path)| path);
    newest
        .or_else(|| {
            let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
            folders.map(|folder| folder.join(name)).find(|file| file.exists())
        })
        .unwrap_or_else(|| panic!("{name} is missing; these tests need: apt-get install {package}"))
}
