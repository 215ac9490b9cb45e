//! Random choices that can be repeated.

/// A small generator (xorshift64*), so that a seed means the same choices everywhere.
pub struct Random(u64);

impl Random {
    /// Different dice for each `stream` of one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        // An odd multiplier keeps neighbouring streams apart; the generator must not start at 0.
        Self((seed ^ (stream + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % limit
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
