//! `roomcast backup` and `roomcast restore`: a copy of the SQLite database, and back.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::output::print;
use super::sources::ConfigFile;
use crate::config::{Database, Flag};
use crate::node;

const BACKUP_EXAMPLES: &str = "\
Examples:
  roomcast backup --database sqlite:roomcast.db /backup/roomcast-monday.db
        a copy of the database, while the server runs or not
  roomcast backup --config /etc/roomcast.toml /backup/roomcast-monday.db
        the same for the database that a configuration names

The copy is one file and holds everything up to one moment. PostgreSQL has pg_dump.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  roomcast restore --database sqlite:roomcast.db /backup/roomcast-monday.db
        puts the copy in the place of the database; the server must be stopped

The file that was there is kept beside it. The database gets another epoch, so that clients are told that
messages are gone instead of taking new ones for old ones.";

/// Where the database is.
#[derive(Debug, Args)]
struct Place {
    /// Source of the configuration.
    #[command(flatten)]
    file: ConfigFile,
    /// The database: sqlite:FILE [default: sqlite:roomcast.db]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// Copy the database.
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub(super) struct BackupArgs {
    /// The database.
    #[command(flatten)]
    place: Place,
    /// File that becomes the copy; there must be none of that name
    #[arg(value_name = "FILE")]
    to: PathBuf,
}

/// Put a copy back.
#[derive(Debug, Args)]
#[command(after_help = RESTORE_EXAMPLES)]
pub(super) struct RestoreArgs {
    /// The database.
    #[command(flatten)]
    place: Place,
    /// The copy, as `roomcast backup` made it
    #[arg(value_name = "FILE")]
    from: PathBuf,
}

impl Place {
    fn database(&self) -> Result<Database, Failure> {
        let flag = |value| Flag { name: "--database", section: "database", key: "url", value };
        Ok(self.file.load(self.database.clone().map(flag).into_iter().collect())?.config.database)
    }
}

pub(super) fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    node::backup(&args.place.database()?, &args.to).map_err(|error| Failure::new(error.to_string()))?;
    print(&format!("copied to {}\n", args.to.display()))
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let restored = node::restore(&args.place.database()?, &args.from);
    let restored = restored.map_err(|error| Failure::new(error.to_string()))?;
    let kept = restored.replaced.map(|path| format!("; the one before is {}", path.display()));
    print(&format!(
        "{} is the copy now, with the epoch {}{}\n",
        restored.database.display(),
        restored.epoch,
        kept.unwrap_or_default()
    ))
}
