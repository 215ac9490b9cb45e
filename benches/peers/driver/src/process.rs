//! What the server's processes use, from /proc.

use std::fs;
use std::time::Duration;

/// Clock ticks a second in /proc/PID/stat: 100 on every Linux whose programs were
/// not built for another number, as sysconf would say.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process with all its children, which is where the workers of nginx are.
pub(crate) struct Processes(Vec<u32>);

impl Processes {
    pub(crate) fn of(pid: u32) -> Self {
        let mut found: Vec<u32> = (pid != 0).then_some(pid).into_iter().collect();
        let all: Vec<(u32, u32)> = all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
        let mut looked_at = 0;
        while let Some(of) = found.get(looked_at).copied() {
            found.extend(all.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
            looked_at += 1;
        }
        Self(found)
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self.0.iter().filter_map(|pid| stat(*pid, &[13, 14])).flatten().sum();
        Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        self.0.iter().filter_map(|pid| resident(*pid)).sum()
    }
}

fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid, &[3])?.first().map(|parent| *parent as u32)
}

/// Fields of /proc/PID/stat, counted from 0. The name in parentheses may hold spaces.
fn stat(pid: u32, fields: &[usize]) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = text.rsplit_once(") ")?;
    let values: Vec<&str> = after_name.split(' ').collect();
    fields.iter().map(|field| values.get(field - 2)?.parse().ok()).collect()
}

fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
