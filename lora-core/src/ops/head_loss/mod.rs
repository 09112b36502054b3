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
//! `∂x = ∂z Wᵀ` follows at once, and if the projection is trained, `∂W = xᵀ ∂z` summed over the rows. The loss is a sum, so that
//! the backward pass only scales both. Only `[rows, d]` is kept from the forward to the backward pass.
//!
//! | file | contents |
//! | --- | --- |
//! | `tensors` | [`head_loss`] on tensors, with a dense or a packed projection |
//! | `parts` | [`head_loss_in_parts`]: a projection that is larger than the device binds in one buffer |
//! | `composed` | composition of operations that every backend has |
//! | `flex` | implementation for the CPU |
//! | `autodiff` | backward pass, shared by all backends |

mod autodiff;
mod composed;
#[cfg(feature = "flex")]
mod flex;
mod parts;
mod tensors;

pub use parts::head_loss_in_parts;
pub(crate) use tensors::packed_head_loss;
pub use tensors::{HeadLoss, head_loss, loss_of_logits};

use super::packed::{PackedLayout, PackedOps};
use super::prelude::*;
use composed::Head;

/// Options of the cross entropy.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// Label smoothing ε, in [0, 1): the share of a target's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// Weight of each class; `None` for 1.
    pub class_weights: Option<Vec<f32>>,
}

impl CrossEntropy {
    /// Creates options without class weights.
    pub fn new(label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            class_weights: None,
        }
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

        /// Computes [`head_loss`](Self::head_loss) with a packed, frozen weight of 16-bit floats, `[d, classes]`, which is
        /// unpacked part by part for each chunk of rows.
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
    }
}

/// Largest size of the logits of one chunk of rows, in bytes of f32, where the gradient overwrites them. Large enough that
/// reading the whole projection for each chunk does not matter.
#[cfg(feature = "flex")]
const IN_PLACE_BYTES: usize = 64 << 20;

/// The same where the loss is composed of operations, of which about five have a result of that size.
const COMPOSED_BYTES: usize = 16 << 20;

/// Returns the number of rows in a chunk of about `bytes` at most: a multiple of 16, as kernels of products like it. All chunks
/// have nearly the same size.
fn rows_per_chunk(rows: usize, classes: usize, bytes: usize) -> usize {
    let most = (bytes / 4 / classes.max(1)).max(16);
    let chunks = rows.div_ceil(most).max(1);
    rows.div_ceil(chunks).next_multiple_of(16).min(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_alike_and_bounded() {
        assert_eq!(rows_per_chunk(1016, 50257, 64 << 20), 256);
        assert_eq!(rows_per_chunk(1016, 50257, COMPOSED_BYTES), 80);
        assert_eq!(rows_per_chunk(5, 50257, COMPOSED_BYTES), 5);
        assert_eq!(rows_per_chunk(100, 1 << 30, 64 << 20), 16);
        assert_eq!(rows_per_chunk(0, 7, COMPOSED_BYTES), 0);
    }
}
