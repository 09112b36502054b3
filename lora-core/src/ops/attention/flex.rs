//! Attention on the CPU: each thread takes one head of one text at a time, in blocks of queries whose scores fit into the
//! cache.

#![expect(
    unsafe_code,
    reason = "tiles of shared memory, and tensors of what was written to them"
)]

use super::heads::{Bias, Heads, Tiles};
use super::tile::{self, KeyGradients, QueryGradients, Scratch};
use super::work::WorkItem;
use super::{AttentionOps, AttentionOptions, AttentionState, groups, join};
use crate::ops::contiguous::are_plain_f32;
use burn::backend::ops::FloatTensorOps;
use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::TensorData;
use rayon::prelude::*;

type Tensor = FloatTensor<Flex>;

impl AttentionOps for Flex {
    fn attend_forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        options: AttentionOptions,
    ) -> (Tensor, Tensor, Tensor) {
        if !are_plain_f32(&[&query, &key, &value, &bias]) {
            return groups::forward::<Self>(query, key, value, bias, options);
        }
        let [query, key, value] = [query, key, value].map(with_contiguous_rows);
        let inputs = [&query, &key, &value].map(Heads::new);
        let [q, k, v] = &inputs;
        let [batch, heads, queries, _] = q.shape();
        let [_, _, keys, d_value] = v.shape();
        let bias = Bias::new(&bias, keys);
        let tiles = Tiles::new([batch, queries, heads, d_value]);
        let mut statistics = vec![0.0; batch * heads * queries * 2];
        WorkItem::with_statistics(WorkItem::all(&options, q, k), &mut statistics)
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, (item, statistics)| {
                // SAFETY: each query of a head occurs in one item.
                let output = unsafe { tiles.tile(item.row, item.head, &item.queries) };
                let inputs = item.inputs(&inputs, bias.as_ref());
                item.attention.forward(inputs, output, statistics, scratch);
            });
        let pairs = Tensor::from_data(TensorData::new(statistics, [batch, heads, queries, 2]));
        // SAFETY: the items cover the output, and each has been written.
        let output = unsafe { tiles.into_heads() };
        (output.clone(), pairs, output)
    }

    fn attend_backward(
        state: AttentionState<Self>,
        grad: Tensor,
        options: AttentionOptions,
        with_bias_grad: bool,
    ) -> (Tensor, Tensor, Tensor, Option<Tensor>) {
        let [batch, heads, queries, d] = state.query.shape().dims();
        let [_, key_heads, keys, d_value] = state.value.shape().dims();
        let scores = [batch, heads, queries, keys];
        let broadcast = with_bias_grad
            && (state.bias.shape().dims() != scores
                || options.window.is_some()
                || options.cap.is_some());
        if broadcast || !is_plain(&state, &grad) {
            return groups::backward(state, grad, options, with_bias_grad);
        }
        let tiles = [
            Tiles::new([batch, queries, heads, d]),
            Tiles::new([batch, keys, key_heads, d]),
            Tiles::new([batch, keys, key_heads, d_value]),
        ];
        let bias_tiles = with_bias_grad.then(|| Tiles::new([batch * heads, queries, 1, keys]));
        let [queries, keys, values] = &tiles;
        let biases = bias_tiles.as_ref();
        let of_queries = |item: &WorkItem| QueryGradients {
            // SAFETY: each item is requested once.
            query: unsafe { queries.tile(item.row, item.head, &item.queries) },
            // SAFETY: as for the queries.
            bias: biases
                .map(|bias| unsafe { bias.tile(item.row * heads + item.head, 0, &item.queries) }),
        };
        let of_keys = |item: &WorkItem| KeyGradients {
            // SAFETY: of the items that share keys, one is requested.
            key: unsafe { keys.tile(item.row, item.key_head, &item.keys) },
            // SAFETY: as for the keys.
            value: unsafe { values.tile(item.row, item.key_head, &item.keys) },
        };
        backward(state, grad, &options, of_queries, of_keys);
        // SAFETY: the items cover each gradient, and all have been written.
        let [query, key, value] = tiles.map(|tiles| unsafe { tiles.into_heads() });
        // SAFETY: as for the others.
        let bias = bias_tiles.map(|tiles| unsafe { tiles.into_tensor(scores) });
        (query, key, value, bias)
    }

    fn attend_fused_backward(
        state: AttentionState<Self>,
        grad: Tensor,
        options: AttentionOptions,
    ) -> Tensor {
        let [batch, heads, seq, d] = grad.shape().dims();
        if !is_plain(&state, &grad) {
            let (query, key, value, _) = groups::backward(state, grad, options, false);
            return join::<Self>(Self::float_cat(vec![query, key, value], 1));
        }
        let tiles = Tiles::new([batch, seq, 3 * heads, d]);
        let part = |item: &WorkItem, part: usize| {
            let head = part * heads + item.head;
            // SAFETY: each item is requested once for each of the three, and no other has its keys.
            unsafe { tiles.tile(item.row, head, &item.queries) }
        };
        let of_queries = |item: &WorkItem| QueryGradients {
            query: part(item, 0),
            bias: None,
        };
        let of_keys = |item: &WorkItem| KeyGradients {
            key: part(item, 1),
            value: part(item, 2),
        };
        backward(state, grad, &options, of_queries, of_keys);
        // SAFETY: the items cover the gradient, and each has been written.
        unsafe { tiles.into_tensor([batch, seq, 3 * heads * d]) }
    }
}

