//! A throw-away PostgreSQL cluster in a temporary directory: started for a test, gone with it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long the server may take to start or to stop.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running (or stopped) PostgreSQL of our own.
#[derive(Debug)]
pub(crate) struct Postgres {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts it.
    ///
    /// # Panics
    /// When PostgreSQL is not installed, with what to do about it.
    pub(crate) fn start() -> Self {
        let programs = find_programs().unwrap_or_else(|| {
            panic!(
                "PostgreSQL's initdb and postgres were found neither in PATH nor in \
                 /usr/lib/postgresql/*/bin. Install them, on Debian: apt-get install postgresql"
            )
        });
        let directory = new_directory();
        let mut cluster = Self { directory, programs, port: free_port(), server: None };
        cluster.initialize();
        cluster.resume();
        cluster
    }

    /// Its port on the loopback address.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A URL of a new, empty database in it.
    pub(crate) fn new_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let status = self
            .program("createdb")
            .args(["-h", "127.0.0.1", "-U", "roomcast"])
            .args(["-p", &self.port.to_string(), &name])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "createdb failed");
        format!("postgres://roomcast@127.0.0.1:{}/{name}", self.port)
    }

    /// Kills the server as a crash would, connections and all.
    pub(crate) fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // The server's children end by themselves when they find it gone; `immediate` tells
            // them at once and leaves the data as a crash does.
            let _ = self
                .program("pg_ctl")
                .args(["stop", "-m", "immediate", "-w", "-s", "-D"])
                .arg(self.directory.join("data"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Starts the server again on the same data and port; returns when it answers.
    pub(crate) fn resume(&mut self) {
        let log = fs::File::create(self.directory.join("log")).unwrap();
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.directory.join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1"])
            .arg("-k")
            .arg(&self.directory)
            .args(["-c", "max_connections=200"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("postgres can be started");
        self.server = Some(server);
        self.await_ready();
    }

    fn await_ready(&mut self) {
        let give_up_at = Instant::now() + DEADLINE;
        loop {
            let ready = self
                .program("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status();
            if ready.is_ok_and(|status| status.success()) {
                return;
            }
            let ended = self.server.as_mut().is_none_or(|server| !matches!(server.try_wait(), Ok(None)));
            assert!(!ended && Instant::now() < give_up_at, "PostgreSQL did not start: {}", self.log());
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn initialize(&self) {
        let output = self
            .program("initdb")
            .args(["-U", "roomcast", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-instructions", "-N"])
            .arg("-D")
            .arg(self.directory.join("data"))
            .output()
            .expect("initdb can be started");
        assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A program of PostgreSQL; as another user when we are root, as whom the server refuses to run.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = match unprivileged() {
            None => Command::new(path),
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command
                    .args([
                        format!("--reuid={user}"),
                        format!("--regid={group}"),
                        "--clear-groups".to_owned(),
                    ])
                    .arg("--")
                    .arg(path);
                command
            }
        };
        command.current_dir(&self.directory).env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where `postgres` and `initdb` are together.
fn find_programs() -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    versions.sort();
    let complete = |directory: &PathBuf| {
        ["postgres", "initdb", "pg_ctl", "pg_isready", "createdb"]
            .iter()
            .all(|name| directory.join(name).exists())
    };
    versions.into_iter().rev().chain(std::env::split_paths(&in_path)).find(complete)
}

/// User and group to run the server as when we are root: `postgres` if there is one, else `nobody`.
fn unprivileged() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").map(|me| me.uid()).unwrap_or(1) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).or(Some((65_534, 65_534)))
}

fn new_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("roomcast-postgres-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(name);
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    give_away(&directory);
    directory
}

fn give_away(directory: &Path) {
    if let Some((user, group)) = unprivileged() {
        chown(directory, Some(user), Some(group)).unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
