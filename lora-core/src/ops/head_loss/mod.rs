//! Projection to classes with its cross entropy, without the matrix of all logits.
//!
//! The logits of a language model are by far the largest tensor of a training step: GPT-2's for 8 × 128 tokens are
//! 206 MB, and softmax, loss and their gradients need as much each. Here they exist for a chunk of rows at a time. With the logits
//! `z = x W` of one row, `p = softmax(z)`, the target `y`, K classes with weights `c` (1 by default) and label
//! smoothing ε, the loss is that of PyTorch:
//!
//! `(1 - ε) c_y (-log p_y) + ε/K Σ_k c_k (-log p_k)`
//!
//! Its gradient overwrites the logits of the chunk:
//!
//! `∂z_k = p_k ((1 - ε) c_y + ε/K Σ_j c_j) - ε/K c_k - (1 - ε) c_y [k = y]`
//!
//! With a soft cap c the loss is that of `c tanh(z/c)`, whose slope `1 - tanh²(z/c)` multiplies the gradient.
//!
//! `∂x = ∂z Wᵀ` follows at once, and if the projection is trained, `∂W = xᵀ ∂z` summed over the rows. The loss is a sum, so that
//! the backward pass only scales both. Only `[rows, d]` is kept from the forward to the backward pass.
//!
//! | file | contents |
//! | --- | --- |
//! | `tensors` | [`head_loss`] on tensors, with a dense or a packed projection |
//! | `parts` | [`head_loss_in_parts`]: a projection that is larger than the device binds in one buffer |
//! | `composed` | chunks of rows, on backends without an implementation of their own |
//! | `rows` | operations on the rows of logits, composed of those that every backend has |
//! | `kernel` | the same as kernels of GPUs |
//! | `flex` | implementation for the CPU |
//! | `autodiff` | backward pass, shared by all backends |

mod autodiff;
mod composed;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "gpu")]
mod kernel;
mod parts;
mod rows;
mod tensors;

pub use parts::head_loss_in_parts;
pub(crate) use tensors::packed_head_loss;
pub use tensors::{HeadLoss, head_loss, loss_of_logits};

use super::packed::{PackedLayout, PackedOps};
use super::prelude::*;
#[cfg(all(feature = "fusion", feature = "gpu"))]
use burn::backend::fusion::custom::TensorSpec;
#[cfg(feature = "gpu")]
use burn::{backend::ops::IntTensorOps, tensor::IntDType};
use composed::Head;

/// Options of the cross entropy.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// Label smoothing ε, in [0, 1): the share of a target's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Weight of each class; `None` for 1.
    pub class_weights: Option<Vec<f32>>,
    /// Soft cap of the logits: the loss is that of `cap · tanh(logits / cap)`. `None` for the logits as they are.
    pub logit_cap: Option<f64>,
}

impl CrossEntropy {
    /// Creates options without class weights and soft cap.
    pub fn new(label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            ..Self::default()
        }
    }

    /// Sets the soft cap of the logits.
    pub fn with_logit_cap(mut self, cap: Option<f64>) -> Self {
        self.logit_cap = cap;
        self
    }

    /// Panics unless there is one weight per class.
    fn check(&self, classes: usize) {
        if let Some(weights) = &self.class_weights {
            let found = weights.len();
            assert_eq!(found, classes, "{found} weights for {classes} classes");
        }
    }
}

/// Requested gradients of the loss.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadGradients {
    /// Enables the gradient of the hidden states.
    pub hidden: bool,
    /// Enables the gradient of the projection.
    pub weight: bool,
}

