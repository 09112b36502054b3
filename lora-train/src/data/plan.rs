//! Division of the examples into batches, epoch after epoch.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::batch_size::BatchSize;
use super::mix::Mix;
use super::padding::Padding;
use crate::error::TrainError;

/// Number of batches whose examples are sorted by length together: the number that transformers
/// uses. More would leave the same examples together in every epoch, fewer would pad more.
const MEGA_BATCH: usize = 50;

/// Order of the examples in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchOrder {
    /// Order of the file in every epoch, for evaluation.
    FileOrder,
    /// New random order in every epoch.
    #[default]
    Shuffled,
    /// Random order with examples of like length in a batch, so that little is padded. The batch
    /// that takes the most memory comes first: if it does not fit, that shows at once.
    GroupedByLength,
}

/// Division of examples into batches.
///
/// The batches of an epoch depend on the lengths, the batch size, the order, the seed and the number
/// of the epoch alone, not on the epochs before it nor on the platform: a run that is resumed
/// computes the plan of its epoch again. A test fixes the random numbers,
/// so that an upgrade of `rand` cannot change them unseen.
///
/// No example is left out, but by a [`Mix`]: the last batch may be smaller than the others.
///
/// Examples are taken in the order of the epoch, and a batch ends where the next one would be too much for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    lengths: Vec<usize>,
    size: BatchSize,
    order: BatchOrder,
    seed: u64,
    padding: Padding,
    mix: Option<Mix>,
}

