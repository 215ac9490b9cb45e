//! All cores walk the members, each its own chunk.
//!
//! The caller owns the shard and waits, so no frame of the room can overtake another; within one
//! outbox there is only one frame to push.

use bytes::Bytes;
use rayon::prelude::*;

use super::{Outcome, serial};
use crate::engine::members::Member;

/// Members one task serves: large enough that handing it out costs nothing beside its sends.
const CHUNK: usize = 256;

/// Pushes the frames to every live member. `first` is the position of the slice's first member.
pub(in crate::engine) fn fan_out(members: &[Member], first: usize, frames: &Bytes) -> Outcome {
    members
        .par_chunks(CHUNK)
        .enumerate()
        .map(|(number, chunk)| serial::fan_out(chunk, first + number * CHUNK, frames))
        .reduce(Outcome::default, Outcome::merge)
}