backend_operations! {
    /// Projection with cross entropy, on a backend.
    pub trait HeadLossOps: PackedOps {
        /// Computes the loss summed over the rows, and the results of each row.
        ///
        /// # Shapes
        /// - `hidden`: `[rows, d]`, `weight`: `[d, classes]`
        /// - `targets`: `[rows]`; a negative target is ignored
        /// - returns the loss `[1]`, `-log p_y` `[rows]`, and the most likely class `[rows]`
        #[fusion(default)]
        fn head_loss(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            targets: IntTensor<Self>,
            options: CrossEntropy,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>) {
            let requested = HeadGradients::default();
            let (loss, nll, best, _, _) =
                Self::head_loss_and_gradients(hidden, weight, targets, options, requested);
            (loss, nll, best)
        }

        /// Computes [`head_loss`](Self::head_loss) and the requested gradients of the loss, each in the shape of its
        /// parameter.
        #[fusion(default)]
        #[allow(clippy::type_complexity)] // The macro accepts tensors as results, not aliases.
        fn head_loss_and_gradients(
            hidden: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            targets: IntTensor<Self>,
            options: CrossEntropy,
            requested: HeadGradients,
        ) -> (
            FloatTensor<Self>,
            FloatTensor<Self>,
            IntTensor<Self>,
            Option<FloatTensor<Self>>,
            Option<FloatTensor<Self>>,
        ) {
            let head = Head::<Self>::Dense(weight);
            composed::head_loss(hidden, head, targets, &options, requested)
        }

        /// Computes [`head_loss`](Self::head_loss) with a packed, frozen weight, `[d, classes]`, which is unpacked part by part for
        /// each chunk of rows.
        #[fusion(default)]
        fn packed_head_loss(
            hidden: FloatTensor<Self>,
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
            targets: IntTensor<Self>,
            options: CrossEntropy,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>) {
            let requested = HeadGradients::default();
            let (loss, nll, best, _) = Self::packed_head_loss_and_gradient(
                hidden, packed, scales, layout, targets, options, requested,
            );
            (loss, nll, best)
        }

        /// Computes [`packed_head_loss`](Self::packed_head_loss) and, if requested, the gradient of the hidden states.
        #[fusion(default)]
        #[allow(clippy::type_complexity)] // The macro accepts tensors as results, not aliases.
        fn packed_head_loss_and_gradient(
            hidden: FloatTensor<Self>,
            packed: IntTensor<Self>,
            scales: FloatTensor<Self>,
            layout: PackedLayout,
            targets: IntTensor<Self>,
            options: CrossEntropy,
            requested: HeadGradients,
        ) -> (
            FloatTensor<Self>,
            FloatTensor<Self>,
            IntTensor<Self>,
            Option<FloatTensor<Self>>,
        ) {
            let head = Head::<Self>::Packed(packed, scales, layout);
            let (loss, nll, best, gradient, _) =
                composed::head_loss(hidden, head, targets, &options, requested);
            (loss, nll, best, gradient)
        }

        /// Computes the loss of logits summed over the rows, the results of each row, and on request the gradient of the
        /// logits. It is not differentiable.
        ///
        /// # Shapes
        /// - `logits`: `[rows, classes]`, `targets`: `[rows]`
        /// - returns the loss `[1]`, `-log p_y` `[rows]`, the most likely class `[rows]`, and the gradient `[rows, classes]`
        #[fusion(default)]
        #[allow(clippy::type_complexity)] // The macro accepts tensors as results, not aliases.
        fn score_logits(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            options: CrossEntropy,
            gradient: bool,
        ) -> (
            FloatTensor<Self>,
            FloatTensor<Self>,
            IntTensor<Self>,
            Option<FloatTensor<Self>>,
        ) {
            composed::score_logits::<Self>(logits, targets, &options, gradient)
        }

        /// Computes the scores of each row of logits, and its most likely class. The scores are the loss, `-log p_y`, and for the
        /// gradient the highest logit, the factor of the exponentials, the share of the target and that of all classes.
        ///
        /// # Shapes
        /// - `logits`: `[rows, classes]`, in f32 at least; `targets`: `[rows]`
        /// - `weights`: `[1, classes]`, or `[1, 1]` for one weight of all classes, which is 1
        /// - returns `[rows, SCORES]` and `[rows, 1]`
        #[fusion(meta = scores_metadata)]
        fn score_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            smoothing: f64,
        ) -> (FloatTensor<Self>, IntTensor<Self>) {
            rows::score_rows::<Self>(logits, targets, weights, smoothing)
        }

        /// Computes the gradient of logits from their [scores](Self::score_rows), in the memory of the logits if nobody else
        /// holds them.
        ///
        /// # Shapes
        /// - those of [`score_rows`](Self::score_rows)
        /// - returns `[rows, classes]`
        #[fusion(dtype = logits, shape = logits)]
        fn differentiate_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            scores: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            rows::differentiate_rows::<Self>(logits, targets, weights, scores)
        }
    }
    cube {
        fn score_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            smoothing: f64,
        ) -> (FloatTensor<Self>, IntTensor<Self>) {
            if !kernel::suits(&logits) {
                return rows::score_rows::<Self>(logits, targets, weights, smoothing);
            }
            let int = targets.dtype().into();
            let targets = Self::int_cast(targets, IntDType::I32);
            let (scores, best) = kernel::score_rows(logits, targets, weights, smoothing);
            (scores, Self::int_cast(best, int))
        }

        fn differentiate_rows(
            logits: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            scores: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            if !kernel::suits(&logits) {
                return rows::differentiate_rows::<Self>(logits, targets, weights, scores);
            }
            let targets = Self::int_cast(targets, IntDType::I32);
            kernel::differentiate_rows(logits, targets, weights, scores)
        }
    }
}

