//! Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) that keeps no score.
//!
//! `O = (softmax(s Q Kᵀ + bias) ∘ M) V`, with the mask M of dropout. Of each row of scores what stays until the backward pass is
//! its largest and the sum of its exponentials, `[batch, heads, queries, 2]` in all; the scores themselves, `[batch, heads, queries,
//! keys]`, are made again from Q and K (Dao et al. 2022, *FlashAttention*, algorithm 4), and M again from its seed. With
//! `P = softmax(…)` and the gradient G of O:
//!
//! - `∂V = (P ∘ M)ᵀ G`
//! - `∂S = P ∘ ((G Vᵀ) ∘ M - δ)`, where `δ = rowsum(G ∘ O)`, which is also the row's sum of `P ∘ (G Vᵀ) ∘ M`
//! - `∂Q = s ∂S K`, `∂K = s ∂Sᵀ Q`, `∂bias = ∂S`, summed where it was repeated
//!
//! Causal attention hides from a query the keys behind it; the last query sees all keys, so that there may be more keys than
//! queries: those of the past, or of a prefix.
//!
//! Of a row that is [packed](Segments) of several texts, each is attended to alone.

mod autodiff;
mod composed;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod heads;
#[cfg(feature = "flex")]
mod pieces;
mod segments;
mod tensors;
#[cfg(feature = "flex")]
mod tile;

pub use segments::Segments;
pub use tensors::ScaledDotProduct;

use burn::backend::{Backend, TensorMetadata, backend_extension, tensor::FloatTensor};
use burn::tensor::{Shape, Slice};

/// What attention does to its scores.
#[derive(Clone, Debug)]
pub struct AttentionOptions {
    /// What the scores are multiplied by.
    pub scale: f64,
    /// Whether a query sees only the keys up to its own place.
    pub causal: bool,
    /// The probability of dropping a weight, in [0, 1). Above zero only on a CPU.
    pub dropout: f64,
    /// What the weights that are dropped are drawn from.
    pub seed: u64,
    /// The texts that one row is packed of. There is no bias then, and none gets a gradient.
    pub segments: Option<Segments>,
}

/// What a backend does for attention.
///
/// # Shapes
/// Everywhere here:
/// - `query`: `[batch, heads, queries, d]`, `key`: `[batch, heads, keys, d]`, `value`: `[batch, heads, keys, d_value]`
/// - `fused`: `[batch, seq, 3 · heads · d]`, the queries, keys and values of all heads side by side
/// - `bias`: each axis that of the scores `[batch, heads, queries, keys]` or 1; one number, as it changes nothing, for none
/// - `statistics`: `[batch, heads, queries, 2]`, the largest score of a row, and the sum of exponentials from there
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
    Fusion: cfg(feature = "fusion"),
    Autodiff,
)]
pub trait AttentionOps: Backend {
    /// The output, `[batch, heads, queries, d_value]`.
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

    /// The output, `[batch, seq, heads · d]`.
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

    /// The output, and the statistics.
    #[fusion(default)]
    fn attend_forward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        segments::forward::<Self>(query, key, value, bias, options)
    }

    /// The gradients of queries, keys and values, and that of the bias if it is wanted.
    #[fusion(default)]
    #[allow(clippy::too_many_arguments)] // A tensor each, and no structure crosses the macro.
    fn attend_backward(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        output: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: AttentionOptions,
        of_bias: bool,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        Option<FloatTensor<Self>>,
    ) {
        let forward = composed::Forward::<Self> {
            query,
            key,
            value,
            bias,
            output,
            statistics,
        };
        segments::backward(forward, grad, options, of_bias)
    }

    /// The gradient of `fused`. `output` and `grad` are by head, `[batch, heads, seq, d]`.
    #[fusion(default)]
    fn attend_fused_backward(
        fused: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        output: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: AttentionOptions,
    ) -> FloatTensor<Self> {
        let [_, heads, _, _] = grad.shape().dims();
        let [query, key, value] = split::<Self>(fused, heads);
        let (query, key, value, _) = Self::attend_backward(
            query, key, value, bias, output, statistics, grad, options, false,
        );
        join::<Self>(Self::float_cat(vec![query, key, value], 1))
    }
}

#[cfg(feature = "ndarray")]
impl AttentionOps for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl AttentionOps for burn_cubecl::CubeBackend {}

/// `[batch, seq, 3 · heads · d]` as three of `[batch, heads, seq, d]`.
fn split<B: Backend>(fused: FloatTensor<B>, heads: usize) -> [FloatTensor<B>; 3] {
    let all = by_head::<B>(fused, 3 * heads);
    let [batch, _, seq, d] = all.shape().dims();
    [0, 1, 2].map(|part| {
        let range = part * heads..(part + 1) * heads;
        let slices = [0..batch, range, 0..seq, 0..d].map(Slice::from);
        B::float_slice(all.clone(), &slices)
    })
}

/// `[batch, seq, heads · d]` as `[batch, heads, seq, d]`.
fn by_head<B: Backend>(joined: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [batch, seq, width] = joined.shape().dims();
    let apart = Shape::new([batch, seq, heads, width / heads]);
    B::float_swap_dims(B::float_reshape(joined, apart), 1, 2)
}

/// `[batch, heads, seq, d]` as `[batch, seq, heads · d]`.
fn join<B: Backend>(heads: FloatTensor<B>) -> FloatTensor<B> {
    let [batch, count, seq, d] = heads.shape().dims();
    let joined = Shape::new([batch, seq, count * d]);
    B::float_reshape(B::float_swap_dims(heads, 1, 2), joined)
}
