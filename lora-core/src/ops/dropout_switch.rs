//! Dropout switched off for a while: [`without_dropout`].

use super::scoped::scoped;
use std::cell::Cell;

thread_local! {
    static OFF: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if dropout is switched off on this thread.
pub(super) fn is_dropout_off() -> bool {
    OFF.get()
}

/// Evaluates a function on this thread without dropout: a training step then has the same numbers on every device and in
/// every shape of a batch.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Tensor};
/// use lora_core::Dropout;
/// use lora_core::ops::without_dropout;
///
/// let x = Tensor::<1>::ones([100], &Device::flex().autodiff());
/// let y = without_dropout(|| Dropout::new(0.5).forward(x.clone()));
/// assert_eq!(y.into_data(), x.into_data());
/// ```
pub fn without_dropout<T>(f: impl FnOnce() -> T) -> T {
    scoped(&OFF, true, f)
}
