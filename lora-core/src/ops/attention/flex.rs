//! Attention on the CPU: each thread takes one head of one text at a time, in blocks of queries whose scores fit into the
//! cache.

use super::composed::Saved;
use super::heads::{Bias, Heads, Tiles};
use super::tile::{self, Gradients, Scratch};
use super::work::WorkItem;
use super::{AttentionOps, AttentionOptions, join, segments, split};
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
    ) -> (Tensor, Tensor) {
        if !are_plain_f32(&[&query, &key, &value, &bias]) {
            return segments::forward::<Self>(query, key, value, bias, options);
        }
        let [query, key, value] = [query, key, value].map(with_contiguous_rows);
        let inputs = [&query, &key, &value].map(Heads::new);
        let [q, k, v] = &inputs;
        let [batch, heads, queries, _] = q.shape();
        let [_, _, keys, d_value] = v.shape();
        let bias = Bias::new(&bias, keys);
        let shape = [batch, queries, heads, d_value];
        let size = shape.iter().product();
        let mut output: Vec<f32> = Vec::with_capacity(size);
        let mut statistics = vec![0.0; batch * heads * queries * 2];
        let tiles = Tiles::new(&mut output, shape);
        WorkItem::with_statistics(WorkItem::all(&options, q, k), &mut statistics)
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, (item, statistics)| {
                // SAFETY: each query of a head occurs in one item.
                let output = unsafe { tiles.tile(item.row, item.head, item.queries.clone()) };
                let inputs = item.inputs(&inputs, bias.as_ref());
                item.attention.forward(inputs, output, statistics, scratch);
            });
        // SAFETY: the tiles cover the output, and each has been written.
        unsafe { output.set_len(size) };
        (
            heads_tensor(output, shape),
            Tensor::from_data(TensorData::new(statistics, [batch, heads, queries, 2])),
        )
    }

    fn attend_backward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        output: Tensor,
        statistics: Tensor,
        grad: Tensor,
        options: AttentionOptions,
        with_bias_grad: bool,
    ) -> (Tensor, Tensor, Tensor, Option<Tensor>) {
        let [batch, heads, queries, d] = query.shape().dims();
        let [_, _, keys, d_value] = value.shape().dims();
        let scores = [batch, heads, queries, keys];
        let broadcast = with_bias_grad && bias.shape().dims() != scores;
        let saved = Saved::<Self> {
            query,
            key,
            value,
            bias,
            output,
            statistics,
        };
        if broadcast || !is_plain(&saved, &grad) {
            return segments::backward(saved, grad, options, with_bias_grad);
        }
        let shapes = [
            [batch, queries, heads, d],
            [batch, keys, heads, d],
            [batch, keys, heads, d_value],
        ];
        let mut gradients = shapes.map(|shape| Vec::with_capacity(shape.iter().product()));
        let mut bias_gradient: Option<Vec<f32>> =
            with_bias_grad.then(|| Vec::with_capacity(scores.iter().product()));
        let [q, k, v] = &mut gradients;
        let tiles = [
            Tiles::new(q, shapes[0]),
            Tiles::new(k, shapes[1]),
            Tiles::new(v, shapes[2]),
        ];
        let shape = [batch * heads, queries, 1, keys];
        let bias_tiles = bias_gradient.as_mut().map(|out| Tiles::new(out, shape));
        // SAFETY: each item is requested once.
        backward(saved, grad, &options, |item| unsafe {
            let (row, head) = (item.row, item.head);
            let [query, key, value] = &tiles;
            let bias = bias_tiles.as_ref();
            Gradients {
                query: query.tile(row, head, item.queries.clone()),
                key: key.tile(row, head, item.keys.clone()),
                value: value.tile(row, head, item.keys.clone()),
                bias: bias.map(|bias| bias.tile(row * heads + head, 0, item.queries.clone())),
            }
        });
        // SAFETY: the tiles cover each gradient, and all have been written.
        unsafe {
            for (gradient, shape) in gradients.iter_mut().zip(shapes) {
                gradient.set_len(shape.iter().product());
            }
            if let Some(gradient) = &mut bias_gradient {
                gradient.set_len(scores.iter().product());
            }
        }
        let [q, k, v] = gradients;
        (
            heads_tensor(q, shapes[0]),
            heads_tensor(k, shapes[1]),
            heads_tensor(v, shapes[2]),
            bias_gradient.map(|gradient| Tensor::from_data(TensorData::new(gradient, scores))),
        )
    }

    fn attend_fused_backward(
        fused: Tensor,
        bias: Tensor,
        output: Tensor,
        statistics: Tensor,
        grad: Tensor,
        options: AttentionOptions,
    ) -> Tensor {
        let [batch, heads, seq, d] = grad.shape().dims();
        let [query, key, value] = split::<Self>(fused, heads);
        let saved = Saved::<Self> {
            query,
            key,
            value,
            bias,
            output,
            statistics,
        };
        if !is_plain(&saved, &grad) {
            let (query, key, value, _) = segments::backward(saved, grad, options, false);
            return join::<Self>(Self::float_cat(vec![query, key, value], 1));
        }
        let shape = [batch, seq, 3 * heads, d];
        let mut gradient: Vec<f32> = Vec::with_capacity(shape.iter().product());
        let tiles = Tiles::new(&mut gradient, shape);
        backward(saved, grad, &options, |item| {
            // SAFETY: each item is requested once.
            let part = |part: usize| unsafe {
                let head = part * heads + item.head;
                tiles.tile(item.row, head, item.queries.clone())
            };
            Gradients {
                query: part(0),
                key: part(1),
                value: part(2),
                bias: None,
            }
        });
        // SAFETY: the tiles cover the gradient, and each has been written.
        unsafe { gradient.set_len(shape.iter().product()) };
        Tensor::from_data(TensorData::new(gradient, [batch, seq, 3 * heads * d]))
    }
}

