//! A server of the load generator's own, for the time of a run.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A server that was started for a run and ends with it, with the folder of its database.
#[derive(Debug)]
pub(crate) struct Spawned {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Spawned {
    /// Starts `program serve` on a free port of this machine, on a database of its own unless one is named.
    ///
    /// # Errors
    /// When it cannot be started or does not say where it listens.
    pub(crate) fn start(program: &Path, database: Option<&str>, extra: &[String]) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("roomcast-bench-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&folder)?;
        let own = format!("sqlite:{}", folder.join("bench.db").display());
        let child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--database", database.unwrap_or(&own)])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut spawned = Self { child, folder, address: nowhere };
        spawned.address = spawned.listening_address()?;
        Ok(spawned)
    }

    fn listening_address(&mut self) -> io::Result<SocketAddr> {
        use std::io::{BufRead, BufReader};
        let silent = || io::Error::other("the server did not start; its output is above");
        let output = self.child.stdout.take().ok_or_else(silent)?;
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.trim().strip_prefix("address")?.trim().parse().ok());
        // The rest is read for as long as the server lives, so that it never waits for its own output.
        std::thread::spawn(move || lines.for_each(drop));
        address.ok_or_else(silent)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let asked = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        if !matches!(asked, Some(Ok(()))) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
