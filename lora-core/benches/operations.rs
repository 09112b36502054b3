//! Each operation of `lora_core::ops` compared with its composition of Burn's own operations, forward and backward, on the
//! CPU.
//!
//! `cargo bench --package lora-core`, in the sizes of a GPT-2 small step with 8 × 128 tokens.
#![recursion_limit = "256"]

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::activation::{
    gelu as burn_gelu, gelu_approximate, silu as burn_silu, softmax as burn_softmax,
};
use burn::tensor::module::linear as burn_linear;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use divan::Bencher;
use lora_core::Dropout;
use lora_core::ops::{
    CrossEntropy, GateKind, ScaledDotProduct, Segments, gated, gelu, gelu_tanh, head_loss,
    layer_norm, linear, lora_linear, rms_norm, rotary, softmax,
};

const ROWS: usize = 1024;
const D: usize = 768;
const INNER: usize = 3072;
const VOCAB: usize = 50257;
const RANK: usize = 8;
/// Rows with a label: a text whose prompt is not in the loss.
const LABELS: usize = 256;

fn main() {
    divan::main();
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 0.5), &device())
}

/// Times the forward and backward pass of `f` on tensors with gradients.
fn both_ways<const N: usize, const D: usize>(
    bencher: Bencher,
    inputs: [Tensor<D>; N],
    f: impl Fn([Tensor<D>; N]) -> Tensor<1>,
) {
    bencher.bench_local(|| {
        let inputs = inputs.clone().map(Tensor::require_grad);
        f(inputs).backward()
    });
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod attention {
    use super::*;

    const SHAPE: [usize; 4] = [8, 12, 128, 64];

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let attention = ScaledDotProduct::new(0.125).causal();
        both_ways(bencher, [0; 3].map(|_| random(SHAPE)), |[q, k, v]| {
            attention.forward(q, k, v).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let mask = Tensor::<2, Bool>::tril_mask([128, 128], 0, &device()).unsqueeze::<4>();
        both_ways(bencher, [0; 3].map(|_| random(SHAPE)), |[q, k, v]| {
            let scores = (q * 0.125).matmul(k.transpose());
            let scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
            burn_softmax(scores, 3).matmul(v).sum()
        });
    }
}

/// Texts of different lengths, packed into one row and padded to the longest.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod texts_of_many_lengths {
    use super::*;

    const LENGTHS: [usize; 8] = [128, 31, 70, 12, 95, 44, 60, 23];

    fn attend(attention: &ScaledDotProduct, [q, k, v]: [Tensor<4>; 3]) -> Tensor<1> {
        attention.forward(q, k, v).sum()
    }

    #[divan::bench]
    fn packed(bencher: Bencher) {
        let segments = Segments::new(LENGTHS.to_vec());
        let shape = [1, 12, segments.tokens(), 64];
        let attention = ScaledDotProduct::new(0.125).causal().within(Some(segments));
        both_ways(bencher, [0; 3].map(|_| random(shape)), |qkv| {
            attend(&attention, qkv)
        });
    }

    #[divan::bench]
    fn padded(bencher: Bencher) {
        let attention = ScaledDotProduct::new(0.125).causal();
        both_ways(bencher, [0; 3].map(|_| random([8, 12, 128, 64])), |qkv| {
            attend(&attention, qkv)
        });
    }

    /// One row whose texts are separated by a mask over all pairs of tokens.
    #[divan::bench]
    fn masked_primitives(bencher: Bencher) {
        let tokens = LENGTHS.iter().sum::<usize>();
        let texts = LENGTHS.iter().enumerate();
        let texts: Vec<i64> = texts
            .flat_map(|(text, &length)| vec![text as i64; length])
            .collect();
        let text = Tensor::<1, Int>::from_ints(texts.as_slice(), &device());
        let other = (text.clone().reshape([tokens, 1])).not_equal(text.reshape([1, tokens]));
        let future = Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, &device());
        let mask = other.bool_or(future).unsqueeze::<4>();
        both_ways(
            bencher,
            [0; 3].map(|_| random([1, 12, tokens, 64])),
            |[q, k, v]| {
                let scores = (q * 0.125).matmul(k.transpose());
                let scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
                burn_softmax(scores, 3).matmul(v).sum()
            },
        );
    }
}

#[divan::bench_group(sample_count = 5, sample_size = 1)]
mod head_and_loss {
    use super::*;

