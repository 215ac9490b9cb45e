//! The threads of a run: one driver each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crate::clients::{self, Share};
use crate::control::Control;
use crate::driver::Driver;
use crate::plan::Plan;
use crate::tally::Tally;

/// Stack of a thread; its buffers are on the heap.
const STACK_BYTES: usize = 512 * 1024;

/// A thread that drives connections, and what it counted.
pub(crate) type Thread = thread::JoinHandle<io::Result<Tally>>;

/// Starts the threads of a plan, each with its share of the clients.
pub(crate) fn start(plan: &Arc<Plan>, control: &Arc<Control>) -> io::Result<Vec<Thread>> {
    let shares = clients::shares(plan);
    let publishing = shares.iter().filter(|share| share.publishes()).count();
    control.publishing.store(publishing, Ordering::Release);
    let threads = shares.into_iter().enumerate();
    threads.map(|(number, share)| start_one(plan.clone(), control.clone(), number, share)).collect()
}

fn start_one(plan: Arc<Plan>, control: Arc<Control>, number: usize, share: Share) -> io::Result<Thread> {
    let driver = Driver::new(plan, control, share.clients)?;
    let thread = thread::Builder::new().name(format!("bench-{number}")).stack_size(STACK_BYTES);
    thread.spawn(move || {
        if share.has_low_priority {
            lower_priority();
        }
        driver.run()
    })
}

/// Lets the server have the processor first. The listeners of a real server are machines of their own,
/// and what reached their sockets has its time stamp already.
#[cfg(target_os = "linux")]
fn lower_priority() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
        thread_native_id,
    };
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        tracing::debug!(%error, "the listening thread keeps its priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
