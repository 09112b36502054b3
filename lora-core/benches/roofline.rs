//! Limits of a processor, on one thread and on all: multiplications and additions of registers, and bytes copied; and what products of
//! matrices reach on all.
//!
//! `cargo bench --package lora-core --bench roofline`, in the sizes of the frozen weights of a step of 8 × 128 tokens. Numbers are the best
//! of several repetitions.
#![recursion_limit = "256"]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use burn::tensor::{Device, Distribution, Tensor};
use lora_core::ops::multiply;
use pulp::{Arch, Simd, WithSimd};
use rayon::ThreadPoolBuilder;
use std::hint::black_box;
use std::time::Instant;

/// Chains of multiplications and additions that do not wait for each other: more than the latency of two units, and no more than AVX2
/// has registers for.
const CHAINS: usize = 12;
const ROUNDS: usize = 20_000_000;
/// Values that a thread copies, 256 MiB, and how often it does.
const COPIED: usize = 64 << 20;
const COPIES: usize = 8;

/// Rows, inner size and columns of products, with the weights they belong to.
const PRODUCTS: [([usize; 3], &str); 6] = [
    (
        [1024, 768, 768],
        "attention of GPT-2 small and RoBERTa base",
    ),
    ([1024, 768, 3072], "their feed-forward layers"),
    ([1024, 3072, 768], "their feed-forward layers"),
    ([1024, 768, 50257], "output layer of GPT-2 small"),
    ([1024, 576, 1536], "feed-forward layers of SmolLM2-135M"),
    ([1024, 384, 1536], "feed-forward layers of MiniLM"),
];

struct Registers;

impl WithSimd for Registers {
    /// Floating-point operations a second.
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let [factor, term] = [0.999, 0.001].map(|value| simd.splat_f32s(black_box(value)));
        let mut sums = [simd.splat_f32s(1.0); CHAINS];
        let start = Instant::now();
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        (2 * CHAINS * ROUNDS * S::F32_LANES) as f64 / seconds
    }
}

/// Copies memory that no cache holds; returns the bytes read and written in a second.
fn copy() -> f64 {
    let source = vec![1.0_f32; COPIED];
    // The system has given the pages once they are written.
    let mut target = source.clone();
    let start = Instant::now();
    for _ in 0..COPIES {
        target.copy_from_slice(black_box(&source));
        black_box(&mut target);
    }
    (2 * COPIES * size_of_val(&*source)) as f64 / start.elapsed().as_secs_f64()
}

/// Measures a rate on each of `threads` threads at once, several times; returns the largest sum.
fn best(threads: usize, rate: impl Fn() -> f64 + Sync) -> f64 {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    (0..5)
        .map(|_| pool.broadcast(|_| rate()).into_iter().sum())
        .fold(0.0, f64::max)
}

fn main() {
    let all = rayon::current_num_threads();
    for threads in [1, all] {
        let rate = best(threads, || Arch::new().dispatch(Registers)) / 1e9;
        println!("{threads} threads, registers: {rate:.1} GFLOP/s");
        let rate = best(threads, copy) / 1e9;
        println!("{threads} threads, copy: {rate:.1} GB/s read and written");
    }
    let device = Device::flex();
    for ([rows, inner, columns], of) in PRODUCTS {
        let random = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let operands = [
            ("forward", random([rows, inner]), random([inner, columns])),
            (
                "backward",
                random([rows, columns]),
                random([inner, columns]).transpose(),
            ),
        ];
        for (name, lhs, rhs) in operands {
            let seconds = (0..10).map(|_| {
                let start = Instant::now();
                black_box(multiply(lhs.clone(), rhs.clone()));
                start.elapsed().as_secs_f64()
            });
            let rate =
                2e-9 * (rows * inner * columns) as f64 / seconds.min_by(f64::total_cmp).unwrap();
            println!(
                "{all} threads, {rows} × {inner} × {columns}, {name}: {rate:.1} GFLOP/s ({of})"
            );
        }
    }
}
