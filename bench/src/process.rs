//! What the kernel tells of a process: processor time, memory, threads.

use std::fs;
use std::io;
use std::time::Duration;

/// What a process has used so far, and what it holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time in user mode and in the kernel.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// Of this process.
    ///
    /// # Errors
    /// When the system has no `/proc`.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Of the process with this id and all its descendants together: some servers work in children.
    ///
    /// # Errors
    /// When there is no such process, or the system has no `/proc`.
    pub(crate) fn of_tree(root: u32) -> io::Result<Self> {
        let whole = Self::of(root)?;
        // Those that ended meanwhile are left out.
        let parts = descendants(root)?.into_iter().filter_map(|pid| Self::of(pid).ok());
        Ok(parts.fold(whole, |sum, part| Self {
            cpu: sum.cpu + part.cpu,
            resident: sum.resident + part.resident,
            threads: sum.threads + part.threads,
        }))
    }

    fn of(pid: u32) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok(Self {
            cpu: Duration::from_secs(stat.ticks) / u32::try_from(ticks_per_second()).unwrap_or(100),
            resident: number("VmRSS:").ok_or_else(unexpected)? * 1024,
            threads: number("Threads:").ok_or_else(unexpected)?,
        })
    }
}

/// What matters of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    /// Processor time in user mode and in the kernel.
    ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name of the program stands in parentheses and may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')').ok_or_else(unexpected)?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let (user, system) = number(11).zip(number(12)).ok_or_else(unexpected)?;
        let parent = number(1).and_then(|pid| u32::try_from(pid).ok()).ok_or_else(unexpected)?;
        Ok(Self { parent, ticks: user + system })
    }
}

/// The children of a process, their children, and so on.
fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, Stat::of(pid).ok()?.parent))).collect();
    let mut found = vec![root];
    let mut looked_at = 0;
    while let Some(of) = found.get(looked_at).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        looked_at += 1;
    }
    Ok(found.split_off(1))
}

fn unexpected() -> io::Error {
    io::Error::other("/proc has an unexpected format")
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_usage_of_this_process_is_read() {
        let usage = Usage::own().unwrap();
        assert!(usage.resident > 1 << 20 && usage.threads >= 1, "{usage:?}");
        assert!(Usage::of_tree(0).is_err());
    }

    #[test]
    fn children_are_counted_with_their_parent() {
        // A shell that waits for its input has a child that does the same.
        let mut shell = Command::new("sh")
            .args(["-c", "(echo ready; read line); exit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let (own, tree) = (Usage::of(shell.id()).unwrap(), Usage::of_tree(shell.id()).unwrap());
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert_eq!((own.threads, tree.threads), (1, 2));
        assert!(tree.resident > own.resident);
    }
}
