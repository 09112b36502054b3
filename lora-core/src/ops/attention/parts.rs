//! Attention in parts of the batch and of the heads, each with scores of a bounded size.
//!
//! Some adapters bind no more than 128 MiB as one buffer, and scores are the only activations that grow with the square of the
//! length.

use super::composed;
use super::{AttentionOptions, AttentionState, Gradients};
use crate::ops::prelude::*;
use crate::ops::product::ProductOps;
use burn::tensor::Slice;
use std::ops::Range;

/// Part of the batch and of the heads.
struct Part {
    batch: Range<usize>,
    heads: Range<usize>,
    /// Index of its first weight among all weights.
    first: usize,
}

impl Part {
    /// Lists the parts, heads by example. Each has scores of `bytes` bytes an element and of at most `most` bytes, or one head.
    /// Heads are divided only if the scores of one example exceed that size.
    fn all(shape: [usize; 4], most: Option<u64>, bytes: usize) -> Vec<Vec<Self>> {
        let [batch, heads, queries, keys] = shape;
        let head = queries * keys;
        let fitting = most.map_or(usize::MAX, |most| most as usize / (head * bytes).max(1));
        let part = |batch: Range<usize>, part: Range<usize>| Self {
            first: (batch.start * heads + part.start) * head,
            batch,
            heads: part,
        };
        let by_example = |batch: Range<usize>| {
            let heads = even(heads, fitting).into_iter();
            heads.map(|heads| part(batch.clone(), heads)).collect()
        };
        let examples = even(batch, fitting / heads.max(1)).into_iter();
        examples.map(by_example).collect()
    }

    /// Slices this part of a tensor. An axis of size 1 is broadcast.
    fn of<B: Backend>(&self, all: &FloatTensor<B>) -> FloatTensor<B> {
        let whole = all.shape().dims::<4>().map(|size| 0..size);
        let mut slices = whole.clone();
        for (slice, part) in slices.iter_mut().zip([&self.batch, &self.heads]) {
            if slice.len() > 1 {
                *slice = part.clone();
            }
        }
        if slices == whole {
            return all.clone();
        }
        B::float_slice(all.clone(), &slices.map(Slice::from))
    }
}

/// Divides `size` places into ranges of nearly one length, at most `most` or 1.
fn even(size: usize, most: usize) -> Vec<Range<usize>> {
    let parts = size.div_ceil(most.max(1)).max(1);
    let length = size.div_ceil(parts).max(1);
    let starts = (0..size.max(1)).step_by(length);
    starts
        .map(|start| start..size.min(start + length))
        .collect()
}

/// Computes each part, and joins the results: along an axis of parts they are concatenated, or added where `is_shared` says
/// so of the result's index and the axis.
fn joined<B: Backend>(
    parts: &[Vec<Part>],
    is_shared: impl Fn(usize, usize) -> bool,
    mut compute: impl FnMut(&Part) -> Vec<FloatTensor<B>>,
) -> std::vec::IntoIter<FloatTensor<B>> {
    let join = |mut all: Vec<Vec<FloatTensor<B>>>, axis: usize| {
        if all.len() == 1 {
            return all.remove(0);
        }
        let mut all: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        let mut results = Vec::new();
        loop {
            let parts: Vec<_> = all.iter_mut().filter_map(Iterator::next).collect();
            if parts.is_empty() {
                return results;
            }
            results.push(if is_shared(results.len(), axis) {
                let sum = parts
                    .into_iter()
                    .reduce(|sum, part| B::float_add(sum, part));
                sum.expect("there is a part")
            } else {
                B::float_cat(parts, axis)
            });
        }
    };
    let examples: Vec<_> = parts
        .iter()
        .map(|heads| join(heads.iter().map(&mut compute).collect(), 1))
        .collect();
    join(examples, 0).into_iter()
}

/// Returns the shape of the scores.
fn scores_shape<B: Backend>(query: &FloatTensor<B>, key: &FloatTensor<B>) -> [usize; 4] {
    let [batch, heads, queries, _] = query.shape().dims();
    [batch, heads, queries, key.shape()[2]]
}

/// Computes [`composed::forward`] part by part.
pub(super) fn forward<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: &AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let shape = scores_shape::<B>(&query, &key);
    let bytes = accumulation_dtype(query.dtype()).size();
    let parts = Part::all(shape, options.max_scores_bytes, bytes);
    let mut results = joined::<B>(
        &parts,
        |_, _| false,
        |part| {
            let inputs = [&query, &key, &value, &bias];
            let [query, key, value, bias] = inputs.map(|all| part.of::<B>(all));
            let (output, maximum, sum) =
                composed::forward::<B>(query, key, value, bias, options, part.first);
            vec![output, maximum, sum]
        },
    );
    let mut next = || results.next().expect("a part has three results");
    (next(), next(), next())
}

/// Computes [`composed::backward`] part by part.
pub(super) fn backward<B: ProductOps>(
    state: AttentionState<B>,
    grad: FloatTensor<B>,
    options: &AttentionOptions,
    with_bias_grad: bool,
) -> Gradients<B> {
    let shape = scores_shape::<B>(&state.query, &state.key);
    let bytes = accumulation_dtype(state.query.dtype()).size();
    let parts = Part::all(shape, options.max_scores_bytes, bytes);
    let bias_shape = state.bias.shape();
    let mut results = joined::<B>(
        &parts,
        |result, axis| result == 3 && bias_shape[axis] == 1,
        |part| {
            let state = state.map(|all| part.of::<B>(all));
            let grad = part.of::<B>(&grad);
            let (query, key, value, bias) =
                composed::backward(state, grad, options, with_bias_grad, part.first);
            [query, key, value].into_iter().chain(bias).collect()
        },
    );
    let mut next = || results.next().expect("a part has three gradients");
    (next(), next(), next(), results.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_heads_of_all_examples_once_and_in_order() {
        let shape = [3, 4, 5, 6];
        let head = 4 * 5 * 6;
        for (most, count) in [
            (None, 1),
            (Some(12 * head), 1),
            (Some(8 * head), 2),
            (Some(5 * head), 3),
            (Some(3 * head), 6),
            (Some(head), 12),
            (Some(1), 12),
        ] {
            let parts = Part::all(shape, most.map(|most| most as u64), 4);
            let heads = parts.iter().flatten().flat_map(|part| {
                let examples = part.batch.clone();
                examples.flat_map(|example| part.heads.clone().map(move |head| (example, head)))
            });
            let expected = (0..3).flat_map(|example| (0..4).map(move |head| (example, head)));
            assert!(heads.eq(expected), "{most:?}");
            assert_eq!(parts.iter().flatten().count(), count, "{most:?}");
            for part in parts.iter().flatten() {
                assert_eq!(part.first, (part.batch.start * 4 + part.heads.start) * 30);
                let size = part.batch.len() * part.heads.len() * head;
                assert!(most.is_none_or(|most| size <= most.max(head)));
            }
        }
    }
}
