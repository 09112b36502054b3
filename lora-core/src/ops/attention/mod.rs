//! Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) that keeps no scores.
//!
//! `O = (softmax(s Q Kᵀ + bias) ∘ M) V`, with the dropout mask M. For the backward pass each row of scores keeps only its
//! maximum and the sum of its exponentials, `[batch, heads, queries, 2]`; the scores, `[batch, heads, queries, keys]`, are
//! recomputed from Q and K (Dao et al. 2022, *FlashAttention*, algorithm 4), and M from its seed. With
//! `P = softmax(…)` and the gradient G of O:
//!
//! - `∂V = (P ∘ M)ᵀ G`
//! - `∂S = P ∘ ((G Vᵀ) ∘ M - δ)`, where δ is the row's sum of `P ∘ (G Vᵀ) ∘ M`, which is also that of `G ∘ O`
//! - `∂Q = s ∂S K`, `∂K = s ∂Sᵀ Q`, `∂bias = ∂S`, summed over broadcast axes
//!
//! Causal attention masks the keys after each query. The last query sees all keys, so that there may be more keys than
//! queries: keys of the past, or of a prefix.
//!
//! A sliding window also masks the keys that lie too far before a query. Scores may be capped softly, at `c tanh(s Q Kᵀ / c)`
//! (Gemma 2); their gradient then has the factor `1 - tanh²`.
//!
//! There may be fewer heads of keys than of queries: consecutive heads of queries share one (Ainslie et al. 2023,
//! *GQA*, arXiv 2305.13245).
//!
//! In a row that [packs](Segments) several texts, each text attends to itself only.
//!
//! | file | contents |
//! | --- | --- |
//! | `tensors` | [`ScaledDotProduct`] on tensors |
//! | `segments` | [`Segments`]: several texts in one row |
//! | `parts` | parts of the batch and of the heads, with scores of a bounded size |
//! | `groups` | heads of queries that share keys, on any backend |
//! | `composed` | composition of operations that every backend has |
//! | `flex`, `tile`, `work`, `heads` | implementation for the CPU: blocks of queries, units of work for threads, memory layout |
//! | `autodiff` | backward pass, shared by all backends |

mod autodiff;
mod composed;
#[cfg(feature = "flex")]
mod flex;
mod groups;
#[cfg(feature = "flex")]
mod heads;
mod parts;
mod segments;
mod tensors;
#[cfg(feature = "flex")]
mod tile;
#[cfg(feature = "flex")]
mod work;

pub use segments::Segments;
pub use tensors::ScaledDotProduct;

use super::prelude::*;
use super::product::ProductOps;
use burn::backend::ExtensionType;
use burn::tensor::{Shape, Slice};

/// Options of scaled dot-product attention.
#[derive(Clone, Debug)]
pub struct AttentionOptions {
    /// Factor on the scores.
    pub scale: f64,
    /// Enables the causal mask: a query sees only the keys up to its own position.
    pub causal: bool,
    /// Number of keys that a query sees, its own position included. Requires the causal mask. `None` for all.
    pub window: Option<usize>,
    /// Limit `c` of the scores, which become `c tanh(score / c)` before the bias is added. `None` for none.
    pub cap: Option<f64>,
    /// Dropout probability of an attention weight, in [0, 1).
    pub dropout: f64,
    /// Seed of the dropout mask.
    pub seed: u64,
    /// Texts packed into one row. Requires that there is no bias.
    pub segments: Option<Segments>,
    /// Largest size of the scores that are computed at a time, in bytes. `None` for all; kernels that keep no scores
    /// disregard it.
    pub max_scores_bytes: Option<u64>,
}

/// Tensors of the forward pass that the backward pass reads, in the shapes of [`AttentionOps`].
#[derive(ExtensionType)]
pub struct AttentionState<B: Backend> {
    /// Queries.
    pub query: FloatTensor<B>,
    /// Keys.
    pub key: FloatTensor<B>,
    /// Values.
    pub value: FloatTensor<B>,
    /// Bias on the scores.
    pub bias: FloatTensor<B>,
    /// Maximum of each row of scores.
    pub maximum: FloatTensor<B>,
    /// Sum of the exponentials of each row of scores, or what a kernel keeps in its place.
    pub sum: FloatTensor<B>,
}

impl<B: Backend> AttentionState<B> {
    /// Joins the inputs and what the forward pass kept.
    fn new(
        [query, key, value]: [FloatTensor<B>; 3],
        [bias, maximum, sum]: [FloatTensor<B>; 3],
    ) -> Self {
        Self {
            query,
            key,
            value,
            bias,
            maximum,
            sum,
        }
    }

