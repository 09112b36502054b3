//! Imports and helpers shared by the operations.

pub(super) use burn::backend::autodiff::{
    NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
pub(super) use burn::backend::tensor::{FloatTensor, IntTensor};
pub(super) use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::DType;

/// Implements operations on the backends that only have the composed default.
macro_rules! impl_composed {
    ($($ops:ident),+) => {$(
        #[cfg(feature = "ndarray")]
        impl $ops for burn::backend::NdArray {}

        #[cfg(feature = "gpu")]
        impl $ops for burn_cubecl::CubeBackend {}
    )+};
}
pub(super) use impl_composed;

/// Returns the element type in which sums over `dtype` are accumulated: at least f32.
pub(super) fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    }
}
