//! Interface between the trainer and its examples.

use super::padding::Padding;
use std::fmt::Debug;

/// Example that can be put into a batch.
pub trait Sample: Clone + Debug + Send + Sync + 'static {
    /// Batch of such examples.
    type Batch: SampleBatch;

    /// Returns the number of tokens.
    fn length(&self) -> usize;

    /// Puts examples side by side and pads them to one length.
    fn collate(samples: &[&Self], padding: Padding) -> Self::Batch;
}

/// Batch of examples.
pub trait SampleBatch: Clone + Debug + Send + 'static {
    /// Returns the divisor of the summed loss: the number of labels, or the sum of their weights.
    fn weight(&self) -> f64;

    /// Returns the number of tokens to report: the predicted tokens, or the input tokens where one label belongs to
    /// many tokens.
    fn counted_tokens(&self) -> usize;

    /// Describes the batch and the places where it was read, for error messages and logs.
    fn describe(&self) -> String;
}
