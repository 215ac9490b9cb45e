//! One active room. `state` has its fields and answers questions about them, `backlog` its positions
//! and unsent messages, `membership` lets listeners come and go, `waiting` has those that come before the head is known, `sending` serves a `fan_out` slice by
//! slice, `change` is what waits for its end, `usage` says how long an unused room stays.

mod backlog;
pub(super) mod change;
mod fan_out;
mod membership;
mod sending;
pub(super) mod state;
mod usage;
mod waiting;