/// Number of scores of a row.
const SCORES: usize = 6;

/// Describes the results of [`HeadLossOps::score_rows`].
#[cfg(all(feature = "fusion", feature = "gpu"))]
fn scores_metadata(
    logits: &TensorSpec,
    targets: &TensorSpec,
    _weights: &TensorSpec,
    _smoothing: &f64,
) -> (TensorSpec, TensorSpec) {
    let rows = logits.shape[0];
    (
        TensorSpec::new([rows, SCORES].into(), logits.dtype),
        TensorSpec::new([rows, 1].into(), targets.dtype),
    )
}

/// Largest size of the logits of one chunk of rows, in bytes of f32. Large enough that reading the whole projection for each chunk
/// does not matter, and below what any device binds in one buffer.
const MOST_CHUNK_BYTES: usize = 64 << 20;

/// The same for a small batch on a GPU, whose memory the logits would fill otherwise.
const LEAST_CHUNK_BYTES: usize = 8 << 20;

/// Returns the size of a chunk's logits on a GPU: that of the activation of an MLP of width `4 d`, which a step holds too.
fn chunk_bytes(rows: usize, d: usize) -> usize {
    (rows * 4 * d * 4).clamp(LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES)
}

/// Returns the number of rows in a chunk of `bytes` at most: a multiple of 16, as kernels of products like it. All chunks have
/// nearly the same size.
fn rows_per_chunk(rows: usize, classes: usize, bytes: usize) -> usize {
    let most = (bytes / 4 / classes.max(1) / 16 * 16).max(16);
    let chunks = rows.div_ceil(most).max(1);
    rows.div_ceil(chunks).next_multiple_of(16).min(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_alike_and_bounded() {
        assert_eq!(rows_per_chunk(1016, 50257, MOST_CHUNK_BYTES), 256);
        assert_eq!(rows_per_chunk(1016, 50257, 16 << 20), 80);
        assert_eq!(rows_per_chunk(504, 20000, LEAST_CHUNK_BYTES), 96);
        assert_eq!(rows_per_chunk(5, 50257, LEAST_CHUNK_BYTES), 5);
        assert_eq!(rows_per_chunk(100, 1 << 30, MOST_CHUNK_BYTES), 16);
        assert_eq!(rows_per_chunk(0, 7, LEAST_CHUNK_BYTES), 0);
    }

    #[test]
    fn a_chunk_has_the_size_of_an_activation_within_bounds() {
        assert_eq!(chunk_bytes(504, 768), LEAST_CHUNK_BYTES);
        assert_eq!(chunk_bytes(2048, 768), 2048 * 3072 * 4);
        assert_eq!(chunk_bytes(1 << 20, 768), MOST_CHUNK_BYTES);
    }
}
