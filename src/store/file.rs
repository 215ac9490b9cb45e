//! Notices that a file of a SQLite database was moved, deleted or replaced under a running server.
//!
//! SQLite itself would go on writing into the file that has no name any more, and every message acked since
//! would be lost with the process. That holds for the database, for its write-ahead file (`-wal`), in which
//! the newest commits are, and for the index of that (`-shm`), by which other programs find them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use crate::metrics::Metrics;
use crate::sync::{Mutex, lock};

/// The files of an open database.
pub(super) struct DatabaseFiles {
    database: WatchedFile,
    log: WatchedFile,
    index: WatchedFile,
    /// As long as it is open, SQLite keeps the write-ahead file, whichever other connections are replaced. It
    /// can still read that file when it has no name any more.
    anchor: Mutex<SqliteConnection>,
    /// What was in a write-ahead file that is gone is in the database.
    is_saved: AtomicBool,
    metrics: Arc<Metrics>,
}

/// A file that has to stay where it is.
struct WatchedFile {
    path: PathBuf,
    is: Identity,
}

/// What tells a file from every other on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// What is where a file should be.
enum Found {
    /// The file itself, which has so many bytes.
    Itself(u64),
    /// Nothing, or an empty file: whoever opens the database next makes one.
    Nothing,
    /// Another file.
    Another,
}

impl WatchedFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let (is, _) = look(&path)?;
        Ok(Self { path, is })
    }

    fn find(&self) -> Found {
        match look(&self.path) {
            Ok((found, bytes)) if found == self.is => Found::Itself(bytes),
            Ok((_, bytes)) if bytes > 0 => Found::Another,
            _ => Found::Nothing,
        }
    }

    fn gone(&self) -> String {
        format!("{} was moved or deleted", self.path.display())
    }
}

/// The identity of the file at a path, and its bytes.
///
/// It does not ask for the times of the file, as `fs::metadata` does: since Linux 6.13 a file whose times were asked for
/// gets exact ones by its next write (Documentation/filesystems/multigrain-ts.rst), and each sync after that writes its
/// inode, too. The write-ahead file is looked at before each commit.
#[cfg(target_os = "linux")]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
    use rustix::io::Errno;
    match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::SIZE) {
        Ok(file) => {
            let device = makedev(file.stx_dev_major, file.stx_dev_minor);
            Ok((Identity { device, inode: file.stx_ino }, file.stx_size))
        }
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => look_by_metadata(path),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn look(path: &Path) -> io::Result<(Identity, u64)> {
    look_by_metadata(path)
}

fn look_by_metadata(path: &Path) -> io::Result<(Identity, u64)> {
    let file = fs::metadata(path)?;
    Ok((Identity { device: file.dev(), inode: file.ino() }, file.len()))
}

impl DatabaseFiles {
    /// Watches the files of a database, and keeps them there by `anchor`, a connection to it.
    pub(super) fn watch(
        path: &Path,
        mut anchor: SqliteConnection,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        // The first read opens the other two files.
        anchor.batch_execute("SELECT 1 FROM sqlite_master LIMIT 1").map_err(io::Error::other)?;
        // SQLite puts them beside the file itself, not beside a link to it.
        let path = fs::canonicalize(path)?;
        let beside = |suffix| {
            let mut name = path.clone().into_os_string();
            name.push(suffix);
            WatchedFile::new(name.into())
        };
        let files = Self {
            log: beside("-wal")?,
            index: beside("-shm")?,
            database: WatchedFile::new(path)?,
            anchor: Mutex::new(anchor),
            is_saved: AtomicBool::new(false),
            metrics,
        };
        files.measure();
        Ok(files)
    }

    /// Tells which file is not in its place any more. Messages that are only in a write-ahead file that was
    /// deleted are saved first.
    pub(super) fn check(&self) -> Result<(), String> {
        if !matches!(self.database.find(), Found::Itself(_)) {
            return Err(self.database.gone());
        }
        match self.log.find() {
            Found::Itself(bytes) => self.note_size(bytes),
            Found::Nothing => return Err(self.save()),
            Found::Another => {
                return Err(format!("{} was replaced by another file", self.log.path.display()));
            }
        }
        if !matches!(self.index.find(), Found::Itself(_)) {
            return Err(format!("{}; restart the server", self.index.gone()));
        }
        self.is_saved.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Brings the size of the write-ahead file in the metrics up to date.
    pub(super) fn measure(&self) {
        if let Found::Itself(bytes) = self.log.find() {
            self.note_size(bytes);
        }
    }

    fn note_size(&self, log_bytes: u64) {
        self.metrics.store_wal_bytes.set(i64::try_from(log_bytes).unwrap_or(i64::MAX));
    }

    /// Copies into the database what the write-ahead file held that has no name any more. Returns what there
    /// is to say.
    fn save(&self) -> String {
        let gone = self.log.gone();
        if !self.is_saved.load(Ordering::Relaxed) {
            match copy_log(&mut lock(&self.anchor)) {
                Ok(true) => self.is_saved.store(true, Ordering::Relaxed),
                Ok(false) => return format!("{gone}; its last commits are being read, and saved after that"),
                Err(error) => return format!("{gone}; its last commits cannot be saved: {error}"),
            }
        }
        format!("{gone}; what was acknowledged is saved in the database; restart the server")
    }
}

/// Copies the write-ahead log into the database without waiting for anybody. False when a reader that still
/// needs the old pages kept some from being copied.
fn copy_log(anchor: &mut SqliteConnection) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Copied {
        #[diesel(sql_type = Integer)]
        busy: i32,
        #[diesel(sql_type = Integer)]
        log: i32,
        #[diesel(sql_type = Integer)]
        checkpointed: i32,
    }
    let copied: Copied = diesel::sql_query("PRAGMA wal_checkpoint(PASSIVE)").get_result(anchor)?;
    Ok(copied.busy == 0 && copied.log == copied.checkpointed)
}