/// Returns true if the CPU loops support the tensors of a backward pass.
fn is_plain(saved: &Saved<Flex>, grad: &Tensor) -> bool {
    are_plain_f32(&[
        &saved.query,
        &saved.key,
        &saved.value,
        &saved.bias,
        &saved.output,
        &saved.statistics,
        grad,
    ])
}

/// Computes the backward pass of each item, into the memory that `gradients` returns for it.
fn backward<'a>(
    saved: Saved<Flex>,
    grad: Tensor,
    options: &AttentionOptions,
    gradients: impl Fn(&WorkItem) -> Gradients<'a> + Sync,
) {
    let inputs = [saved.query, saved.key, saved.value].map(with_contiguous_rows);
    let inputs = inputs.each_ref().map(Heads::new);
    let outputs = [saved.output, grad, saved.statistics].map(with_contiguous_rows);
    let outputs = outputs.each_ref().map(Heads::new);
    let [q, k, _] = &inputs;
    let [_, _, keys, _] = k.shape();
    let bias = Bias::new(&saved.bias, keys);
    (WorkItem::all(options, q, k).into_par_iter()).for_each_init(
        Scratch::default,
        |scratch, item| {
            let [output, grad, statistics] = outputs
                .each_ref()
                .map(|heads| heads.tile(item.row, item.head, &item.queries));
            let saved = tile::Saved {
                output,
                grad,
                statistics,
            };
            let inputs = item.inputs(&inputs, bias.as_ref());
            (item.attention).backward(inputs, saved, gradients(&item), scratch);
        },
    );
}

/// Returns the tensor with each row of its last axis contiguous.
fn with_contiguous_rows(tensor: Tensor) -> Tensor {
    if tensor.layout().strides()[3] == 1 {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Returns `[batch, seq, heads, d]` as a tensor `[batch, heads, seq, d]`, whose heads join again without a copy.
fn heads_tensor(values: Vec<f32>, shape: [usize; 4]) -> Tensor {
    Flex::float_swap_dims(Tensor::from_data(TensorData::new(values, shape)), 1, 2)
}
