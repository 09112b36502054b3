//! Backends whose tensors lie in host memory.

use burn::backend::Backend;
use std::any::TypeId;

/// Returns true for the backends of the CPU. Without one compiled in, it is false for all.
pub(super) fn is_on_host<B: Backend>() -> bool {
    [
        #[cfg(feature = "flex")]
        TypeId::of::<burn::backend::Flex>(),
        #[cfg(feature = "ndarray")]
        TypeId::of::<burn::backend::NdArray>(),
    ]
    .contains(&TypeId::of::<B>())
}

#[cfg(feature = "host")]
pub(super) use super::kernels::dropout_mask;

/// Unreachable stub: without a CPU backend, no tensor is on the host.
#[cfg(not(feature = "host"))]
pub(super) fn dropout_mask(
    _count: usize,
    _mask: super::seeded_mask::SeededMask,
    _first: usize,
) -> Vec<f32> {
    Vec::new()
}
