//! Serving from the log: resumes of any length, and listeners whose outbox was full.
//!
//! `pool` has the threads and the queue, `job` is one subscription on its way to the head of its
//! room, `pages` shares what was read, `directory` lists the jobs there are.

mod directory;
mod job;
mod pages;
mod pool;

pub use directory::{Cause, Lagging};
pub(super) use job::Job;
pub(super) use pool::{CatchUp, Pool};
