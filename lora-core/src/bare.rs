//! Access to the base below adapters and packed weights, and the placeholders of values that are elsewhere.

use crate::ops::scoped;
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use std::cell::Cell;

thread_local! {
    static BARE: Cell<bool> = const { Cell::new(false) };
    static PARTS_KEPT: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if this thread is inside [`bare`]: a reparameterization then returns the base unchanged.
pub(crate) fn is_bare() -> bool {
    BARE.get()
}

/// Runs `work` while adapters and packed weights have no effect on this thread.
///
/// Burn can take a reparameterization off only by replacing the parameter with its composed
/// value; inside this function, that value is the base itself. Unlike an [`AdapterSwitch`](crate::AdapterSwitch), clones
/// of the module are not affected.
pub(crate) fn bare<T>(work: impl FnOnce() -> T) -> T {
    scoped(&BARE, true, work)
}

/// Returns true if this thread is inside [`keeping_parts`].
pub(crate) fn are_parts_kept() -> bool {
    PARTS_KEPT.get()
}

/// Runs `work` while weights that a device cannot bind in one buffer are not joined or unpacked on this thread: the composed
/// value is their placeholder.
pub(crate) fn keeping_parts<T>(work: impl FnOnce() -> T) -> T {
    scoped(&PARTS_KEPT, true, work)
}

/// Returns the content of a parameter whose values are elsewhere: zeros of its shape, in the memory of one value.
pub(crate) fn placeholder<const D: usize>(shape: Shape, device: &Device) -> Tensor<D> {
    let zero = TensorData::new(vec![0.0f32], [1; D]);
    Tensor::<D>::from_data(zero, (device, DType::F32)).expand(shape)
}
