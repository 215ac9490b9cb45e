//! Notices that a SQLite file was moved, deleted or replaced under a running server.
//!
//! SQLite itself would go on writing into the file that has no name any more, and every message
//! acked since would be lost with the process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which file a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file that is at that path now, if there is one.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|file| Self { device: file.dev(), inode: file.ino() })
    }
}
