//! Notices that a file of a SQLite database was moved, deleted, replaced or emptied under a running server.
//!
//! SQLite itself would go on writing into the file that has no name any more, and every message acked since
//! would be lost with the process. That holds for the database, for its write-ahead file (`-wal`), in which
//! the newest commits are, and for the index of that (`-shm`), by which other programs find them.
//!
//! A write-ahead file that somebody empties is worse: SQLite goes on behind the end it remembers, leaves a hole before it,
//! and nothing behind a hole is ever read again. A file may be cut for good reasons, too, so SQLite is asked.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use crate::metrics::Metrics;
use crate::sync::{Mutex, lock};

/// Bytes before the first frame of a write-ahead file, and before the page in each frame (fileformat2.html, 4.1).
const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// The first bytes of a write-ahead file; the last bit says in which order its checksums are.
const LOG_MAGIC: u32 = 0x377f_0682;

/// Times that SQLite is asked for the length of the write-ahead file while it changes.
const QUESTIONS_MAX: usize = 8;

/// The files of an open database.
pub(super) struct DatabaseFiles {
    database: WatchedFile,
    log: WatchedFile,
    index: WatchedFile,
    /// The write-ahead file itself, whatever its name is now.
    log_file: File,
    /// Its bytes when it was last found whole.
    log_bytes: AtomicU64,
    page_bytes: u64,
    /// It was not whole when it was last looked at.
    is_cut: AtomicBool,
    /// As long as it is open, SQLite keeps the write-ahead file, whichever other connections are replaced. It
    /// can still read that file when it has no name any more. `None` at the end.
    anchor: Mutex<Option<SqliteConnection>>,
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

