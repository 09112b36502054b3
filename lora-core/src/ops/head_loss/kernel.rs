//! Kernels of GPUs for the cross entropy of logits, which their gradient overwrites.
//!
//! Composed of operations, the loss has about five results of the size of the logits. Here it has none: each row is reduced in
//! [`PARTS`] parts by a thread each, the parts of a row are joined by one thread, and then the gradient replaces the logits.
//! Shared memory and barriers are not used; software adapters pay more for them than for another launch.

#![expect(
    unsafe_code,
    reason = "kernels of GPUs are started without checks of each index"
)]

use super::SCORES;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// Parts of a row. Neighbouring threads read neighbouring classes.
const PARTS: usize = 128;
/// Numbers that a part of a row is reduced to: the maximum, its first class, the sum of exponentials, and with label smoothing
/// `Σ c (z - maximum)` and `Σ c`.
const SUMS: usize = 5;
/// Largest number of classes: they are counted in f32, and a part is within the 65,535 turns after which llvmpipe ends loops.
const MOST_CLASSES: usize = 30_000 * PARTS;

/// Reduces the parts of all rows, to `sums`: `[SUMS, rows, PARTS]`.
#[cube(launch_unchecked)]
fn reduce_parts(
    logits: &Tensor<f32>,
    weights: &Tensor<f32>,
    sums: &mut Tensor<f32>,
    #[comptime] smoothed: bool,
    #[comptime] weighted: bool,
) {
    let parts = comptime!(PARTS);
    let classes = logits.shape(1);
    let all = logits.shape(0) * parts;
    if ABSOLUTE_POS >= all {
        terminate!();
    }
    let part = ABSOLUTE_POS % parts;
    let row = ABSOLUTE_POS / parts * classes;
    // A part without classes, or with logits of negative infinity alone, has the smallest number and the sum 0.
    let mut highest = f32::min_value();
    let mut best = part;
    for class in range_stepped(part, classes, parts) {
        let logit = logits[row + class];
        if logit > highest {
            highest = logit;
            best = class;
        }
    }
    let mut sum = 0.0f32;
    let mut spread = 0.0f32;
    let mut total = 0.0f32;
    for class in range_stepped(part, classes, parts) {
        let shifted = logits[row + class] - highest;
        sum += shifted.exp();
        if comptime!(smoothed) {
            if comptime!(weighted) {
                let weight = weights[class];
                spread += weight * shifted;
                total += weight;
            } else {
                spread += shifted;
                total += 1.0f32;
            }
        }
    }
    sums[ABSOLUTE_POS] = highest;
    sums[all + ABSOLUTE_POS] = f32::cast_from(best);
    sums[2 * all + ABSOLUTE_POS] = sum;
    if comptime!(smoothed) {
        sums[3 * all + ABSOLUTE_POS] = spread;
        sums[4 * all + ABSOLUTE_POS] = total;
    }
}

/// Joins the parts of each row to its scores, `[rows, SCORES]`, and its most likely class.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)] // A kernel has an argument for each buffer.
fn join_parts(
    logits: &Tensor<f32>,
    targets: &Tensor<i32>,
    weights: &Tensor<f32>,
    sums: &Tensor<f32>,
    scores: &mut Tensor<f32>,
    best: &mut Tensor<i32>,
    smoothing: f32,
    #[comptime] smoothed: bool,
    #[comptime] weighted: bool,
) {
    let parts = comptime!(PARTS);
    let rows = logits.shape(0);
    let classes = logits.shape(1);
    if ABSOLUTE_POS >= rows {
        terminate!();
    }
    let all = rows * parts;
    let first = ABSOLUTE_POS * parts;
    let mut highest = sums[first];
    let mut class = sums[all + first];
    for part in first + 1..first + parts {
        let other = sums[part];
        let other_class = sums[all + part];
        // The first of several classes.
        if other > highest || (other == highest && other_class < class) {
            highest = other;
            class = other_class;
        }
    }
    let mut sum = 0.0f32;
    let mut spread = 0.0f32;
    let mut total = 0.0f32;
    for part in first..first + parts {
        let shift = sums[part] - highest;
        sum += sums[2 * all + part] * shift.exp();
        if comptime!(smoothed) {
            let weight = sums[4 * all + part];
            spread += sums[3 * all + part];
            if weight != 0.0f32 {
                spread += weight * shift;
                total += weight;
            }
        }
    }
    let target = targets[ABSOLUTE_POS];
    let mut loss = 0.0f32;
    let mut nll = 0.0f32;
    let mut factor = 0.0f32;
    let mut hard = 0.0f32;
    let mut share = 0.0f32;
    if target >= 0i32 {
        let own = usize::cast_from(target).min(classes - 1);
        let log_sum = sum.ln();
        nll = log_sum - (logits[ABSOLUTE_POS * classes + own] - highest);
        hard = 1.0f32 - smoothing;
        if comptime!(weighted) {
            hard *= weights[own];
        }
        loss = hard * nll;
        factor = hard;
        if comptime!(smoothed) {
            share = smoothing / f32::cast_from(classes);
            loss += share * (total * log_sum - spread);
            factor += share * total;
        }
        factor /= sum;
    }
    best[ABSOLUTE_POS] = i32::cast_from(class);
    let at = ABSOLUTE_POS * comptime!(SCORES);
    scores[at] = loss;
    scores[at + 1] = nll;
    scores[at + 2] = highest;
    scores[at + 3] = factor;
    scores[at + 4] = hard;
    scores[at + 5] = share;
}

