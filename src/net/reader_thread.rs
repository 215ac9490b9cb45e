//! Starts the thread of a connection, with a stack and nothing else.
//!
//! The standard library's threads have a second small stack for its overflow handler: four memory maps a
//! thread instead of two. With the usual 65,530 maps of a process (`vm.max_map_count`), that ended at
//! 16,350 connections, and by an abort, for the library panics in the new thread when it gets no map. So
//! these threads are started by `pthread_create`, which then fails in the acceptor, with an error. A stack
//! that overflows ends the process by SIGSEGV at its guard page, without the library's message.

#![allow(unsafe_code, reason = "the standard library starts no thread without the second stack")]

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::ids::ConnectionId;

type Task = Box<dyn FnOnce() + Send>;

/// Runs `task` on a thread of its own, which nobody waits for. A panic ends the thread alone.
///
/// # Errors
/// When the system gives no thread; `task` is dropped then.
pub(super) fn spawn(
    id: ConnectionId,
    stack_bytes: usize,
    task: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let task: Task = Box::new(move || {
        name_thread(id);
        task();
    });
    let attributes = Attributes::new(stack_bytes)?;
    let argument = Box::into_raw(Box::new(task));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the attributes are initialised as long as they live; `begin` has the signature that is asked
    // for and gets what it expects, a pointer that `Box::into_raw` made and nobody else uses.
    let result = unsafe {
        libc::pthread_create(thread.as_mut_ptr(), &raw const *attributes.0, begin, argument.cast())
    };
    check(result).inspect_err(|_| {
        // SAFETY: no thread was made, so the pointer still is ours alone.
        drop(unsafe { Box::from_raw(argument) });
    })
}

extern "C" fn begin(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made this pointer by `Box::into_raw` from a `Box<Task>`, for this call alone.
    let task = unsafe { Box::from_raw(argument.cast::<Task>()) };
    // The hook has reported a panic already; unwinding must not cross a C frame.
    let _ = catch_unwind(AssertUnwindSafe(task));
    ptr::null_mut()
}

/// Initialised attributes of a detached thread. Boxed, because nothing promises that they may be moved.
struct Attributes(Box<libc::pthread_attr_t>);

impl Attributes {
    fn new(stack_bytes: usize) -> io::Result<Self> {
        let mut raw = Box::new(MaybeUninit::uninit());
        // SAFETY: the pointer is valid for the write that initialises what it points to.
        check(unsafe { libc::pthread_attr_init(raw.as_mut_ptr()) })?;
        // SAFETY: `pthread_attr_init` has succeeded.
        let mut attributes = Self(unsafe { raw.assume_init() });
        // SAFETY: they are initialised, and the values are checked by the callee.
        check(unsafe { libc::pthread_attr_setstacksize(&raw mut *attributes.0, stack_bytes) })?;
        // SAFETY: as above.
        check(unsafe {
            libc::pthread_attr_setdetachstate(&raw mut *attributes.0, libc::PTHREAD_CREATE_DETACHED)
        })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they are initialised and not used after this. It fails only for those that are not.
        unsafe { libc::pthread_attr_destroy(&raw mut *self.0) };
    }
}

/// Calls of pthreads return their error.
fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// For `top`, `perf` and debuggers.
#[cfg(target_os = "linux")]
fn name_thread(id: ConnectionId) {
    if let Ok(name) = std::ffi::CString::new(format!("reader-{}", id.0)) {
        // A thread without a name runs as well.
        let _ = rustix::thread::set_name(&name);
    }
}

#[cfg(not(target_os = "linux"))]
fn name_thread(_: ConnectionId) {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{RecvTimeoutError, bounded};

    use super::*;
    use crate::limits::READER_STACK_BYTES;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_task_has_a_thread_with_the_stack_it_asked_for() {
        let (sender, told) = bounded(1);
        let task = move || {
            // Copied some times in a debug build, and more than the smallest stack there is.
            let used = std::hint::black_box([1u8; READER_STACK_BYTES / 8]);
            sender
                .send((std::thread::current().id(), used.iter().map(|byte| usize::from(*byte)).sum()))
                .unwrap();
        };
        spawn(ConnectionId(1), READER_STACK_BYTES, task).unwrap();
        let (thread, sum): (_, usize) = told.recv_timeout(PATIENCE).unwrap();
        assert_ne!(thread, std::thread::current().id());
        assert_eq!(sum, READER_STACK_BYTES / 8);
    }

    #[test]
    fn a_panic_drops_what_the_task_had_and_ends_nothing_else() {
        let (sender, told) = bounded::<()>(1);
        let task = move || {
            let _held = sender;
            panic!("on purpose");
        };
        spawn(ConnectionId(2), READER_STACK_BYTES, task).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn a_thread_that_cannot_be_had_is_an_error_and_drops_the_task() {
        let (sender, told) = bounded::<()>(1);
        let task = move || drop(sender);
        assert!(spawn(ConnectionId(3), 1 << 60, task).is_err());
        assert_eq!(told.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    }
}