    fn emptied(&self) -> String {
        format!("{} was emptied", self.path.display())
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

/// Opens a file for reading without having reading change its times, which a sync would write. The kernel allows that
/// to the owner alone.
#[cfg(target_os = "linux")]
fn open_untimed(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NOATIME.bits().cast_signed();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(path).or_else(|_| File::open(path))
}

#[cfg(not(target_os = "linux"))]
fn open_untimed(path: &Path) -> io::Result<File> {
    File::open(path)
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
        let page_bytes = diesel::dsl::sql::<Integer>("PRAGMA page_size").get_result::<i32>(&mut anchor);
        let page_bytes = page_bytes.map_err(io::Error::other)?;
        let log = beside("-wal")?;
        let files = Self {
            log_file: open_untimed(&log.path)?,
            log,
            log_bytes: AtomicU64::new(0),
            page_bytes: u64::from(page_bytes.unsigned_abs()),
            is_cut: AtomicBool::new(false),
            index: beside("-shm")?,
            database: WatchedFile::new(path)?,
            anchor: Mutex::new(Some(anchor)),
            is_saved: AtomicBool::new(false),
            metrics,
        };
        files.measure();
        Ok(files)
    }

    /// Tells which file is not in its place any more. Messages that are only in a write-ahead file that was
    /// deleted are saved first.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.database.find() {
            Found::Itself(0) => return Err(self.database.emptied()),
            Found::Itself(_) => {}
            Found::Nothing | Found::Another => return Err(self.database.gone()),
        }
        match self.log.find() {
            Found::Itself(bytes) => self.check_log(bytes)?,
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

    /// Tells whether the write-ahead file, which has so many bytes now, is whole. It is without a question when it
    /// begins like one and has not become shorter.
    fn check_log(&self, bytes: u64) -> Result<(), String> {
        if bytes < self.log_bytes.load(Ordering::Relaxed) || !self.log_begins() {
            self.ask_whether_whole()?;
        }
        self.is_cut.store(false, Ordering::Relaxed);
        self.log_bytes.store(bytes, Ordering::Relaxed);
        self.note_size(bytes);
        Ok(())
    }

    /// True when the write-ahead file begins as one does that holds a commit.
    fn log_begins(&self) -> bool {
        let mut first = [0; 4];
        let read = self.log_file.read_exact_at(&mut first, 0);
        read.is_ok() && u32::from_be_bytes(first) | 1 == LOG_MAGIC | 1
    }

    /// Asks SQLite whether the write-ahead file holds what it has written into it. What is copied into the database it
    /// begins anew, shorter if it was too large, and other programs may cut it then (`wal_checkpoint(TRUNCATE)`).
    ///
    /// # Errors
    /// Says what there is to say when it is not whole.
    fn ask_whether_whole(&self) -> Result<(), String> {
        let mut anchor = lock(&self.anchor);
        let Some(anchor) = anchor.as_mut() else { return Ok(()) };
        let ask = |anchor: &mut _| {
            checkpoint(anchor, "NOOP").map_err(|error| format!("{}: {error}", self.log.path.display()))
        };
        let mut known = ask(anchor)?;
        for _ in 0..QUESTIONS_MAX {
            let bytes = self.log_file.metadata().map_or(0, |file| file.len());
            let frames = u64::try_from(known.log).unwrap_or(0);
            let needed = LOG_HEADER_BYTES + frames * (self.page_bytes + FRAME_HEADER_BYTES);
            if frames == 0 || (self.log_begins() && bytes >= needed) {
                return Ok(());
            }
            let now = ask(anchor)?;
            if now == known {
                self.is_cut.store(true, Ordering::Relaxed);
                return Err(self.cut(known.is_complete()));
            }
            known = now;
        }
        // It is being written, and looked at again before the next commit.
        Ok(())
    }

    fn cut(&self, is_saved: bool) -> String {
        let rest = match is_saved {
            true => "what was acknowledged is saved in the database",
            false => "messages that were only in it are lost",
        };
        format!("{} or cut; {rest}; restart the server", self.log.emptied())
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
            // Copied from behind a hole, pages would be empty.
            if let Err(reason) = self.ask_whether_whole() {
                return format!("{gone}; before that {reason}");
            }
            match lock(&self.anchor).as_mut().map_or(Ok(false), copy_log) {
                Ok(true) => self.is_saved.store(true, Ordering::Relaxed),
                Ok(false) => return format!("{gone}; its last commits are being read, and saved after that"),
                Err(error) => return format!("{gone}; its last commits cannot be saved: {error}"),
            }
        }
        format!("{gone}; what was acknowledged is saved in the database; restart the server")
    }
}

impl Drop for DatabaseFiles {
    /// The last connection that is closed copies the write-ahead file into the database. One with a hole would be copied
    /// with empty pages over good ones, so then there is no last one while the process lives.
    fn drop(&mut self) {
        let anchor = lock(&self.anchor).take();
        if self.is_cut.load(Ordering::Relaxed) {
            std::mem::forget(anchor);
        }
    }
}

/// The answer of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, QueryableByName)]
struct Copied {
    /// It was kept from its work.
    #[diesel(sql_type = Integer)]
    busy: i32,
    /// Frames in the write-ahead log.
    #[diesel(sql_type = Integer)]
    log: i32,
    /// Those of them that are in the database.
    #[diesel(sql_type = Integer)]
    checkpointed: i32,
}

impl Copied {
    fn is_complete(self) -> bool {
        self.busy == 0 && self.log == self.checkpointed
    }
}

/// `NOOP` copies nothing and only tells.
fn checkpoint(anchor: &mut SqliteConnection, mode: &str) -> QueryResult<Copied> {
    diesel::sql_query(format!("PRAGMA wal_checkpoint({mode})")).get_result(anchor)
}

/// Copies the write-ahead log into the database without waiting for anybody. False when a reader that still
/// needs the old pages kept some from being copied.
fn copy_log(anchor: &mut SqliteConnection) -> QueryResult<bool> {
    checkpoint(anchor, "PASSIVE").map(Copied::is_complete)
}
