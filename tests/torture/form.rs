//! How long an attack is, and the dice it throws.

use std::time::{SystemTime, UNIX_EPOCH};

/// The length of this run: the second value when `ROOMCAST_TORTURE=long`.
pub fn short_or_long<T>(short: T, long: T) -> T {
    match std::env::var("ROOMCAST_TORTURE").as_deref() {
        Ok("long") => long,
        Ok("short") | Err(_) => short,
        Ok(other) => panic!("ROOMCAST_TORTURE is `short` or `long`, not `{other}`"),
    }
}

/// The seed of this run, which it prints so that it can be run again.
pub fn seed() -> u64 {
    let given = std::env::var("ROOMCAST_TEST_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("ROOMCAST_TEST_SEED is a number"));
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = given.unwrap_or_else(clock);
    eprintln!("ROOMCAST_TEST_SEED={seed}");
    seed
}

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
