//! The number of connections that the limits of the system allow: each takes a file, a thread, and two
//! memory maps.
//!
//! Read once, at the start. A limit that is hit later is worse than one that is known: a process without
//! a memory map left cannot even allocate.

#[cfg(target_os = "linux")]
use std::fs;

/// The most connections at a time, and the limit that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Connections at a time.
    pub connections: usize,
    /// The smallest limit, by the name under which an operator finds it.
    pub bound: &'static str,
}

/// Files kept free for the database, the listening socket, logs and the like.
const FILES_RESERVED: u64 = 64;

/// Threads kept free for the server's own pools and for other processes of the machine.
#[cfg(target_os = "linux")]
const THREADS_RESERVED: u64 = 500;

/// Maps of the program, its libraries and its memory.
#[cfg(target_os = "linux")]
const MAPS_RESERVED: u64 = 3000;

/// A stack and its guard page (`proc_pid_maps(5)` has a line for each).
#[cfg(target_os = "linux")]
const MAPS_PER_CONNECTION: u64 = 2;

impl Capacity {
    /// Raises the file limit to the hard limit and looks at all limits.
    #[must_use]
    pub fn of_system() -> Self {
        let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
        let files = Self::new(files.saturating_sub(FILES_RESERVED), "open files");
        others().into_iter().fold(files, Self::smaller)
    }

    /// At most as many as the operator wants.
    #[must_use]
    pub fn at_most(self, wanted: Option<usize>) -> Self {
        match wanted {
            Some(connections) => self.smaller(Self { connections, bound: "client.connections_max" }),
            None => self,
        }
    }

    fn new(connections: u64, bound: &'static str) -> Self {
        Self { connections: usize::try_from(connections).unwrap_or(usize::MAX), bound }
    }

    fn smaller(self, other: Self) -> Self {
        if other.connections < self.connections { other } else { self }
    }
}

/// Limits that can be read on this system; an unreadable one does not count.
#[cfg(target_os = "linux")]
fn others() -> Vec<Capacity> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let threads = |most: u64, bound| Capacity::new(most.saturating_sub(THREADS_RESERVED), bound);
    let maps = number("/proc/sys/vm/max_map_count").map(|maps| {
        Capacity::new(maps.saturating_sub(MAPS_RESERVED) / MAPS_PER_CONNECTION, "vm.max_map_count")
    });
    let ids = number("/proc/sys/kernel/pid_max").map(|most| threads(most, "kernel.pid_max"));
    let all = number("/proc/sys/kernel/threads-max").map(|most| threads(most, "kernel.threads-max"));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| number(&pids_max(&groups)?))
        .map(|most| threads(most, "pids.max of the cgroup"));
    [maps, ids, all, group].into_iter().flatten().collect()
}

#[cfg(not(target_os = "linux"))]
fn others() -> Vec<Capacity> {
    Vec::new()
}

/// File with the limit of the process's own group (`cgroups(7)`): version 2, or version 1's `pids`.
#[cfg(target_os = "linux")]
fn pids_max(groups: &str) -> Option<String> {
    let of = |controller: &str| {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers
                .split(',')
                .any(|name| name == controller)
                .then(|| path.trim_end_matches('/').to_owned())
        })
    };
    match of("pids") {
        Some(path) => Some(format!("/sys/fs/cgroup/pids{path}/pids.max")),
        None => Some(format!("/sys/fs/cgroup{}/pids.max", of("")?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_counts_and_is_named() {
        let files = Capacity::new(1000, "open files");
        assert_eq!(files.smaller(Capacity::new(500, "kernel.pid_max")).bound, "kernel.pid_max");
        assert_eq!(files.smaller(Capacity::new(1000, "kernel.pid_max")).bound, "open files");
        assert_eq!(files.at_most(None), files);
        assert_eq!(files.at_most(Some(2000)), files);
        let wanted = Capacity { connections: 10, bound: "client.connections_max" };
        assert_eq!(files.at_most(Some(10)), wanted);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_group_of_the_process_is_found_in_both_versions() {
        let second = "0::/system.slice/roomcast.service\n";
        assert_eq!(pids_max(second).unwrap(), "/sys/fs/cgroup/system.slice/roomcast.service/pids.max");
        let first = "9:name=systemd:/a\n8:pids:/chat\n4:memory:/b\n0::/\n";
        assert_eq!(pids_max(first).unwrap(), "/sys/fs/cgroup/pids/chat/pids.max");
        assert_eq!(pids_max("0::/\n").unwrap(), "/sys/fs/cgroup/pids.max");
        assert_eq!(pids_max("nonsense"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_system_has_limits() {
        let bounds: Vec<&str> = others().iter().map(|capacity| capacity.bound).collect();
        for expected in ["vm.max_map_count", "kernel.pid_max", "kernel.threads-max"] {
            assert!(bounds.contains(&expected), "{bounds:?}");
        }
        assert!(Capacity::of_system().connections > 0);
    }
}
