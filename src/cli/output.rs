//! Standard output and standard error: the results of the commands, and why one failed.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

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

/// Time that standard error has to take the last words of a command.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes to standard output what is good to know; nothing waits for it, and it does not matter whether it can
/// be written.
pub(super) fn announce(text: String) {
    let announced = thread::Builder::new().name("announce".to_owned()).spawn(move || print(&text));
    if let Err(error) = announced {
        tracing::warn!(%error, "the start block is not printed");
    }
}

/// Tells why the command failed, if somebody takes it soon.
pub(super) fn complain(failure: &Failure) {
    let text = format!("roomcast: {failure}\n");
    let (told, is_told) = bounded(1);
    let thread = thread::Builder::new().name("complain".to_owned()).spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = told.send(());
    });
    if thread.is_ok() {
        let _ = is_told.recv_timeout(LAST_WORDS);
    }
}
