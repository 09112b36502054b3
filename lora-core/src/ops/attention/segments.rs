//! Packing: several texts in one row, each of which attends to itself only.

use super::{AttentionOptions, AttentionState, Gradients, parts};
use crate::ops::prelude::*;
use crate::ops::product::ProductOps;
use burn::tensor::Slice;
use std::ops::Range;
use std::sync::Arc;

/// Lengths of texts that are packed into one row without padding.
///
/// A token sees the tokens of its own text only, as if each text had its own row. Scores between texts are never computed.
///
/// # Example
/// ```
/// let segments = lora_core::ops::Segments::new(vec![3, 1, 2]);
/// assert_eq!(segments.tokens(), 6);
/// // Positions start again at 0 with every text.
/// assert_eq!(segments.positions().collect::<Vec<_>>(), [0, 1, 2, 0, 0, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments(Arc<[usize]>);

impl Segments {
    /// Creates segments from the lengths of the texts, in tokens.
    ///
    /// # Panics
    /// Panics if there is no text, or an empty one.
    pub fn new(lengths: Vec<usize>) -> Self {
        assert!(
            !lengths.is_empty() && !lengths.contains(&0),
            "texts of {lengths:?} tokens in a row: there must be one, and none without a token"
        );
        Self(lengths.into())
    }

    /// Returns the lengths of the texts, in tokens.
    pub fn lengths(&self) -> &[usize] {
        &self.0
    }

    /// Returns the length of the row, in tokens.
    pub fn tokens(&self) -> usize {
        self.0.iter().sum()
    }

    /// Returns the position of each token in its own text, counted from 0.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(|&length| 0..length)
    }

    /// Returns the range of each text in the row.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        })
    }
}

/// Attention within one text.
pub(super) struct Segment {
    /// Range of its queries.
    pub queries: Range<usize>,
    /// Range of its keys.
    pub keys: Range<usize>,
    pub options: AttentionOptions,
}

impl AttentionOptions {
    /// Splits attention by text. Without packing there is one segment, of all queries and keys.
    ///
    /// # Panics
    /// Panics if the texts do not cover exactly the queries and the keys.
    pub(super) fn by_segment(&self, queries: usize, keys: usize) -> Vec<Segment> {
        let options = |index: usize| Self {
            segments: None,
            // The mask is a hash of the seed, so that consecutive seeds give independent masks.
            seed: self.seed.wrapping_add(index as u64),
            ..self.clone()
        };
        match &self.segments {
            None => vec![Segment {
                queries: 0..queries,
                keys: 0..keys,
                options: options(0),
            }],
            Some(segments) => {
                assert!(
                    queries == segments.tokens() && keys == queries,
                    "texts of {:?} tokens for {queries} queries and {keys} keys",
                    segments.lengths()
                );
                let ranges = segments.ranges().enumerate();
                let segment = |(index, range): (usize, Range<usize>)| Segment {
                    queries: range.clone(),
                    keys: range,
                    options: options(index),
                };
                ranges.map(segment).collect()
            }
        }
    }
}

/// Computes [`parts::forward`] text by text.
pub(super) fn forward<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    if options.segments.is_none() {
        return parts::forward::<B>(query, key, value, bias, &options);
    }
    let mut results = [Vec::new(), Vec::new(), Vec::new()];
    let [_, _, queries, _] = query.shape().dims();
    let [_, _, keys, _] = key.shape().dims();
    for text in options.by_segment(queries, keys) {
        let query = slice_seq::<B>(&query, &text.queries);
        let [key, value] = [&key, &value].map(|all| slice_seq::<B>(all, &text.keys));
        let (output, maximum, sum) =
            parts::forward::<B>(query, key, value, bias.clone(), &text.options);
        for (all, result) in results.iter_mut().zip([output, maximum, sum]) {
            all.push(result);
        }
    }
    let [output, maximum, sum] = results.map(|parts| B::float_cat(parts, 2));
    (output, maximum, sum)
}

/// Computes [`parts::backward`] text by text.
pub(super) fn backward<B: ProductOps>(
    state: AttentionState<B>,
    grad: FloatTensor<B>,
    options: AttentionOptions,
    with_bias_grad: bool,
) -> Gradients<B> {
    if options.segments.is_none() {
        return parts::backward(state, grad, &options, with_bias_grad);
    }
    let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
    let [_, _, queries, _] = state.query.shape().dims();
    let [_, _, keys, _] = state.key.shape().dims();
    for text in options.by_segment(queries, keys) {
        let by_query = [&state.query, &state.maximum, &state.sum, &grad];
        let [query, maximum, sum, grad] = by_query.map(|all| slice_seq::<B>(all, &text.queries));
        let [key, value] = [&state.key, &state.value].map(|all| slice_seq::<B>(all, &text.keys));
        let kept = [state.bias.clone(), maximum, sum];
        let text_state = AttentionState::<B>::new([query, key, value], kept);
        let (query, key, value, _) = parts::backward(text_state, grad, &text.options, false);
        for (all, gradient) in gradients.iter_mut().zip([query, key, value]) {
            all.push(gradient);
        }
    }
    let [query, key, value] = gradients.map(|parts| B::float_cat(parts, 2));
    (query, key, value, None)
}

/// Slices `range` of the axis `seq` of `[batch, heads, seq, d]`.
fn slice_seq<B: Backend>(all: &FloatTensor<B>, range: &Range<usize>) -> FloatTensor<B> {
    let [batch, heads, _, d] = all.shape().dims();
    let slices = [0..batch, 0..heads, range.clone(), 0..d].map(Slice::from);
    B::float_slice(all.clone(), &slices)
}
