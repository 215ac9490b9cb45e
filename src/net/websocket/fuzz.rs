//! What a fuzzer gives to the count of frames.

use super::progress::Progress;

/// Frames end at the same byte whether they come at once or byte by byte.
pub fn frames(bytes: &[u8]) {
    let (mut whole, mut dripped) = (Progress::default(), Progress::default());
    let ended = whole.pass(bytes);
    let ended_one_by_one = bytes.chunks(1).fold(false, |ended, byte| dripped.pass(byte) | ended);
    assert_eq!((ended, whole.is_inside()), (ended_one_by_one, dripped.is_inside()));
}
