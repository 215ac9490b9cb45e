//! How a publication gets to the listeners of its room: three strategies behind one pure choice.
//!
//! `choice` decides, `slice` walks members on one thread, `parallel` with a pool of one thread a core
//! that `processor` places, `pace` measures what fan-outs cost and how often they come.

pub(super) mod choice;
pub(super) mod pace;
pub(super) mod parallel;
mod processor;
pub(super) mod slice;
