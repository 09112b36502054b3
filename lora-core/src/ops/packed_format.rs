//! Format of packed weights: integers of 32 bits, in blocks that share a scale.

/// Number format and shape of a packed weight.
#[derive(Clone, Copy, Debug)]
pub struct PackedLayout {
    /// Bits of a value: 4 for NF4, 8 for integers.
    pub bits: usize,
    /// Size of the input features.
    pub d_in: usize,
    /// Size of the output features.
    pub d_out: usize,
}

/// Number of values that share a scale.
pub(crate) const BLOCK: usize = 64;

/// Bits of one packed integer.
pub(crate) const WORD: usize = 32;

/// Codebook of NF4: quantiles of the standard normal distribution, scaled to a largest magnitude of 1, with an
/// exact zero (Dettmers et al. 2023, section 3 and appendix E).
pub(crate) const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Offset from a signed 8-bit integer to its packed, unsigned form.
pub(crate) const INT8_OFFSET: i32 = 128;
