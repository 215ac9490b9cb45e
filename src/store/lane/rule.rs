//! What goes into one commit: as much as waits, up to a number of rows and of bytes.

/// Bounds of one commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// Most rows.
    pub(crate) rows_max: usize,
    /// Most payload bytes; one row may be larger, then it goes alone.
    pub(crate) bytes_max: usize,
}

/// How many rows from the front go into the next commit, by their sizes: at least one if there is
/// one.
pub(super) fn batch_length(sizes: impl Iterator<Item = usize>, limits: BatchLimits) -> usize {
    let mut bytes = 0_usize;
    let fits = |size: &usize| {
        bytes = bytes.saturating_add(*size);
        bytes <= limits.bytes_max
    };
    let mut sizes = sizes.take(limits.rows_max.max(1)).peekable();
    match sizes.peek() {
        None => 0,
        Some(_) => sizes.take_while(fits).count().max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_as_a_table() {
        let limits = BatchLimits { rows_max: 3, bytes_max: 100 };
        for (sizes, expected) in [
            (&[][..], 0),
            (&[10], 1),
            (&[10, 10, 10, 10], 3),
            (&[50, 50, 1], 2),
            (&[1000], 1),
            (&[1000, 1], 1),
            (&[1, 1000], 1),
        ] {
            assert_eq!(batch_length(sizes.iter().copied(), limits), expected, "{sizes:?}");
        }
    }
}
