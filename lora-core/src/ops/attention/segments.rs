//! Texts that lie one behind another in one row, none of which sees another.

use super::AttentionOptions;
use super::composed::{self, Forward};
use burn::backend::{Backend, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Slice;
use std::ops::Range;
use std::sync::Arc;

/// The lengths of texts that are packed into one row without padding. A token of one sees nothing of the others, as if each
/// had a row of its own, and the scores between them are never computed.
///
/// # Example
/// ```
/// let segments = lora_core::ops::Segments::new(vec![3, 1, 2]);
/// assert_eq!(segments.tokens(), 6);
/// // A position starts anew with every text.
/// assert_eq!(segments.positions().collect::<Vec<_>>(), [0, 1, 2, 0, 0, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments(Arc<[usize]>);

impl Segments {
    /// Of texts of these lengths, in tokens.
    ///
    /// # Panics
    /// If there is none, or one of no token.
    pub fn new(lengths: Vec<usize>) -> Self {
        assert!(
            !lengths.is_empty() && !lengths.contains(&0),
            "texts of {lengths:?} tokens in a row: there must be one, and none without a token"
        );
        Self(lengths.into())
    }

    /// The lengths.
    pub fn lengths(&self) -> &[usize] {
        &self.0
    }

    /// The length of the row.
    pub fn tokens(&self) -> usize {
        self.0.iter().sum()
    }

    /// The place of each token of the row in its own text, from 0.
    pub fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(|&length| 0..length)
    }

    /// The places in the row that each text takes.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().scan(0, |end, length| {
            let start = *end;
            *end += length;
            Some(start..*end)
        })
    }
}

/// The attention of a text alone.
pub(super) struct Text {
    /// Which queries are its own.
    pub queries: Range<usize>,
    /// Which keys.
    pub keys: Range<usize>,
    pub options: AttentionOptions,
}

impl AttentionOptions {
    /// Each text alone. Where nothing is packed, there is one, of all queries and keys.
    ///
    /// # Panics
    /// If the texts are not all of the queries and of the keys.
    pub(super) fn apart(&self, queries: usize, keys: usize) -> Vec<Text> {
        let alone = |index: usize| Self {
            segments: None,
            // A hash of the seed draws what is dropped: that of the next number has nothing in common with it.
            seed: self.seed.wrapping_add(index as u64),
            ..self.clone()
        };
        match &self.segments {
            None => vec![Text {
                queries: 0..queries,
                keys: 0..keys,
                options: alone(0),
            }],
            Some(segments) => {
                assert!(
                    queries == segments.tokens() && keys == queries,
                    "texts of {:?} tokens for {queries} queries and {keys} keys",
                    segments.lengths()
                );
                let ranges = segments.ranges().enumerate();
                let text = |(index, range): (usize, Range<usize>)| Text {
                    queries: range.clone(),
                    keys: range,
                    options: alone(index),
                };
                ranges.map(text).collect()
            }
        }
    }
}

/// [`composed::forward`] of each text.
pub(super) fn forward<B: Backend>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if options.segments.is_none() {
        return composed::forward::<B>(query, key, value, bias, &options);
    }
    let [_, _, queries, _] = query.shape().dims();
    let [_, _, keys, _] = key.shape().dims();
    let texts = options.apart(queries, keys).into_iter().map(|text| {
        let query = part::<B>(&query, &text.queries);
        let [key, value] = [&key, &value].map(|all| part::<B>(all, &text.keys));
        composed::forward::<B>(query, key, value, bias.clone(), &text.options)
    });
    let (outputs, statistics) = texts.unzip();
    (B::float_cat(outputs, 2), B::float_cat(statistics, 2))
}

/// [`composed::backward`] of each text.
pub(super) fn backward<B: Backend>(
    forward: Forward<B>,
    grad: FloatTensor<B>,
    options: AttentionOptions,
    of_bias: bool,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    Option<FloatTensor<B>>,
) {
    if options.segments.is_none() {
        return composed::backward(forward, grad, &options, of_bias);
    }
    let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
    let [_, _, queries, _] = forward.query.shape().dims();
    let [_, _, keys, _] = forward.key.shape().dims();
    for text in options.apart(queries, keys) {
        let alone = Forward::<B> {
            query: part::<B>(&forward.query, &text.queries),
            key: part::<B>(&forward.key, &text.keys),
            value: part::<B>(&forward.value, &text.keys),
            bias: forward.bias.clone(),
            output: part::<B>(&forward.output, &text.queries),
            statistics: part::<B>(&forward.statistics, &text.queries),
        };
        let grad = part::<B>(&grad, &text.queries);
        let (query, key, value, _) = composed::backward(alone, grad, &text.options, false);
        for (all, gradient) in gradients.iter_mut().zip([query, key, value]) {
            all.push(gradient);
        }
    }
    let [query, key, value] = gradients.map(|parts| B::float_cat(parts, 2));
    (query, key, value, None)
}

/// What lies at these places of `[batch, heads, seq, d]`.
fn part<B: Backend>(all: &FloatTensor<B>, range: &Range<usize>) -> FloatTensor<B> {
    let [batch, heads, _, d] = all.shape().dims();
    let slices = [0..batch, 0..heads, range.clone(), 0..d].map(Slice::from);
    B::float_slice(all.clone(), &slices)
}
