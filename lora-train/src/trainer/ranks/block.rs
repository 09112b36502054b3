//! Division of a step's batches among ranks.

use std::ops::Range;

/// Returns the batches of a step that a rank computes, as positions among the `batches` of the step.
///
/// Ranks take consecutive blocks of equal length; the last ones may have a shorter block or none.
pub(in crate::trainer) fn block(batches: usize, rank: usize, ranks: usize) -> Range<usize> {
    let length = batches.div_ceil(ranks.max(1));
    let start = (rank * length).min(batches);
    start..(start + length).min(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_is_in_one_block_and_no_block_is_longer_than_it_must_be() {
        for ranks in 1..9 {
            for batches in 0..40 {
                let blocks: Vec<_> = (0..ranks).map(|rank| block(batches, rank, ranks)).collect();
                let all: Vec<usize> = blocks.iter().cloned().flatten().collect();
                assert!(all.into_iter().eq(0..batches));
                let longest = blocks.iter().map(Range::len).max().unwrap();
                assert_eq!(longest, batches.div_ceil(ranks));
                // The first rank describes the step in messages.
                assert_eq!(blocks[0].is_empty(), batches == 0);
            }
        }
    }
}
