//! Imports and helpers shared by the operations.

pub(super) use super::backward::{BackwardPass, Operation};
pub(super) use burn::backend::autodiff::{NodeId, checkpoint::strategy::CheckpointStrategy};
pub(super) use burn::backend::tensor::{FloatTensor, IntTensor};
pub(super) use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::DType;

/// Declares a trait of operations, with an implementation on `Dispatch` that selects the tensors' backend, and one on the
/// backends that only have the trait's defaults. Methods of their own for GPUs follow as `cube { … }`.
///
/// This is the only list of the backends.
macro_rules! backend_operations {
    (
        $(#[$($attribute:tt)*])* pub trait $ops:ident $(: $parent:ident $(+ $more:ident)*)? { $($methods:tt)* }
        $(cube { $($cube:tt)* })?
    ) => {
        #[backend_extension(
            Flex: cfg(feature = "flex"),
            NdArray: cfg(feature = "ndarray"),
            Cube: cfg(feature = "gpu"),
            Fusion: cfg(all(feature = "fusion", feature = "gpu")),
            Autodiff,
        )]
        $(#[$($attribute)*])*
        pub trait $ops: Backend $(+ $parent $(+ $more)*)? { $($methods)* }

        #[cfg(feature = "ndarray")]
        impl $ops for burn::backend::NdArray {}

        #[cfg(feature = "gpu")]
        impl $ops for burn_cubecl::CubeBackend { $($($cube)*)? }
    };
}
pub(super) use backend_operations;

/// Casts a tensor, unless it has the type.
pub(super) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, dtype.into())
    }
}

/// Returns the element type in which sums over `dtype` are accumulated: at least f32.
pub(super) fn accumulation_dtype(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    }
}
