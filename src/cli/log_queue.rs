//! Log lines on their way to standard error: a bounded buffer, and one thread that empties it.
//!
//! Whoever logs adds a line and goes on. Standard error may be closed, on a full disk, or a pipe that nobody
//! reads: no thread but the one of this file fails or waits for it. Lines for which there is no capacity, or that
//! could not be written, are lost and counted.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rustix::event::{PollFd, PollFlags, poll};

use crate::limits::LOG_QUEUE_BYTES_MAX;
use crate::sync::{Arc, Condvar, Mutex, lock, wait, wait_timeout};

/// A buffer that grew beyond this many bytes is given back once it is written.
const IDLE_BYTES_MAX: usize = 16 * 1024;

/// The lines that wait, and how many were lost.
#[derive(Debug, Default)]
pub(super) struct LogQueue {
    state: Mutex<State>,
    /// There is something to write, or the last of it was written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, one after the other.
    waiting: Vec<u8>,
    is_writing: bool,
    /// Lines, since the start.
    lost: u64,
    /// Those of them that no line of the log has told of.
    untold: u64,
    counter: Option<IntCounter>,
}

impl LogQueue {
    /// Adds a line, or counts it as lost. Never waits for a write.
    fn push(&self, line: &[u8]) {
        let mut state = lock(&self.state);
        if state.waiting.len() + line.len() > LOG_QUEUE_BYTES_MAX {
            state.lose(1);
            return;
        }
        state.waiting.extend_from_slice(line);
        if !state.is_writing {
            self.changed.notify_all();
        }
    }

    /// From now on, counts lost lines there; those that are lost already at once.
    pub(super) fn count_in(&self, counter: &IntCounter) {
        let mut state = lock(&self.state);
        counter.inc_by(state.lost);
        state.counter = Some(counter.clone());
    }

    /// Waits until all that waits is written or lost, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        while state.is_writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = wait_timeout(&self.changed, state, left);
        }
    }

    /// Writes what comes, for ever.
    pub(super) fn write_to(&self, mut sink: impl Write) {
        let (mut batch, mut is_torn) = (Vec::new(), false);
        loop {
            self.take(&mut batch);
            // The rest of a line that was cut is lost; the next one is not to be part of it.
            if is_torn && write(&mut sink, b"\n").is_empty() {
                is_torn = false;
            }
            let unwritten = write(&mut sink, &batch);
            let lost = memchr::memchr_iter(b'\n', unwritten).count() as u64;
            is_torn |=
                unwritten.len() < batch.len() && !batch[..batch.len() - unwritten.len()].ends_with(b"\n");
            if batch.capacity() > IDLE_BYTES_MAX {
                batch = Vec::new();
            }
            if let Some(lines) = self.written(lost) {
                tracing::warn!(lines, "log lines were lost: standard error did not take them");
            }
        }
    }

    /// Waits for lines and puts all there are in the place of `batch`.
    fn take(&self, batch: &mut Vec<u8>) {
        batch.clear();
        let mut state = lock(&self.state);
        while state.waiting.is_empty() {
            state = wait(&self.changed, state);
        }
        std::mem::swap(&mut state.waiting, batch);
        state.is_writing = true;
    }

    /// Notes the end of a batch; how many lines were lost, if that can be told and was not.
    fn written(&self, lost: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        state.lose(lost);
        state.is_writing = false;
        self.changed.notify_all();
        let may_tell = lost == 0 && state.untold > 0;
        may_tell.then(|| std::mem::take(&mut state.untold))
    }
}

impl State {
    fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.untold += lines;
        if let Some(counter) = &self.counter {
            counter.inc_by(lines);
        }
    }
}

/// What a logger writes one line into, in one piece.
#[derive(Debug, Clone)]
pub(super) struct LogLine(pub(super) Arc<LogQueue>);

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes as much of a batch as can be; what could not.
fn write<'b>(sink: &mut impl Write, batch: &'b [u8]) -> &'b [u8] {
    let mut rest = batch;
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => break,
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    rest
}

/// Standard error, past the lock of the standard library: that one would be held for as long as a write lasts.
#[derive(Debug)]
pub(super) struct StandardError(File);

impl StandardError {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }
}

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            // Another process has made the pipe or terminal that we share non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(&self.0, PollFlags::OUT)], None)?;
                Err(ErrorKind::Interrupted.into())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// What each write shall do; it waits until that is said, and tells what it was given.
    struct Scripted {
        outcomes: Receiver<io::Result<usize>>,
        given: Sender<String>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let _ = self.given.send(text);
            // At the end of a test nobody says any more, and this thread sleeps on.
            let outcome = self.outcomes.recv().unwrap_or_else(|_| {
                loop {
                    std::thread::park()
                }
            });
            outcome.map(|most| most.min(bytes.len()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (Arc<LogQueue>, Sender<io::Result<usize>>, Receiver<String>) {
        let (say, outcomes) = channel();
        let (given, writes) = channel();
        let queue = Arc::new(LogQueue::default());
        let writer = queue.clone();
        std::thread::spawn(move || writer.write_to(Scripted { outcomes, given }));
        (queue, say, writes)
    }

    #[test]
    fn a_write_that_does_not_end_holds_nobody_up() {
        let (queue, say, writes) = queue();
        let counter = IntCounter::new("lost", "lost").unwrap();
        queue.push(b"first\n");
        assert_eq!(writes.recv().unwrap(), "first\n");
        let line = [b"x".repeat(LOG_QUEUE_BYTES_MAX / 4 - 1), b"\n".to_vec()].concat();
        for _ in 0..4 {
            queue.push(&line);
        }
        queue.push(b"lost\n");
        queue.count_in(&counter);
        queue.push(b"lost too\n");
        assert_eq!(counter.get(), 2, "before and after it was counted");
        queue.flush(Duration::ZERO);

        for _ in 0..2 {
            say.send(Ok(usize::MAX)).unwrap();
        }
        assert_eq!(writes.recv().unwrap(), line.repeat(4).escape_ascii().to_string().replace("\\n", "\n"));
        queue.flush(Duration::from_secs(60));
        queue.push(b"last\n");
        assert_eq!(writes.recv().unwrap(), "last\n");
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn a_line_that_was_cut_is_lost_and_spoils_no_other() {
        let (queue, say, writes) = queue();
        queue.push(b"first\n");
        assert_eq!(writes.recv().unwrap(), "first\n");
        queue.push(b"second\nthird\nfourth\n");
        say.send(Ok(6)).unwrap();
        assert_eq!(writes.recv().unwrap(), "second\nthird\nfourth\n");
        say.send(Ok(9)).unwrap();
        assert_eq!(writes.recv().unwrap(), "ird\nfourth\n");
        say.send(Err(ErrorKind::Interrupted.into())).unwrap();
        assert_eq!(writes.recv().unwrap(), "ird\nfourth\n");
        say.send(Err(ErrorKind::StorageFull.into())).unwrap();
        queue.flush(Duration::from_secs(60));
        assert_eq!(lock(&queue.state).lost, 2);
        queue.push(b"fifth\n");
        assert_eq!(writes.recv().unwrap(), "\n");
        say.send(Ok(1)).unwrap();
        assert_eq!(writes.recv().unwrap(), "fifth\n");
    }
}