    fn targets() -> Tensor<1, Int> {
        Tensor::arange(0..LABELS as i64, &device())
    }

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let head = random([D, VOCAB]);
        both_ways(bencher, [random([LABELS, D])], |[x]| {
            head_loss(x, head.clone(), targets(), &CrossEntropy::default()).loss
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let head = random([D, VOCAB]);
        let loss = CrossEntropyLossConfig::new().init(&device());
        both_ways(bencher, [random([LABELS, D])], |[x]| {
            loss.forward(x.matmul(head.clone()), targets())
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod norm {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let (gamma, beta) = (random([D]), random([D]));
        both_ways(bencher, [random([ROWS, D])], |[x]| {
            layer_norm(x, gamma.clone(), beta.clone(), 1e-5).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let norm = burn::nn::LayerNormConfig::new(D).init(&device());
        let norm = burn::module::Module::no_grad(norm);
        both_ways(bencher, [random([ROWS, D])], |[x]| norm.forward(x).sum());
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod root_mean_square {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let gamma = random([D]);
        both_ways(bencher, [random([ROWS, D])], |[x]| {
            rms_norm(x, gamma.clone(), 1e-6).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let norm = burn::nn::RmsNormConfig::new(D).init(&device());
        let norm = burn::module::Module::no_grad(norm);
        both_ways(bencher, [random([ROWS, D])], |[x]| norm.forward(x).sum());
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod gated_by_silu {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let inputs = [0; 2].map(|_| random([ROWS, INNER]));
        both_ways(bencher, inputs, |[gate, up]| {
            gated(gate, up, GateKind::Silu).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let inputs = [0; 2].map(|_| random([ROWS, INNER]));
        both_ways(bencher, inputs, |[gate, up]| (burn_silu(gate) * up).sum());
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod rotary_positions {
    use super::*;

    const SHAPE: [usize; 4] = [8, 128, 12, 64];

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let [cos, sin] = [0; 2].map(|_| random([1, 128, 32]));
        both_ways(bencher, [random(SHAPE)], |[x]| {
            rotary(x, cos.clone(), sin.clone()).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let [cos, sin] = [0; 2].map(|_| random([1, 128, 1, 32]));
        both_ways(bencher, [random(SHAPE)], |[x]| {
            let (a, b) = (x.clone().narrow(3, 0, 32), x.narrow(3, 32, 32));
            let first = a.clone() * cos.clone() - b.clone() * sin.clone();
            let second = b * cos.clone() + a * sin.clone();
            Tensor::cat(vec![first, second], 3).sum()
        });
    }
}

/// Three heads of queries share one of keys, as in SmolLM2.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod grouped_attention {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let attention = ScaledDotProduct::new(0.125).causal();
        let heads = [12, 4, 4].map(|heads| random([8, heads, 128, 64]));
        both_ways(bencher, heads, |[q, k, v]| attention.forward(q, k, v).sum());
    }

    #[divan::bench]
    fn of_repeated_keys(bencher: Bencher) {
        let attention = ScaledDotProduct::new(0.125).causal();
        let heads = [12, 4, 4].map(|heads| random([8, heads, 128, 64]));
        let repeat = |x: Tensor<4>| {
            let shared = x.unsqueeze_dim::<5>(2).expand([8, 4, 3, 128, 64]);
            shared.reshape([8, 12, 128, 64])
        };
        both_ways(bencher, heads, |[q, k, v]| {
            attention.forward(q, repeat(k), repeat(v)).sum()
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod gelu_by_tanh {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        both_ways(bencher, [random([ROWS, INNER])], |[x]| gelu_tanh(x).sum());
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        both_ways(bencher, [random([ROWS, INNER])], |[x]| {
            gelu_approximate(x).sum()
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod gelu_exact {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        both_ways(bencher, [random([ROWS, INNER])], |[x]| gelu(x).sum());
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        both_ways(bencher, [random([ROWS, INNER])], |[x]| burn_gelu(x).sum());
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod soft_maximum {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        both_ways(bencher, [random([8 * 12 * 128, 128])], |[x]| {
            (softmax(x.clone()) * x).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        both_ways(bencher, [random([8 * 12 * 128, 128])], |[x]| {
            (burn_softmax(x.clone(), 1) * x).sum()
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod dropout {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let dropout = Dropout::new(0.1);
        both_ways(bencher, [random([ROWS, D])], |[x]| dropout.forward(x).sum());
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let dropout = burn::nn::DropoutConfig::new(0.1).init();
        both_ways(bencher, [random([ROWS, D])], |[x]| dropout.forward(x).sum());
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod frozen_linear {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let (w, b) = (random([D, INNER]), random([INNER]));
        both_ways(bencher, [random([ROWS, D])], |[x]| {
            linear(x, w.clone(), Some(b.clone())).sum()
        });
    }

    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let (w, b) = (random([D, INNER]), random([INNER]));
        both_ways(bencher, [random([ROWS, D])], |[x]| {
            burn_linear(x, w.clone(), Some(b.clone())).sum()
        });
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod adapted_linear {
    use super::*;

    fn weights() -> [Tensor<2>; 3] {
        [random([D, 3 * D]), random([D, RANK]), random([RANK, 3 * D])]
    }

    #[divan::bench]
    fn ours(bencher: Bencher) {
        let [w, a, b] = weights();
        both_ways(bencher, [random([ROWS, D]), a, b], |[x, a, b]| {
            lora_linear(x.clone(), x, w.clone(), a, b, None, 2.0).sum()
        });
    }

    /// Low-rank path with Burn's own products.
    #[divan::bench]
    fn of_primitives(bencher: Bencher) {
        let [w, a, b] = weights();
        both_ways(bencher, [random([ROWS, D]), a, b], |[x, a, b]| {
            (x.clone().matmul(w.clone()) + x.matmul(a).matmul(b) * 2.0).sum()
        });
    }

    /// Composed weight, as in Burn's `apply_lora`.
    #[divan::bench]
    fn composed_weight(bencher: Bencher) {
        let [w, a, b] = weights();
        both_ways(bencher, [random([ROWS, D]), a, b], |[x, a, b]| {
            x.matmul(w.clone() + a.matmul(b) * 2.0).sum()
        });
    }
}

/// Limit of the machine: only the matrix products of a step.
#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod product {
    use super::*;

    #[divan::bench(args = [(D, D), (D, 3 * D), (D, INNER), (INNER, D)])]
    fn layer(bencher: Bencher, (d_in, d_out): (usize, usize)) {
        let device = Device::flex();
        let make =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 0.5), &device);
        let (x, w, b) = (make([ROWS, d_in]), make([d_in, d_out]), make([1, d_out]));
        let b = b.reshape([d_out]);
        bencher
            .counter(divan::counter::ItemsCount::new(2 * ROWS * d_in * d_out))
            .bench_local(|| linear(x.clone(), w.clone(), Some(b.clone())));
    }
}
