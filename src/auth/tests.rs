//! Tokens that are good, bad and forged.
