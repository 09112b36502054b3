//! Examples to train on, in memory or in a mapped file.

use super::digest::DataDigest;
use super::example::Example;
use super::sample::Samples;
use super::token_file::TokenFile;
use std::borrow::Cow;

/// Examples to train on.
#[derive(Clone, Debug)]
pub enum ExampleSet {
    /// Examples in memory.
    Memory(Vec<Example>),
    /// Examples in a mapped file.
    File(Box<TokenFile>),
}

impl ExampleSet {
    /// Returns the number of tokens of each example.
    pub fn lengths(&self) -> Vec<usize> {
        match self {
            Self::Memory(examples) => examples.iter().map(Example::len).collect(),
            Self::File(file) => file.lengths().collect(),
        }
    }

    /// Computes the digest of the examples, whose classes have these names. Those of a file have no classes.
    pub fn digest(&self, classes: &[String]) -> DataDigest {
        match self {
            Self::Memory(examples) => DataDigest::new(examples, classes),
            Self::File(file) => file.digest().clone(),
        }
    }

    /// Returns the examples in memory.
    pub(crate) fn into_vec(self) -> Vec<Example> {
        match self {
            Self::Memory(examples) => examples,
            Self::File(file) => (0..file.len()).map(|index| file.get(index)).collect(),
        }
    }
}

impl Samples<Example> for ExampleSet {
    fn len(&self) -> usize {
        match self {
            Self::Memory(examples) => examples.len(),
            Self::File(file) => file.len(),
        }
    }

    fn get(&self, index: usize) -> Cow<'_, Example> {
        match self {
            Self::Memory(examples) => Cow::Borrowed(&examples[index]),
            Self::File(file) => Cow::Owned(file.get(index)),
        }
    }
}