/// Returns true if the CPU loops support the tensors of a backward pass.
fn is_plain(state: &AttentionState<Flex>, grad: &Tensor) -> bool {
    are_plain_f32(&[
        &state.query,
        &state.key,
        &state.value,
        &state.bias,
        &state.maximum,
        &state.sum,
        grad,
    ])
}

/// Computes the backward pass of each item, into the memory that the functions return: for each item that of its queries, and for
/// one of the items that share keys that of the keys and values.
fn backward<'a>(
    state: AttentionState<Flex>,
    grad: Tensor,
    options: &AttentionOptions,
    of_queries: impl Fn(&WorkItem) -> QueryGradients<'a> + Sync,
    of_keys: impl Fn(&WorkItem) -> KeyGradients<'a> + Sync,
) {
    let inputs = [state.query, state.key, state.value].map(with_contiguous_rows);
    let inputs = inputs.each_ref().map(Heads::new);
    // Maximum and sum of each row are pairs in one tensor, and the output is in the place of the sums.
    let outputs = [state.sum, grad, state.maximum].map(with_contiguous_rows);
    let outputs = outputs.each_ref().map(Heads::new);
    let [q, k, _] = &inputs;
    let [_, _, keys, _] = k.shape();
    let bias = Bias::new(&state.bias, keys);
    let groups = WorkItem::by_key_head(options, q, k);
    groups
        .into_par_iter()
        .for_each_init(Scratch::default, |scratch, group| {
            let mut of_keys = of_keys(&group[0]);
            for (index, item) in group.iter().enumerate() {
                let [output, grad, statistics] = outputs
                    .each_ref()
                    .map(|heads| heads.tile(item.row, item.head, &item.queries));
                let saved = tile::Saved {
                    output,
                    grad,
                    statistics,
                };
                let inputs = item.inputs(&inputs, bias.as_ref());
                let (of_queries, add) = (of_queries(item), index > 0);
                // SAFETY: the first item of a group writes what the others add to.
                unsafe {
                    (item.attention).backward(
                        inputs,
                        saved,
                        of_queries,
                        &mut of_keys,
                        add,
                        scratch,
                    );
                }
            }
        });
}

/// Returns the tensor with each row of its last axis contiguous.
fn with_contiguous_rows(tensor: Tensor) -> Tensor {
    if tensor.layout().strides()[3] == 1 {
        tensor
    } else {
        tensor.to_contiguous()
    }
}