    /// Applies a function to each tensor.
    fn map(&self, f: impl Fn(&FloatTensor<B>) -> FloatTensor<B>) -> Self {
        Self::new(
            [&self.query, &self.key, &self.value].map(&f),
            [&self.bias, &self.maximum, &self.sum].map(&f),
        )
    }
}

/// Gradients of queries, keys, values and bias.
type Gradients<B> = (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    Option<FloatTensor<B>>,
);

backend_operations! {
    /// Attention on a backend.
    ///
    /// # Shapes
    /// - `query`: `[batch, heads, queries, d]`, `key`: `[batch, key_heads, keys, d]`, `value`:
    ///   `[batch, key_heads, keys, d_value]`; `heads` is a multiple of `key_heads`
    /// - `fused`: `[batch, seq, 3 · heads · d]`, the queries, keys and values of all heads side by side
    /// - `bias`: broadcastable to the scores `[batch, heads, queries, keys]`; `[1, 1, 1, 1]`, which has no effect, stands for none
    /// - `maximum`, `sum`: `[batch, heads, queries, 1]`, the maximum of each row of scores, and the sum of
    ///   `exp(score - maximum)`. A kernel may keep both in `maximum`, `[batch, heads, queries, 2]`; its `sum` is the output, for
    ///   the kernel's own backward pass
    pub trait AttentionOps: ProductOps {
        /// Computes the output, `[batch, heads, queries, d_value]`.
        #[fusion(default)]
        fn attend(
            query: FloatTensor<Self>,
            key: FloatTensor<Self>,
            value: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            options: AttentionOptions,
        ) -> FloatTensor<Self> {
            Self::attend_forward(query, key, value, bias, options).0
        }

        /// Computes the output from fused projections, `[batch, seq, heads · d]`.
        #[fusion(default)]
        fn attend_fused(
            fused: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            heads: usize,
            options: AttentionOptions,
        ) -> FloatTensor<Self> {
            let [query, key, value] = split::<Self>(fused, heads);
            join::<Self>(Self::attend(query, key, value, bias, options))
        }

        /// Computes the output, the maxima and the sums.
        #[fusion(default)]
        fn attend_forward(
            query: FloatTensor<Self>,
            key: FloatTensor<Self>,
            value: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            options: AttentionOptions,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            groups::forward::<Self>(query, key, value, bias, options)
        }

        /// Computes the gradients of queries, keys and values, and of the bias if `with_bias_grad`.
        #[fusion(default)]
        fn attend_backward(
            #[extension_type] state: AttentionState<Self>,
            grad: FloatTensor<Self>,
            options: AttentionOptions,
            with_bias_grad: bool,
        ) -> (
            FloatTensor<Self>,
            FloatTensor<Self>,
            FloatTensor<Self>,
            Option<FloatTensor<Self>>,
        ) {
            groups::backward(state, grad, options, with_bias_grad)
        }

        /// Computes the gradient of `fused`. `grad` is split by head, `[batch, heads, seq, d]`.
        #[fusion(default)]
        fn attend_fused_backward(
            #[extension_type] state: AttentionState<Self>,
            grad: FloatTensor<Self>,
            options: AttentionOptions,
        ) -> FloatTensor<Self> {
            let (query, key, value, _) = Self::attend_backward(state, grad, options, false);
            join::<Self>(Self::float_cat(vec![query, key, value], 1))
        }
    }
}

/// Splits `[batch, seq, 3 · heads · d]` into three tensors `[batch, heads, seq, d]`.
fn split<B: Backend>(fused: FloatTensor<B>, heads: usize) -> [FloatTensor<B>; 3] {
    let all = by_head::<B>(fused, 3 * heads);
    let [batch, _, seq, d] = all.shape().dims();
    [0, 1, 2].map(|part| {
        let range = part * heads..(part + 1) * heads;
        let slices = [0..batch, range, 0..seq, 0..d].map(Slice::from);
        B::float_slice(all.clone(), &slices)
    })
}

/// Reshapes `[batch, seq, heads · d]` to `[batch, heads, seq, d]`.
fn by_head<B: Backend>(joined: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [batch, seq, width] = joined.shape().dims();
    let apart = Shape::new([batch, seq, heads, width / heads]);
    B::float_swap_dims(B::float_reshape(joined, apart), 1, 2)
}

/// Reshapes `[batch, heads, seq, d]` to `[batch, seq, heads · d]`.
fn join<B: Backend>(heads: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, count, seq, d] = heads.shape().dims();
    let joined = Shape::new([batch, seq, count * d]);
    B::float_reshape(B::float_swap_dims(heads, 1, 2), joined)
}
