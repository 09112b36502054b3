//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864).
//!
//! Feature i of a head turns with feature `i + D/2`, as in transformers (`rotate_half`), of the first D features; any others stay
//! as they are:
//!
//! - `y_i = x_i cos - x_{i + D/2} sin`
//! - `y_{i + D/2} = x_{i + D/2} cos + x_i sin`
//!
//! The backward pass turns the gradient back, and needs nothing of the forward pass but the angles.

use super::prelude::*;
use burn::tensor::{Shape, Slice, Tensor};

backend_operations! {
    /// Rotary position embeddings on a backend.
    ///
    /// # Shapes
    /// - `x`: `[batch, seq, heads, d]`; `cos`, `sin`: `[batch or 1, seq, D/2]`, with `D <= d`
    pub trait RotaryOps {
        /// Turns the features of each head, forward or back.
        #[fusion(default)]
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            back: bool,
        ) -> FloatTensor<Self> {
            composed::<Self>(x, cos, sin, back)
        }
    }
}

fn composed<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    back: bool,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let wide = accumulation_dtype(dtype);
    let [batch, seq, heads, d] = x.shape().dims();
    let [rows, _, half] = cos.shape().dims();
    let features = |range: std::ops::Range<usize>| {
        let slices = [0..batch, 0..seq, 0..heads, range].map(Slice::from);
        B::float_slice(x.clone(), &slices)
    };
    let angles = |all| {
        cast::<B>(
            B::float_reshape(all, Shape::new([rows, seq, 1, half])),
            wide,
        )
    };
    let (cos, sin) = (angles(cos), angles(sin));
    let sin = if back { B::float_neg(sin) } else { sin };
    let first = cast::<B>(features(0..half), wide);
    let second = cast::<B>(features(half..2 * half), wide);
    let of = |a: &FloatTensor<B>, b: &FloatTensor<B>| B::float_mul(a.clone(), b.clone());
    let turned = [
        B::float_sub(of(&first, &cos), of(&second, &sin)),
        B::float_add(of(&second, &cos), of(&first, &sin)),
    ];
    let mut parts = turned.map(|part| cast::<B>(part, dtype)).to_vec();
    if 2 * half < d {
        parts.push(features(2 * half..d));
    }
    B::float_cat(parts, 3)
}

#[cfg(feature = "flex")]
mod flex {
    use super::{FloatTensor, RotaryOps, composed};
    use crate::ops::contiguous::{are_plain_f32, contiguous};
    use crate::ops::kernels;
    use burn::backend::{Flex, TensorMetadata};

    impl RotaryOps for Flex {
        fn rotate(
            x: FloatTensor<Self>,
            cos: FloatTensor<Self>,
            sin: FloatTensor<Self>,
            back: bool,
        ) -> FloatTensor<Self> {
            if !are_plain_f32(&[&x, &cos, &sin]) {
                return composed::<Self>(x, cos, sin, back);
            }
            let [_, _, heads, d] = x.shape().dims();
            let [_, _, half] = cos.shape().dims();
            let [mut x, cos, sin] = [x, cos, sin].map(contiguous);
            let angles = [cos.storage::<f32>(), sin.storage::<f32>()];
            kernels::rotate(x.storage_mut::<f32>(), angles, [heads, d, half], back);
            x
        }
    }
}

impl<B: Backend + RotaryOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotate(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        back: bool,
    ) -> FloatTensor<Self> {
        let operation = Operation::<B, C, _, 1>::new([&x], |pass, grad, state| {
            let ([cos, sin], back): ([FloatTensor<B>; 2], bool) = state;
            pass.register(0, || B::rotate(grad, cos, sin, !back));
        });
        let [x, cos, sin] = [x, cos, sin].map(|tensor| tensor.into_primitive());
        let state = ([cos.clone(), sin.clone()], back);
        operation.finish(state, B::rotate(x, cos, sin, back))
    }
}

/// Turns the first `D` features of each head by the angles of its position. Angles have no gradient.
///
/// # Shapes
/// - `x`: `[batch, seq, heads, d]`
/// - `cos`, `sin`: `[batch or 1, seq, D/2]`
/// - returns `[batch, seq, heads, d]`
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::ops::rotary;
///
/// let device = Device::flex();
/// let x = Tensor::<4>::from_floats([[[[1.0, 2.0, 5.0]]]], &device);
/// // A quarter of a turn: the third feature is not among those that turn.
/// let cos = Tensor::<3>::from_floats([[[0.0]]], &device);
/// let sin = Tensor::<3>::from_floats([[[1.0]]], &device);
/// let y = rotary(x, cos, sin).into_data().to_vec::<f32>().unwrap();
/// assert_eq!(y, [-2.0, 1.0, 5.0]);
/// ```
///
/// # Panics
/// Panics on shapes that do not match, and on a backend whose feature of this crate is off.
pub fn rotary(x: Tensor<4>, cos: Tensor<3>, sin: Tensor<3>) -> Tensor<4> {
    let [batch, seq, _, d] = x.dims();
    let [rows, positions, half] = cos.dims();
    assert!(
        cos.dims() == sin.dims()
            && (rows == batch || rows == 1)
            && positions == seq
            && (1..=d / 2).contains(&half),
        "angles {:?} and {:?} for {:?}",
        cos.dims(),
        sin.dims(),
        x.dims()
    );
    Tensor::from_dispatch(<Dispatch as RotaryOps>::rotate(
        x.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        false,
    ))
}
