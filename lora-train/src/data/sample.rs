//! What the trainer asks of an example, whatever it is an example of.

use std::fmt::Debug;

/// An example that can be put beside others.
pub trait Sample: Clone + Debug + Send + Sync + 'static {
    /// Several of them side by side.
    type Batch: SampleBatch;

    /// The number of tokens.
    fn length(&self) -> usize;

    /// Puts examples side by side, the shorter ones filled up with `pad_id`.
    fn collate(samples: &[&Self], pad_id: u32) -> Self::Batch;
}

/// Examples side by side.
pub trait SampleBatch: Clone + Debug + Send + 'static {
    /// What the summed loss is divided by: the number of labels, or their weights together.
    fn weight(&self) -> f64;

    /// The number of tokens to report: what is predicted, or what is read where one thing is predicted of
    /// many tokens.
    fn counted_tokens(&self) -> usize;

    /// What is in the batch and where it was read, for error messages and logs.
    fn describe(&self) -> String;
}
