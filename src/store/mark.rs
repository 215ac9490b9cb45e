//! A small file beside a SQLite database that says how far the database has come, so that an older file which is
//! put in its place is noticed when it is opened.
//!
//! `roomcast.db-mark` holds the epoch, and the number and the room of a message that was committed last. It is
//! written at most once a second, without waiting for the disk, a second after the last message at the latest, and when
//! the database is closed. What it says is in the database already when it is written. A mark that is missing or not readable says nothing.
//!
//! Where commits do not wait for the disk either, the mark may be as old as what the disk holds when the system goes
//! down. So a second line says in which run of the system that is so; the first mark of a server waits for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ids::{Channel, Seq};
use crate::store::claim::OWNER_ONLY;
use crate::sync::{Mutex, lock};

/// Shortest time between two writes while messages come.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Tells a mark from other files.
const FIRST_WORD: &str = "roomcast";

/// Begins the second line.
const UNSYNCED: &str = "unsynced";

/// Names the run of the system; only Linux does.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) epoch: String,
    /// `None` before the first message.
    pub(super) newest: Option<(Channel, Seq)>,
    /// The run of the system that took commits which it had not written to the disk, while a server has the database.
    pub(super) unsynced_in: Option<String>,
}

/// The name of this run of the system, if it has one.
pub(super) fn boot() -> Option<String> {
    let boot = fs::read_to_string(BOOT_ID).ok()?;
    Some(boot.trim().to_owned()).filter(|boot| !boot.is_empty())
}

/// The file of a mark, and when it is to be written.
#[derive(Debug)]
pub(super) struct MarkFile {
    path: PathBuf,
    /// The write-ahead log of the database.
    log: PathBuf,
    state: Mutex<State>,
    /// Held while it is written, so that nothing older replaces something newer.
    writing: Mutex<()>,
}

/// What is still to be written.
#[derive(Debug, Default)]
struct State {
    /// `None` before the first message.
    due_at: Option<Instant>,
    /// A message was committed since it was written.
    is_behind: bool,
    /// Nobody writes it any more.
    is_closed: bool,
}

impl Mark {
    fn to_text(&self) -> String {
        let mut text = match &self.newest {
            None => format!("{FIRST_WORD} {}\n", self.epoch),
            Some((channel, seq)) => format!("{FIRST_WORD} {} {seq} {channel}\n", self.epoch),
        };
        if let Some(boot) = &self.unsynced_in {
            text.push_str(&format!("{UNSYNCED} {boot}\n"));
        }
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let (line, rest) = text.split_once('\n')?;
        let unsynced_in = match rest {
            "" => None,
            rest => Some(rest.strip_suffix('\n')?.strip_prefix(UNSYNCED)?.strip_prefix(' ')?.to_owned()),
        };
        let mut words = line.split(' ');
        words.next().filter(|first| *first == FIRST_WORD)?;
        let epoch = words.next().filter(|epoch| !epoch.is_empty())?.to_owned();
        let newest = match (words.next(), words.next(), words.next()) {
            (None, ..) => None,
            (Some(seq), Some(channel), None) => Some((Channel::new(channel).ok()?, seq.parse().ok()?)),
            _ => return None,
        };
        Some(Self { epoch, newest, unsynced_in })
    }
}

impl MarkFile {
    /// That of the database in this file.
    pub(super) fn beside(database: &Path) -> Self {
        let path = |suffix| beside(database, suffix);
        let (state, writing) = (Mutex::default(), Mutex::default());
        Self { path: path("-mark"), log: path("-wal"), state, writing }
    }

    /// What the file says, if there is one.
    pub(super) fn read(&self) -> Option<Mark> {
        Mark::parse(&fs::read_to_string(&self.path).ok()?)
    }

    /// Notes that a message was committed.
    pub(super) fn note_commit(&self) {
        lock(&self.state).is_behind = true;
    }

    /// True at most once a second: a message was committed that the file does not tell of yet.
    pub(super) fn is_due(&self) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        let due = state.is_behind && state.due_at.is_none_or(|at| now >= at);
        if due {
            state.due_at = Some(now + WRITE_EVERY);
        }
        due
    }

    /// Replaces what the file says by what is known now. One that cannot be written stays as it is: it says less than it
    /// could, until the next time.
    pub(super) fn write(&self, mark: impl FnOnce() -> Mark) {
        let _one_at_a_time = lock(&self.writing);
        if lock(&self.state).is_closed {
            return;
        }
        // Before it is asked what there is to say.
        lock(&self.state).is_behind = false;
        if let Err(error) = self.try_write(&mark()) {
            lock(&self.state).is_behind = true;
            tracing::debug!(%error, path = %self.path.display(), "the mark of the database was not written");
        }
    }

    /// Ends the writing: the file may be another server's from now on.
    pub(super) fn close(&self) {
        let _nobody_writes = lock(&self.writing);
        lock(&self.state).is_closed = true;
    }

    fn try_write(&self, mark: &Mark) -> io::Result<()> {
        let draft = beside(&self.path, ".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(OWNER_ONLY);
        // It names a room.
        options.open(&draft)?.write_all(mark.to_text().as_bytes())?;
        fs::rename(&draft, &self.path)
    }

    /// Waits until the disk has what the file says.
    pub(super) fn sync(&self) {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = [&*self.path, folder].into_iter().try_for_each(|path| File::open(path)?.sync_all());
        if let Err(error) = synced {
            tracing::debug!(%error, path = %self.path.display(), "the mark of the database was not synced");
        }
    }

    /// Waits until the disk has all commits; false when that fails. What left the write-ahead log is there already.
    pub(super) fn sync_log(&self) -> bool {
        // SQLite locks other files than this one, so closing it gives no lock up.
        match File::open(&self.log).and_then(|log| log.sync_all()) {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        }
    }

    /// Removes the file, because the database that it is about is replaced.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A file whose name is that of another one with something appended.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_damage_says_nothing() {
        for newest in [None, Some((Channel::new("talk:#a").unwrap(), 7))] {
            for unsynced_in in [None, Some("b-1".to_owned())] {
                let mark = Mark { epoch: "abcdefgh".into(), newest: newest.clone(), unsynced_in };
                assert_eq!(Mark::parse(&mark.to_text()), Some(mark));
            }
        }
        for damaged in [
            "",
            " \n",
            " abcd",
            " abcd 7 room",
            " abcd x room\n",
            " abcd 7\n",
            " abcd 7 a b\n",
            " abcd 7 a\nb\n",
        ] {
            assert_eq!(Mark::parse(&format!("roomcast{damaged}")), None, "{damaged:?}");
        }
        assert_eq!(Mark::parse("nonsense abcd\n"), None);
    }
}
