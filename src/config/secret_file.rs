//! Secrets that stand in files of their own, as orchestrators and systemd hand them over.

use std::fs::File;
use std::io::{self, Read};

use super::kind::Literal;

/// What the name of a key ends with when its value is the path of a file.
pub(super) const SUFFIX: &str = "_file";

/// Larger files are no secrets.
const BYTES_MAX: u64 = 64 * 1024;

/// The text of the file that a value names, without the line break at its end. An error never repeats it.
pub(super) fn read(path: Literal<'_>) -> Result<String, String> {
    let path = path.text().ok_or("expected the path of a file in quotes")?;
    let mut text = read_file(path).map_err(|error| format!("the file {path:?} cannot be read: {error}"))?;
    if text.len() as u64 > BYTES_MAX {
        return Err(format!("the file {path:?} is larger than {BYTES_MAX} bytes"));
    }
    for end in ['\n', '\r'] {
        if text.ends_with(end) {
            text.pop();
        }
    }
    if text.is_empty() { Err(format!("the file {path:?} is empty")) } else { Ok(text) }
}

fn read_file(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}
