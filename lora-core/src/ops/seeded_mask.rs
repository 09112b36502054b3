//! Dropout masks as a hash of a seed and the place of an element: one formula, on numbers and on tensors.
//!
//! The mask of the element `i` is `hash(i) ≥ threshold`, unsigned, with `hash(i) = mix(mix(i ⊕ s₀) + s₁)`, the two halves s₀
//! and s₁ of the seed, and the finalizer `mix` of the 32-bit `MurmurHash3`. All arithmetic wraps at 32 bits. So any thread of any
//! device generates any part of the mask, and generates it again in the backward pass.

use super::constants::{bool_dtype, steps};
use burn::backend::Backend;
use burn::backend::tensor::{BoolTensor, Device, IntTensor};
use burn::tensor::{IntDType, Shape};

/// Shifts and factors of the finalizer, and its last shift.
const ROUNDS: [(u32, u32); 2] = [(16, 0x85eb_ca6b), (13, 0xc2b2_ae35)];
const LAST_SHIFT: u32 = 16;

/// Dropout mask defined by a seed.
#[derive(Clone, Copy)]
pub(in crate::ops) struct SeededMask {
    threshold: u32,
    kept: f32,
    seed: [u32; 2],
}

impl SeededMask {
    /// Creates a mask that zeroes elements with `probability`, in [0, 1).
    pub(in crate::ops) fn new(probability: f64, seed: u64) -> Self {
        Self {
            threshold: (probability * f64::from(u32::MAX)) as u32,
            kept: (1.0 / (1.0 - probability)) as f32,
            seed: [seed as u32, (seed >> 32) as u32],
        }
    }

    /// Returns the factor of an element that is kept, `1 / (1 - probability)`.
    pub(in crate::ops) fn kept(self) -> f32 {
        self.kept
    }

    /// Returns the factor of an element: 0 if it is dropped, else [`kept`](Self::kept).
    #[inline(always)]
    #[cfg(feature = "host")]
    pub(in crate::ops) fn factor(self, index: u32) -> f32 {
        let [low, high] = self.seed;
        let hash = mix(mix(index ^ low).wrapping_add(high));
        if hash >= self.threshold {
            self.kept
        } else {
            0.0
        }
    }

    /// Returns true for the elements that are dropped, of which the first has the index `first`.
    ///
    /// The indices are sums of two small constants, of the rows and of the columns. A backend with kernel fusion keeps nothing of
    /// the size of the shape. Unsigned integers, whose right shift fills with zeros, wrap as on numbers.
    pub(in crate::ops) fn dropped<B: Backend>(
        self,
        shape: &Shape,
        first: usize,
        device: &Device<B>,
    ) -> BoolTensor<B> {
        let last = shape.num_dims() - 1;
        let (mut rows, mut columns) = (shape.clone(), shape.clone());
        rows[last] = 1;
        (0..last).for_each(|axis| columns[axis] = 1);
        let rows = steps::<B>(rows, 0, shape[last], IntDType::U32, device);
        let columns = steps::<B>(columns, 0, 1, IntDType::U32, device);
        let mut index = B::int_add(rows, columns);
        if first > 0 {
            index = B::int_add_scalar(index, (first as u32).into());
        }
        let [low, high] = self.seed;
        let hash = mix_all::<B>(B::bitwise_xor_scalar(index, low.into()));
        let hash = mix_all::<B>(B::int_add_scalar(hash, high.into()));
        B::int_lower_elem(hash, self.threshold.into(), bool_dtype::<B>(device))
    }
}

#[inline(always)]
#[cfg(feature = "host")]
fn mix(mut hash: u32) -> u32 {
    // Written out, so that the loops over elements vectorize.
    hash = (hash ^ (hash >> ROUNDS[0].0)).wrapping_mul(ROUNDS[0].1);
    hash = (hash ^ (hash >> ROUNDS[1].0)).wrapping_mul(ROUNDS[1].1);
    hash ^ (hash >> LAST_SHIFT)
}

/// Computes `mix` of each element.
fn mix_all<B: Backend>(hashes: IntTensor<B>) -> IntTensor<B> {
    let shifted = |hashes: IntTensor<B>, shift: u32| {
        let high = B::bitwise_right_shift_scalar(hashes.clone(), shift.into());
        B::bitwise_xor(hashes, high)
    };
    let mixed = ROUNDS.into_iter().fold(hashes, |hashes, (shift, factor)| {
        B::int_mul_scalar(shifted(hashes, shift), factor.into())
    });
    shifted(mixed, LAST_SHIFT)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::FloatDType;

    // A debug build of Burn, as Miri has it, panics where its product of integers wraps.
    #[test]
    #[cfg_attr(miri, ignore = "needs integers that wrap")]
    fn the_mask_on_tensors_is_the_mask_on_numbers() {
        let mask = SeededMask::new(0.3, 0x9e37_79b9_7f4a_7c15);
        let device = Default::default();
        for (shape, first) in [
            (Shape::new([5]), 0),
            (Shape::new([2, 3, 7, 11]), 0),
            // The index wraps within the tensor.
            (Shape::new([40, 1000]), (1 << 32) - 20_000),
        ] {
            let ones = Flex::float_ones(shape.clone(), &device, FloatDType::F32);
            let dropped = mask.dropped::<Flex>(&shape, first, &device);
            let found = Flex::float_mask_fill(ones, dropped, 0.0.into());
            let places = 0..shape.num_elements();
            let expected: Vec<f32> = places
                .map(|place| (mask.factor((first + place) as u32) > 0.0).into())
                .map(|kept: u8| kept.into())
                .collect();
            assert_eq!(found.storage::<f32>(), expected);
        }
    }
}
