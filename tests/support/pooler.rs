//! A real PgBouncer in front of a PostgreSQL server, for one database server and the time of a test.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::{Cluster, as_user, free_port, give_away, tool};
use super::temp::{PATIENCE, TempDir};

/// What the guarding shell does, which notices when the test ends: `$@` is the command of PgBouncer.
const GUARD: &str = r#""$@" & pooler=$!
read -r words
kill -TERM "$pooler"
wait "$pooler""#;

/// A running PgBouncer; it ends with this.
#[derive(Debug)]
pub(crate) struct Pooler {
    port: u16,
    guard: Child,
    words: Option<ChildStdin>,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one in front of a server: `pool_mode` is `session`, `transaction` or `statement`.
    pub(crate) fn start(cluster: &Cluster, pool_mode: &str) -> Self {
        let (folder, port) = (TempDir::new(), free_port());
        let settings = folder.0.join("pgbouncer.ini");
        // It waits 15 s after a server that was not there unless it is told otherwise.
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\n\
             server_login_retry = 1\n",
            cluster.port()
        );
        fs::write(&settings, text).unwrap();
        give_away(&folder.0);
        let pooler = as_user(&tool("pgbouncer", "pgbouncer"));
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(pooler.get_program()).args(pooler.get_args());
        guard.arg("-q").arg(settings).current_dir("/");
        let mut guard =
            guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let words = guard.stdin.take();
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { port, guard, words, _folder: folder }
    }

    /// A URL of the server behind it, by way of it.
    pub(crate) fn url(&self, cluster: &Cluster, url: &str) -> String {
        url.replace(&format!(":{}/", cluster.port()), &format!(":{}/", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(mut words) = self.words.take() {
            let _ = words.write_all(b"end\n");
        }
        let _ = self.guard.wait();
    }
}
