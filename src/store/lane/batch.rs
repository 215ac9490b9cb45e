//! How much of what waits goes into one commit: a pure rule.

/// Bounds of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchLimits {
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
}

/// How many of the waiting rows, given by their sizes in order of arrival, the next commit takes:
/// as many as fit both bounds, and at least one, so that a row larger than the bound still moves.
pub(super) fn rows_to_take(sizes: impl Iterator<Item = usize>, limits: BatchLimits) -> usize {
    let mut bytes = 0_usize;
    let fitting = sizes
        .take(limits.rows_max)
        .take_while(|size| {
            bytes = bytes.saturating_add(*size);
            bytes <= limits.bytes_max
        })
        .count();
    fitting.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_one_row_always_goes() {
        let take = |sizes: &[usize], rows_max, bytes_max| {
            rows_to_take(sizes.iter().copied(), BatchLimits { rows_max, bytes_max })
        };
        assert_eq!(take(&[1, 1, 1], 512, 100), 3);
        assert_eq!(take(&[1, 1, 1], 2, 100), 2);
        assert_eq!(take(&[60, 40, 1], 512, 100), 2);
        assert_eq!(take(&[60, 41, 1], 512, 100), 1);
        assert_eq!(take(&[500, 1], 512, 100), 1);
        assert_eq!(take(&[usize::MAX, usize::MAX], 512, usize::MAX), 2);
        assert_eq!(take(&[5, 5], 0, 0), 1);
    }
}