impl BatchPlan {
    /// Creates a plan for examples of these lengths, in tokens.
    ///
    /// # Errors
    /// [`TrainError::Config`] if `size` is 0, there is no example, or one has more tokens than a batch may have.
    ///
    /// # Examples
    /// ```
    /// use lora_train::data::{BatchOrder, BatchPlan, BatchSize};
    ///
    /// # fn main() -> Result<(), lora_train::error::TrainError> {
    /// let lengths = vec![5, 3, 9, 4, 8];
    /// let plan = BatchPlan::new(lengths.clone(), 2, BatchOrder::FileOrder, 0)?;
    /// assert_eq!(plan.epoch(0), [vec![0, 1], vec![2, 3], vec![4]]);
    /// assert_eq!(plan.batches_in(0), 3);
    ///
    /// // Two of 5 tokens are padded, 9 and 4 would be 18.
    /// let tokens = BatchSize::PaddedTokens(12);
    /// let plan = BatchPlan::new(lengths.clone(), tokens, BatchOrder::FileOrder, 0)?;
    /// assert_eq!(plan.epoch(0), [vec![0, 1], vec![2], vec![3], vec![4]]);
    ///
    /// // 4 + 8 tokens are 12 where nothing is padded.
    /// let tokens = BatchSize::PackedTokens(12);
    /// let plan = BatchPlan::new(lengths, tokens, BatchOrder::FileOrder, 0)?;
    /// assert_eq!(plan.epoch(0), [vec![0, 1], vec![2], vec![3, 4]]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(
        lengths: Vec<usize>,
        size: impl Into<BatchSize>,
        order: BatchOrder,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let size = size.into();
        let Some(&longest) = lengths.iter().max() else {
            let message = "there are none to make batches of";
            return Err(TrainError::config("examples", message));
        };
        match size {
            BatchSize::Examples(0) => {
                let message = "0 examples make no batch; give at least 1";
                Err(TrainError::config("batch_size", message))
            }
            BatchSize::PaddedTokens(tokens) | BatchSize::PackedTokens(tokens)
                if tokens < longest =>
            {
                let message = format!(
                    "the longest example has {longest} tokens, and a batch no more than {tokens}; give at \
                     least {longest}, or a lower max_length"
                );
                Err(TrainError::config("batch_tokens", message))
            }
            _ => Ok(Self {
                lengths,
                size,
                order,
                seed,
                padding: Padding::from(0),
                mix: None,
            }),
        }
    }

    /// Sets the padding. Only the batches of [`BatchSize::PaddedTokens`] depend on it.
    pub fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Sets the mix, whose examples an epoch has in place of all.
    pub fn with_mix(mut self, mix: Option<Mix>) -> Self {
        self.mix = mix;
        self
    }

    /// Returns the number of examples in an epoch.
    fn examples(&self) -> usize {
        let all = self.lengths.len();
        self.mix.as_ref().map_or(all, Mix::len)
    }

    /// Returns the number of batches in epoch `epoch`, counted from 0: the same in each, unless their size is in tokens.
    pub fn batches_in(&self, epoch: u64) -> usize {
        match self.size {
            BatchSize::Examples(examples) => self.examples().div_ceil(examples),
            BatchSize::PaddedTokens(_) | BatchSize::PackedTokens(_) => self.epoch(epoch).len(),
        }
    }

    /// Returns the number of rows and tokens in a row of the largest batch of any epoch, or slightly more.
    pub fn largest(&self) -> [usize; 2] {
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        let longest = self.padding.length(longest);
        match self.size {
            BatchSize::Examples(examples) => [examples.min(self.examples()), longest],
            BatchSize::PaddedTokens(tokens) => [(tokens / longest.max(1)).max(1), longest],
            BatchSize::PackedTokens(tokens) => [1, tokens],
        }
    }

    /// Returns the batches of epoch `epoch`, counted from 0, as the indices of their examples.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut indices: Vec<usize> = match &self.mix {
            None => (0..self.lengths.len()).collect(),
            // Another stream than that of the order.
            Some(mix) => mix.draw(&mut self.rng(epoch, 1)),
        };
        match self.order {
            BatchOrder::FileOrder => self.cut(&indices),
            BatchOrder::Shuffled => {
                indices.shuffle(&mut self.rng(epoch, 0));
                self.cut(&indices)
            }
            BatchOrder::GroupedByLength => {
                let mut rng = self.rng(epoch, 0);
                indices.shuffle(&mut rng);
                let mean = self.lengths.iter().sum::<usize>() / self.lengths.len().max(1);
                let mega_batch = self.size.examples(mean).saturating_mul(MEGA_BATCH);
                for together in indices.chunks_mut(mega_batch) {
                    // A stable sort: examples of one length stay shuffled among themselves.
                    together.sort_by_key(|&index| std::cmp::Reverse(self.length(index)));
                }
                let mut batches = self.cut(&indices);
                batches.shuffle(&mut rng);
                self.largest_first(&mut batches);
                batches
            }
        }
    }

    /// Creates a random number generator of an epoch. Seed, epoch and stream fill the generator's seed side by side: added or
    /// hashed together, epoch 1 of one seed could be epoch 0 of another.
    fn rng(&self, epoch: u64, stream: u8) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&epoch.to_le_bytes());
        seed[16] = stream;
        StdRng::from_seed(seed)
    }

    fn cut(&self, indices: &[usize]) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let (mut examples, mut tokens, mut longest) = (0, 0, 0);
        for &index in indices {
            let length = self.length(index);
            (examples, tokens, longest) = (examples + 1, tokens + length, longest.max(length));
            let padded = self.padding.length(longest);
            let fits = self.size.holds(examples, tokens, padded);
            match batches.last_mut().filter(|_| fits) {
                Some(batch) => batch.push(index),
                None => {
                    batches.push(vec![index]);
                    (examples, tokens, longest) = (1, length, length);
                }
            }
        }
        batches
    }

    fn length(&self, index: usize) -> usize {
        self.lengths.get(index).copied().unwrap_or(0)
    }

    /// Moves the batch with the most positions to the front. Each row counts as long as the longest, on every device.
    fn largest_first(&self, batches: &mut [Vec<usize>]) {
        let positions = |batch: &Vec<usize>| {
            let lengths = batch.iter().map(|&index| self.length(index));
            let seq = lengths.max().unwrap_or(0);
            (seq.saturating_mul(batch.len()), seq)
        };
        let largest = (0..batches.len()).max_by_key(|&at| positions(&batches[at]));
        if let Some(largest) = largest {
            batches.swap(0, largest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// 1000 lengths from 1 to 97 in no order.
    fn lengths() -> Vec<usize> {
        (0..1000).map(|i| i * 7919 % 97 + 1).collect()
    }

    fn plan(order: BatchOrder, seed: u64) -> BatchPlan {
        BatchPlan::new(lengths(), 8, order, seed).unwrap()
    }

    fn padding(batches: &[Vec<usize>]) -> usize {
        let lengths = lengths();
        let of = |batch: &Vec<usize>| {
            let seq = batch.iter().map(|&i| lengths[i]).max().unwrap();
            batch.iter().map(|&i| seq - lengths[i]).sum::<usize>()
        };
        batches.iter().map(of).sum()
    }

    #[test]
    fn every_example_is_in_exactly_one_batch_of_each_epoch() {
        for order in [
            BatchOrder::FileOrder,
            BatchOrder::Shuffled,
            BatchOrder::GroupedByLength,
        ] {
            // 1000 is no multiple of 7: the last batch is a smaller one.
            let plan = BatchPlan::new(lengths(), 7, order, 3).unwrap();
            for epoch in 0..3 {
                let batches = plan.epoch(epoch);
                assert_eq!(batches.len(), plan.batches_in(epoch));
                assert_eq!(batches.len(), 143);
                let small = batches.iter().filter(|batch| batch.len() < 7).count();
                assert_eq!(small, 1, "{order:?}");
                let seen: BTreeSet<usize> = batches.concat().into_iter().collect();
                assert_eq!(seen.len(), 1000);
                assert_eq!(batches.concat().len(), 1000);
            }
        }
    }

    #[test]
    fn epochs_differ_seeds_differ_and_both_repeat() {
        for order in [BatchOrder::Shuffled, BatchOrder::GroupedByLength] {
            let plan_1 = plan(order, 1);
            assert_ne!(plan_1.epoch(0), plan_1.epoch(1));
            assert_ne!(plan_1.epoch(0), plan(order, 2).epoch(0));
            // Seed 1 at epoch 2 is not seed 2 at epoch 1.
            assert_ne!(plan_1.epoch(2), plan(order, 2).epoch(1));
            // Epoch 5 alone, as on a resume.
            let resumed = plan(order, 1).epoch(5);
            let through: Vec<_> = (0..6).map(|epoch| plan_1.epoch(epoch)).collect();
            assert_eq!(through.last(), Some(&resumed));
        }
    }

    #[test]
    fn file_order_is_the_same_every_epoch() {
        let plan = plan(BatchOrder::FileOrder, 1);
        assert_eq!(plan.epoch(0), plan.epoch(9));
        assert_eq!(plan.epoch(0).concat(), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn grouping_by_length_pads_far_less_than_shuffling() {
        let shuffled = padding(&plan(BatchOrder::Shuffled, 0).epoch(0));
        let grouped = padding(&plan(BatchOrder::GroupedByLength, 0).epoch(0));
        assert!(grouped * 5 < shuffled, "{grouped} against {shuffled}");
    }

    #[test]
    fn the_batch_with_the_most_positions_comes_first() {
        let grouped = plan(BatchOrder::GroupedByLength, 4).epoch(2);
        let lengths = lengths();
        let positions =
            |batch: &Vec<usize>| batch.len() * batch.iter().map(|&i| lengths[i]).max().unwrap_or(0);
        let most = grouped.iter().map(positions).max().unwrap();
        assert_eq!(positions(&grouped[0]), most);
        // And the others are shuffled, not sorted.
        let rest: Vec<usize> = grouped[1..].iter().map(positions).collect();
        assert!(!rest.is_sorted() && !rest.iter().rev().is_sorted());
    }

    /// A resumed run must find the order that it was interrupted in, even after an upgrade: these
    /// are the values of `rand` 0.10 with its `StdRng` of `ChaCha` with 12 rounds.
    #[test]
    fn the_order_of_a_seed_is_what_it_always_was() {
        let plan = BatchPlan::new(vec![1; 10], 4, BatchOrder::Shuffled, 42).unwrap();
        assert_eq!(plan.epoch(0).concat(), GOLDEN[0]);
        assert_eq!(plan.epoch(1).concat(), GOLDEN[1]);
    }

    const GOLDEN: [[usize; 10]; 2] = [
        [6, 1, 9, 5, 0, 7, 4, 8, 3, 2],
        [9, 6, 5, 1, 2, 0, 4, 3, 7, 8],
    ];

    #[test]
    fn no_examples_and_a_batch_size_of_zero_are_configuration_errors() {
        assert!(BatchPlan::new(vec![], 8, BatchOrder::Shuffled, 0).is_err());
        assert!(BatchPlan::new(vec![1], 0, BatchOrder::Shuffled, 0).is_err());
    }

    #[test]
    fn a_mix_has_its_shares_in_every_epoch_and_other_examples_in_each() {
        for order in [
            BatchOrder::FileOrder,
            BatchOrder::Shuffled,
            BatchOrder::GroupedByLength,
        ] {
            // Of 1000 examples, the first 100 are a file of their own with a third of an epoch.
            let mix = Mix::new(&[100, 900], &[1.0 / 3.0, 2.0 / 3.0]).unwrap();
            let plan = plan(order, 5).with_mix(Some(mix));
            let epochs: Vec<Vec<usize>> = (0..2).map(|epoch| plan.epoch(epoch).concat()).collect();
            for epoch in &epochs {
                let seen: BTreeSet<usize> = epoch.iter().copied().collect();
                assert_eq!((seen.len(), epoch.len()), (300, 300));
                assert_eq!(seen.range(..100).count(), 100);
            }
            assert_eq!(plan.batches_in(0), 38);
            assert_eq!(plan.epoch(0).len(), 38);
            let [first, second] = [0, 1].map(|at| BTreeSet::from_iter(&epochs[at]));
            assert!(first.intersection(&second).count() < 250, "{order:?}");
            assert_eq!(epochs[0].is_sorted(), order == BatchOrder::FileOrder);
        }
    }

    #[test]
    fn batches_of_tokens_hold_every_example_once_and_no_more_than_they_may() {
        let lengths = lengths();
        for size in [BatchSize::PaddedTokens(300), BatchSize::PackedTokens(300)] {
            for order in [
                BatchOrder::FileOrder,
                BatchOrder::Shuffled,
                BatchOrder::GroupedByLength,
            ] {
                let plan = BatchPlan::new(lengths.clone(), size, order, 3).unwrap();
                for epoch in 0..3 {
                    let batches = plan.epoch(epoch);
                    assert_eq!(batches.len(), plan.batches_in(epoch));
                    let mut seen = batches.concat();
                    seen.sort_unstable();
                    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
                    let tokens = |batch: &Vec<usize>| {
                        let lengths = batch.iter().map(|&i| lengths[i]);
                        match size {
                            BatchSize::PaddedTokens(_) => batch.len() * lengths.max().unwrap(),
                            _ => lengths.sum(),
                        }
                    };
                    let most = batches.iter().map(tokens).max().unwrap();
                    assert!((250..=300).contains(&most), "{most}");
                }
            }
        }
        // Sorted by length, batches of short examples have more of them.
        let size = BatchSize::PaddedTokens(300);
        let grouped = BatchPlan::new(lengths, size, BatchOrder::GroupedByLength, 3).unwrap();
        let counts: Vec<usize> = grouped.epoch(0).iter().map(Vec::len).collect();
        assert!(counts.contains(&3) && counts.iter().any(|&count| count > 20));
    }

    #[test]
    fn padding_to_a_multiple_counts_in_a_budget_of_tokens_and_nowhere_else() {
        let padding = Padding::from(0).to_multiple_of(64, 97);
        let plans = |size: BatchSize| {
            let plan = BatchPlan::new(lengths(), size, BatchOrder::GroupedByLength, 3).unwrap();
            [plan.clone(), plan.with_padding(padding)].map(|plan| plan.epoch(1))
        };
        for size in [BatchSize::Examples(7), BatchSize::PackedTokens(300)] {
            let [plain, padded] = plans(size);
            assert_eq!(plain, padded);
        }
        let [plain, padded] = plans(BatchSize::PaddedTokens(300));
        assert!(padded.len() > plain.len());
        let lengths = lengths();
        for batch in &padded {
            let longest = batch.iter().map(|&index| lengths[index]).max().unwrap();
            assert!(batch.len() * padding.length(longest) <= 300);
        }
    }

    #[test]
    fn an_example_that_no_batch_holds_is_a_configuration_error() {
        for size in [BatchSize::PaddedTokens(8), BatchSize::PackedTokens(8)] {
            let error = BatchPlan::new(vec![3, 9], size, BatchOrder::Shuffled, 0).unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("batch_tokens") && error.contains("9 tokens"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_batch_size_beyond_the_examples_makes_one_batch() {
        let plan =
            BatchPlan::new(vec![1, 2, 3], usize::MAX, BatchOrder::GroupedByLength, 0).unwrap();
        assert_eq!(plan.epoch(0), [vec![2, 1, 0]]);
    }
}
