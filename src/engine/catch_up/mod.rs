//! Serving from the log: resumes of any length, and listeners whose outbox was full.
//!
//! `pool` has the threads and the queue, `job` is one subscription on its way to the head of its
//! room, `pages` shares what was read, `directory` lists the jobs there are.

pub(super) mod directory;
pub(super) mod job;
mod pages;
pub(super) mod pool;
