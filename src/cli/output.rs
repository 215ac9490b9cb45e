//! Standard output: the results of the commands.

use std::io::Write;

use super::failure::Failure;

/// Writes a result; a reader that went away, such as `head`, is no failure.
///
/// # Errors
/// When standard output cannot be written for another reason, such as a full disk.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
