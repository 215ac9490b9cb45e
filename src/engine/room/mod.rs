//! One active room. `state` has its fields and answers questions about them, `membership` lets
//! listeners come and go, `fan_out` sends what was published.

mod fan_out;
mod membership;
pub(super) mod state;
