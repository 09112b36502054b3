//! A projection to classes and its cross entropy, without the matrix of all logits.
//!
//! The logits of a language model are by far the largest tensor of a training step: GPT-2's for 8 × 128 tokens are
//! 206 MB, and softmax, loss and their gradients want as much each. Here they live for some rows at a time. With the logits
//! `z = x W` of one row, `p = softmax(z)`, the target `y`, K classes of weights `c` (1 where none are given) and label
//! smoothing ε, the loss is PyTorch's:
//!
//! `(1 - ε) c_y (-log p_y) + ε/K Σ_k c_k (-log p_k)`
//!
//! and its gradient for the logits is made in their place, while they are there:
//!
//! `∂z_k = p_k ((1 - ε) c_y + ε/K Σ_j c_j) - ε/K c_k - (1 - ε) c_y [k = y]`
//!
//! `∂x = ∂z Wᵀ` follows at once, and where the projection trains, `∂W = xᵀ ∂z` summed over the rows. The loss is a sum, so that
//! the backward pass only has to multiply both by a number. What stays from forward to backward is `[rows, d]`.

mod autodiff;
mod composed;
#[cfg(feature = "flex")]
mod flex;
mod tensors;

pub use tensors::{HeadLoss, head_loss, loss_of_logits};

use burn::backend::{
    Backend, backend_extension,
    tensor::{FloatTensor, IntTensor},
};

/// The kind of cross entropy.
#[derive(Clone, Debug, Default)]
pub struct CrossEntropy {
    /// ε, in [0, 1): the part of a target's probability that is spread over all classes.
    pub label_smoothing: f64,
    /// The weight of each class, or 1 for all.
    pub class_weights: Option<Vec<f32>>,
}

impl CrossEntropy {
    /// Without weights.
    pub fn new(label_smoothing: f64) -> Self {
        Self {
            label_smoothing,
            class_weights: None,
        }
    }

    /// Panics where there are not as many weights as classes.
    fn check(&self, classes: usize) {
        if let Some(weights) = &self.class_weights {
            let found = weights.len();
            assert_eq!(found, classes, "{found} weights for {classes} classes");
        }
    }
}

/// Which gradients of the loss are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadGradients {
    /// Of the hidden states.
    pub hidden: bool,
    /// Of the projection.
    pub weight: bool,
}

/// What a backend does for a projection with its cross entropy.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait HeadLossOps: Backend {
    /// The loss summed over the rows, and what is known of each row.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, d]`, `weight`: `[d, classes]`
    /// - `targets`: `[rows]`; a negative one counts for nothing
    /// - returns the loss `[1]`, `-log p_y` `[rows]`, and the likeliest class `[rows]`
    #[fusion(default)]
    fn head_loss(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: CrossEntropy,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>) {
        let wanted = HeadGradients::default();
        let (loss, nll, best, _, _) =
            Self::head_loss_and_gradients(hidden, weight, targets, options, wanted);
        (loss, nll, best)
    }

    /// [`head_loss`](Self::head_loss) with the gradients of its loss that are wanted, each of the shape of
    /// what it is of.
    #[fusion(default)]
    #[allow(clippy::type_complexity)] // Tensors, and no alias crosses the macro.
    fn head_loss_and_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        targets: IntTensor<Self>,
        options: CrossEntropy,
        wanted: HeadGradients,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        IntTensor<Self>,
        Option<FloatTensor<Self>>,
        Option<FloatTensor<Self>>,
    ) {
        composed::head_loss::<Self>(hidden, weight, targets, &options, wanted)
    }
}

#[cfg(feature = "ndarray")]
impl HeadLossOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl HeadLossOps for burn_cubecl::CubeBackend {}

/// What the logits of some rows may take at once, in bytes of f32: enough of them that reading the whole projection
/// for each lot of rows does not count.
const LOGITS: usize = 64 << 20;

/// Rows to a lot, all lots alike.
fn rows_at_once(rows: usize, classes: usize) -> usize {
    let most = (LOGITS / 4 / classes.max(1)).max(16);
    let lots = rows.div_ceil(most).max(1);
    rows.div_ceil(lots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lots_are_alike_and_bounded() {
        assert_eq!(rows_at_once(1016, 50257), 254);
        assert_eq!(rows_at_once(5, 50257), 5);
        assert_eq!(rows_at_once(100, 1 << 30), 15);
        assert_eq!(rows_at_once(0, 7), 0);
    }
}
