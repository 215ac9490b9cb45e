//! Used processor time: of this thread, of this process, and of another process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Of the calling thread, in user code and in the kernel.
pub(crate) fn of_thread() -> Duration {
    now(ClockId::ThreadCPUTime)
}

/// Of all threads of this process.
pub(crate) fn of_process() -> Duration {
    now(ClockId::ProcessCPUTime)
}

/// Of another process with one thread, such as the one that serves a PostgreSQL connection. Zero
/// where the system does not tell.
pub(crate) fn of_other(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Of another process and of its children that have ended, in ticks of the system.
pub(crate) fn of_family(pid: &str) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = text.rsplit_once(')').unwrap().1;
    // proc_pid_stat(5): utime, stime, cutime and cstime are the fields 14 to 17; the name is the second.
    let ticks: u64 =
        behind_name.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
