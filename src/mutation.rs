//! Input for parsers: examples with changes that are drawn at random and are the same in every run.

/// Hands `count` changed copies of the examples to `check`.
pub(crate) fn each(examples: &[Vec<u8>], count: usize, mut check: impl FnMut(&[u8])) {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..count {
        let mut bytes = examples[round % examples.len()].clone();
        for _ in 0..=random.below(4) {
            change(&mut bytes, examples, &mut random);
        }
        check(&bytes);
    }
}

/// One change: a byte, a bit, a cut, a doubled part, an inserted sign of the grammar, or another example's end.
fn change(bytes: &mut Vec<u8>, examples: &[Vec<u8>], random: &mut Random) {
    const SIGNS: &[u8] = b"\"\\,;=:[]% \t\r\n\0./_-+0f\xff";
    let at = random.below(bytes.len() + 1);
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] = random.below(256) as u8,
        1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 => bytes.truncate(at),
        3 => {
            let part = bytes[at..].to_vec();
            bytes.extend_from_slice(&part);
        }
        4 => {
            let other = &examples[random.below(examples.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        _ => bytes.insert(at, SIGNS[random.below(SIGNS.len())]),
    }
}

/// A small generator (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as usize % limit
    }
}
