//! Heads of queries that share a head of keys and values, on any backend: the keys are repeated for each of them.

use super::{AttentionOptions, AttentionState, Gradients, segments};
use crate::ops::prelude::*;
use crate::ops::product::ProductOps;
use burn::tensor::Shape;

/// Computes [`segments::forward`].
pub(super) fn forward<B: ProductOps>(
    query: FloatTensor<B>,
    key: FloatTensor<B>,
    value: FloatTensor<B>,
    bias: FloatTensor<B>,
    options: AttentionOptions,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let sharing = sharing::<B>(&query, &key);
    let [key, value] = [key, value].map(|all| repeated::<B>(all, sharing));
    segments::forward::<B>(query, key, value, bias, options)
}

/// Computes [`segments::backward`]. Keys and values have the sum of the gradients of all heads that share them.
pub(super) fn backward<B: ProductOps>(
    state: AttentionState<B>,
    grad: FloatTensor<B>,
    options: AttentionOptions,
    with_bias_grad: bool,
) -> Gradients<B> {
    let sharing = sharing::<B>(&state.query, &state.key);
    let state = AttentionState {
        key: repeated::<B>(state.key, sharing),
        value: repeated::<B>(state.value, sharing),
        ..state
    };
    let (query, key, value, bias) = segments::backward(state, grad, options, with_bias_grad);
    let [key, value] = [key, value].map(|all| summed::<B>(all, sharing));
    (query, key, value, bias)
}

/// Returns the number of heads of queries that share a head of keys.
///
/// # Panics
/// Panics if the heads of the queries cannot be divided among those of the keys.
fn sharing<B: Backend>(query: &FloatTensor<B>, key: &FloatTensor<B>) -> usize {
    heads_per_key(query.shape()[1], key.shape()[1])
}

/// Returns the number of heads of queries that share a head of keys.
///
/// # Panics
/// Panics if the heads of the queries cannot be divided among those of the keys.
pub(super) fn heads_per_key(heads: usize, key_heads: usize) -> usize {
    assert!(
        key_heads > 0 && heads.is_multiple_of(key_heads),
        "{heads} heads of queries for {key_heads} of keys"
    );
    heads / key_heads
}

/// Repeats each head: `[batch, key_heads, keys, d]` to `[batch, key_heads · sharing, keys, d]`.
fn repeated<B: Backend>(all: FloatTensor<B>, sharing: usize) -> FloatTensor<B> {
    if sharing == 1 {
        return all;
    }
    let [batch, heads, keys, d] = all.shape().dims();
    let apart = B::float_reshape(all, Shape::new([batch, heads, 1, keys, d]));
    let expanded = B::float_expand(apart, Shape::new([batch, heads, sharing, keys, d]));
    B::float_reshape(expanded, Shape::new([batch, heads * sharing, keys, d]))
}

/// Sums the gradients of the heads that [`repeated`] made of one.
fn summed<B: Backend>(all: FloatTensor<B>, sharing: usize) -> FloatTensor<B> {
    if sharing == 1 {
        return all;
    }
    let [batch, heads, keys, d] = all.shape().dims();
    let key_heads = heads / sharing;
    let apart = B::float_reshape(all, Shape::new([batch, key_heads, sharing, keys * d]));
    B::float_reshape(
        B::float_sum_dim(apart, 2),
        Shape::new([batch, key_heads, keys, d]),
    )
}
