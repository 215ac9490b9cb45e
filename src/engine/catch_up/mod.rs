//! Serving from the log: resumes of any length, and listeners whose outbox was full.
//!
//! `pool` has the threads and the queue of jobs, `lookups` the questions for heads, `job` is one subscription on its way to the head of its
//! room, `pages` shares what was read, `directory` lists the jobs there are.
//!
//! A slow listener goes this way: `Outbox::deliver` is `Full` → `Room::start_catch_up` makes a [`job::Job`] →
//! it is parked until the outbox has drained → a thread pushes one page after the other (`Job::step`) → at
//! its target it returns to the shard (`RoomChange::CaughtUp`) → `Room::caught_up` adds the rest from the tail
//! and makes the member live, or sets a new target.

pub(super) mod directory;
pub(super) mod job;
pub(super) mod lookups;
mod pages;
pub(super) mod pool;
