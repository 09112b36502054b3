//! On the CPU: a head of a text at a time to each thread, and of it some queries at a time, so that their scores stay in the
//! cache.

use super::heads::{Bias, Heads, Tiles};
use super::pieces::Piece;
use super::tile::{Found, Gradients, Scratch};
use super::{AttentionOps, AttentionOptions, composed, join, segments, split};
use crate::ops::whole::are_simple;
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
        if !are_simple(&[&query, &key, &value, &bias]) {
            return segments::forward::<Self>(query, key, value, bias, options);
        }
        let [query, key, value] = [query, key, value].map(rows_together);
        let inputs = [&query, &key, &value].map(Heads::of);
        let [q, k, v] = &inputs;
        let [batch, heads, queries, _] = q.shape();
        let [_, _, keys, d_value] = v.shape();
        let bias = Bias::new(&bias, keys);
        let shape = [batch, queries, heads, d_value];
        let size = shape.iter().product();
        let mut output: Vec<f32> = Vec::with_capacity(size);
        let mut statistics = vec![0.0; batch * heads * queries * 2];
        let tiles = Tiles::of(&mut output, shape);
        Piece::with_statistics(Piece::all(&options, q, k), &mut statistics)
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, (piece, statistics)| {
                // SAFETY: the queries of each head occur once.
                let output = unsafe { tiles.tile(piece.row, piece.head, piece.queries.clone()) };
                let inputs = piece.inputs(&inputs, bias.as_ref());
                piece.problem.forward(inputs, output, statistics, scratch);
            });
        // SAFETY: the tiles are all of it, and each has been written.
        unsafe { output.set_len(size) };
        (
            of_heads(output, shape),
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
        of_bias: bool,
    ) -> (Tensor, Tensor, Tensor, Option<Tensor>) {
        let [batch, heads, queries, d] = query.shape().dims();
        let [_, _, keys, d_value] = value.shape().dims();
        let scores = [batch, heads, queries, keys];
        let repeated = of_bias && bias.shape().dims() != scores;
        if repeated || !are_simple(&[&query, &key, &value, &bias, &output, &statistics, &grad]) {
            let forward = composed::Forward::<Self> {
                query,
                key,
                value,
                bias,
                output,
                statistics,
            };
            return segments::backward(forward, grad, options, of_bias);
        }
        let shapes = [
            [batch, queries, heads, d],
            [batch, keys, heads, d],
            [batch, keys, heads, d_value],
        ];
        let mut gradients = shapes.map(|shape| Vec::with_capacity(shape.iter().product()));
        let mut gradient_of_bias: Option<Vec<f32>> =
            of_bias.then(|| Vec::with_capacity(scores.iter().product()));
        let [q, k, v] = &mut gradients;
        let tiles = [
            Tiles::of(q, shapes[0]),
            Tiles::of(k, shapes[1]),
            Tiles::of(v, shapes[2]),
        ];
        let shape = [batch * heads, queries, 1, keys];
        let tiles_of_bias = gradient_of_bias.as_mut().map(|room| Tiles::of(room, shape));
        let past = Past {
            inputs: [query, key, value],
            bias,
            output,
            statistics,
            grad,
        };
        // SAFETY: each piece is asked for once.
        past.backward(&options, |piece| unsafe {
            let (row, head) = (piece.row, piece.head);
            let [query, key, value] = &tiles;
            let bias = tiles_of_bias.as_ref();
            Gradients {
                query: query.tile(row, head, piece.queries.clone()),
                key: key.tile(row, head, piece.keys.clone()),
                value: value.tile(row, head, piece.keys.clone()),
                bias: bias.map(|bias| bias.tile(row * heads + head, 0, piece.queries.clone())),
            }
        });
        // SAFETY: the tiles are all of each, and all have been written.
        unsafe {
            for (gradient, shape) in gradients.iter_mut().zip(shapes) {
                gradient.set_len(shape.iter().product());
            }
            if let Some(gradient) = &mut gradient_of_bias {
                gradient.set_len(scores.iter().product());
            }
        }
        let [q, k, v] = gradients;
        (
            of_heads(q, shapes[0]),
            of_heads(k, shapes[1]),
            of_heads(v, shapes[2]),
            gradient_of_bias.map(|gradient| Tensor::from_data(TensorData::new(gradient, scores))),
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
        let inputs = split::<Self>(fused, heads);
        if !are_simple(&[&inputs[0], &bias, &output, &statistics, &grad]) {
            let [query, key, value] = inputs;
            let forward = composed::Forward::<Self> {
                query,
                key,
                value,
                bias,
                output,
                statistics,
            };
            let (query, key, value, _) = segments::backward(forward, grad, options, false);
            return join::<Self>(Self::float_cat(vec![query, key, value], 1));
        }
        let shape = [batch, seq, 3 * heads, d];
        let mut gradient: Vec<f32> = Vec::with_capacity(shape.iter().product());
        let tiles = Tiles::of(&mut gradient, shape);
        let past = Past {
            inputs,
            bias,
            output,
            statistics,
            grad,
        };
        past.backward(&options, |piece| {
            // SAFETY: each piece is asked for once.
            let part = |part: usize| unsafe {
                let head = part * heads + piece.head;
                tiles.tile(piece.row, head, piece.queries.clone())
            };
            Gradients {
                query: part(0),
                key: part(1),
                value: part(2),
                bias: None,
            }
        });
        // SAFETY: the tiles are all of it, and each has been written.
        unsafe { gradient.set_len(shape.iter().product()) };
        Tensor::from_data(TensorData::new(gradient, [batch, seq, 3 * heads * d]))
    }
}

/// What the forward pass had and found.
struct Past {
    inputs: [Tensor; 3],
    bias: Tensor,
    output: Tensor,
    statistics: Tensor,
    grad: Tensor,
}

impl Past {
    /// Goes back through each piece, into the places that are given for it.
    fn backward<'a>(
        self,
        options: &AttentionOptions,
        places: impl Fn(&Piece) -> Gradients<'a> + Sync,
    ) {
        let inputs = self.inputs.map(rows_together);
        let inputs = inputs.each_ref().map(Heads::of);
        let [output, grad, statistics] =
            [self.output, self.grad, self.statistics].map(rows_together);
        let [output, grad, statistics] = [&output, &grad, &statistics].map(Heads::of);
        let [q, k, _] = &inputs;
        let [_, _, keys, _] = k.shape();
        let bias = Bias::new(&self.bias, keys);
        (Piece::all(options, q, k).into_par_iter()).for_each_init(
            Scratch::default,
            |scratch, piece| {
                let of_queries = [&output, &grad, &statistics];
                let [output, grad, statistics] =
                    of_queries.map(|heads| heads.tile(piece.row, piece.head, &piece.queries));
                let found = Found {
                    output,
                    grad,
                    statistics,
                };
                let inputs = piece.inputs(&inputs, bias.as_ref());
                (piece.problem).backward(inputs, found, places(&piece), scratch);
            },
        );
    }
}

/// With each row of the last axis in one piece.
fn rows_together(tensor: Tensor) -> Tensor {
    match tensor.layout().strides()[3] {
        1 => tensor,
        _ => tensor.to_contiguous(),
    }
}

/// `[batch, seq, heads, d]` as a tensor `[batch, heads, seq, d]`, which joins its heads again without a copy.
fn of_heads(values: Vec<f32>, shape: [usize; 4]) -> Tensor {
    Flex::float_swap_dims(Tensor::from_data(TensorData::new(values, shape)), 1, 2)
}