/// Replaces logits by their gradient.
#[cube(launch_unchecked)]
fn differentiate(
    logits: &mut Tensor<f32>,
    targets: &Tensor<i32>,
    weights: &Tensor<f32>,
    scores: &Tensor<f32>,
    #[comptime] weighted: bool,
) {
    let parts = comptime!(PARTS);
    let classes = logits.shape(1);
    if ABSOLUTE_POS >= logits.shape(0) * parts {
        terminate!();
    }
    let part = ABSOLUTE_POS % parts;
    let row = ABSOLUTE_POS / parts;
    let target = targets[row];
    let at = row * comptime!(SCORES);
    let highest = scores[at + 2];
    let factor = scores[at + 3];
    let hard = scores[at + 4];
    let share = scores[at + 5];
    let row = row * classes;
    for class in range_stepped(part, classes, parts) {
        // Zero for a row without a target, whatever its logits are.
        let mut gradient = 0.0f32;
        if target >= 0i32 {
            gradient = (logits[row + class] - highest).exp() * factor;
            if comptime!(weighted) {
                gradient -= share * weights[class];
            } else {
                gradient -= share;
            }
            if i32::cast_from(class) == target {
                gradient -= hard;
            }
        }
        logits[row + class] = gradient;
    }
}

/// Returns true if the kernels score these logits: f32, of a number of classes that one thread counts.
pub(super) fn suits(logits: &CubeTensor) -> bool {
    let [rows, classes] = logits.meta.shape().dims();
    logits.dtype == DType::F32 && rows > 0 && (1..=MOST_CLASSES).contains(&classes)
}

/// Computes the scores of each row, and its most likely class, `[rows, 1]`, of logits that the kernels [`suit`](suits).
pub(super) fn score_rows(
    logits: CubeTensor,
    targets: CubeTensor,
    weights: CubeTensor,
    smoothing: f64,
) -> (CubeTensor, CubeTensor) {
    let [rows, classes] = logits.meta.shape().dims();
    let (smoothed, weighted) = (smoothing > 0.0, is_weighted(&weights, classes));
    let [logits, targets, weights] = [logits, targets, weights].map(into_contiguous);
    let client = logits.client.clone();
    let empty = |shape: Shape, dtype| {
        empty_device_contiguous_dtype(client.clone(), logits.device.clone(), shape, dtype)
    };
    let sums = empty(Shape::new([SUMS, rows, PARTS]), DType::F32);
    let scores = empty(Shape::new([rows, SCORES]), DType::F32);
    let best = empty(Shape::new([rows, 1]), DType::I32);
    let (count, threads) = launch(&client, rows * PARTS);
    // SAFETY: a thread stays within its row, and the sums have a place for each thread.
    unsafe {
        reduce_parts::launch_unchecked(
            &client,
            count,
            threads,
            logits.clone().into_tensor_arg(),
            weights.clone().into_tensor_arg(),
            sums.clone().into_tensor_arg(),
            smoothed,
            weighted,
        );
    }
    let (count, threads) = launch(&client, rows);
    // SAFETY: a thread stays within its row, whose target is limited to the classes.
    unsafe {
        join_parts::launch_unchecked(
            &client,
            count,
            threads,
            logits.into_tensor_arg(),
            targets.into_tensor_arg(),
            weights.into_tensor_arg(),
            sums.into_tensor_arg(),
            scores.clone().into_tensor_arg(),
            best.clone().into_tensor_arg(),
            smoothing as f32,
            smoothed,
            weighted,
        );
    }
    (scores, best)
}

/// Replaces logits that the kernels [`suit`](suits) by their gradient. Logits that somebody else holds are copied.
pub(super) fn differentiate_rows(
    logits: CubeTensor,
    targets: CubeTensor,
    weights: CubeTensor,
    scores: CubeTensor,
) -> CubeTensor {
    let [rows, classes] = logits.meta.shape().dims();
    let weighted = is_weighted(&weights, classes);
    let logits = into_contiguous(logits);
    let logits = if logits.can_mut() {
        logits
    } else {
        logits.copy()
    };
    let [targets, weights, scores] = [targets, weights, scores].map(into_contiguous);
    let client = logits.client.clone();
    let (count, threads) = launch(&client, rows * PARTS);
    // SAFETY: a thread stays within its row.
    unsafe {
        differentiate::launch_unchecked(
            &client,
            count,
            threads,
            logits.clone().into_tensor_arg(),
            targets.into_tensor_arg(),
            weights.into_tensor_arg(),
            scores.into_tensor_arg(),
            weighted,
        );
    }
    logits
}

/// Returns true if there is a weight of each class, and false if there is one of all.
fn is_weighted(weights: &CubeTensor, classes: usize) -> bool {
    weights.meta.shape().num_elements() == classes && classes > 1
}

/// Returns the workgroups for a number of threads, and the threads of each.
fn launch(client: &burn_cubecl::cubecl::client::Client, threads: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(client, threads);
    (calculate_cube_count_elemwise(client, threads, dim), dim)
}
