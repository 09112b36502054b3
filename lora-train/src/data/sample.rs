//! Interface between the trainer and its examples.

use super::padding::Padding;
use std::borrow::Cow;
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

/// Examples of a run, by their indices.
pub trait Samples<S: Sample>: Send + Sync {
    /// Returns the number of examples.
    fn len(&self) -> usize;

    /// Returns true if there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns an example.
    ///
    /// # Panics
    /// If the index is not below [`len`](Self::len).
    fn get(&self, index: usize) -> Cow<'_, S>;
}

impl<S: Sample> Samples<S> for Vec<S> {
    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, index: usize) -> Cow<'_, S> {
        Cow::Borrowed(&self[index])
    }
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
