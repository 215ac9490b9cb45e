//! How long an attack is, and from which seed it throws its dice.

use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::support::random::Random;

/// The length of this run: the second value when `ROOMCAST_TORTURE=long`.
pub fn short_or_long<T>(short: T, long: T) -> T {
    match std::env::var("ROOMCAST_TORTURE").as_deref() {
        Ok("long") => long,
        Ok("short") | Err(_) => short,
        Ok(other) => panic!("ROOMCAST_TORTURE is `short` or `long`, not `{other}`"),
    }
}

/// The same for a count that a variable may set to another one: `ROOMCAST_TORTURE_KILLS`, `ROOMCAST_TORTURE_DELIVERIES`.
pub fn count(variable: &str, short: u64, long: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(short_or_long(short, long), |count| {
        count.parse().unwrap_or_else(|_| panic!("{variable} is a number, not `{count}`"))
    })
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
