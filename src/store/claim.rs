//! Claims a SQLite file for one server: makes it readable by its user alone, and keeps other servers away.
//!
//! Two servers on one file would number messages correctly and deliver each other's to nobody. The claim is
//! a lock of the system on a file beside the database, so it ends with the process, however that ends. The
//! database itself cannot carry it: a process that closes any descriptor of a file gives up all of SQLite's
//! own locks on it. Programs that only read the database take no claim and are not hindered.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::store::error::OpenError;

/// Access to a new file: its owner alone. SQLite gives the files it puts beside a database the same.
pub(super) const OWNER_ONLY: u32 = 0o600;

/// A claim to a SQLite file; given up when it is dropped, or with the process.
#[derive(Debug)]
pub(super) struct Claim {
    /// Holds the lock of the system.
    _lock: File,
}

impl Claim {
    /// Claims the file, which is created if there is none.
    ///
    /// # Errors
    /// [`OpenError::Refused`] when another server has it, [`OpenError::Connect`] when it or the lock
    /// cannot be opened.
    pub(super) fn new(path: &Path) -> Result<Self, OpenError> {
        let unopened =
            |path: &Path, error: io::Error| OpenError::Connect(format!("{}: {error}", path.display()));
        create(path).map_err(|error| unopened(path, error))?;
        // One lock for all names of the file but hard links.
        let lock_path = fs::canonicalize(path).map(beside).map_err(|error| unopened(path, error))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY);
        let mut lock = options.open(&lock_path).map_err(|error| unopened(&lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Refused(taken(path, &lock_path))),
            Err(TryLockError::Error(error)) => return Err(unopened(&lock_path, error)),
        }
        // Only for the message that another server prints.
        let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = noted {
            tracing::debug!(%error, "the lock does not say whose it is");
        }
        Ok(Self { _lock: lock })
    }
}

/// The lock's file. It stays when the server stops: the lock on it counts, not that it is there.
fn beside(database: PathBuf) -> PathBuf {
    let mut name: OsString = database.into();
    name.push("-lock");
    name.into()
}

/// Makes an empty file for its owner alone, which SQLite takes for an empty database. One that exists is not opened.
pub(super) fn create(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map(drop),
    }
}

fn taken(path: &Path, lock_path: &Path) -> String {
    let note = fs::read_to_string(lock_path).unwrap_or_default();
    let owner = match note.trim().parse::<u32>() {
        Ok(id) => format!("the process {id}"),
        Err(_) => "another process".to_owned(),
    };
    format!("{}: {owner} serves it; one server at a time can use a SQLite file", path.display())
}
