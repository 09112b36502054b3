//! Values of an adapter on the host, between files and parameters.

use burn::tensor::TensorData;
use std::collections::HashMap;

/// Values of the adapter of one module, in its own layout.
pub(crate) struct AdapterValues {
    /// `A` and `B`.
    pub factors: [TensorData; 2],
    /// Start values of `A` and `B`, if their product is not zero.
    pub start: Option<[TensorData; 2]>,
    /// Magnitude of DoRA; `None` for the norms of the weight.
    pub magnitude: Option<TensorData>,
    /// Bias on `B`.
    pub bias: Option<TensorData>,
}

/// Values of all that an attach puts on a module. Missing adapters are initialized; missing saved parameters keep their
/// value.
#[derive(Default)]
pub(crate) struct AdapterWeights {
    /// Adapters by the path of the weight.
    pub adapters: HashMap<String, AdapterValues>,
    /// Fully trained parameters by path.
    pub saved: HashMap<String, TensorData>,
    /// Rows of single tokens, `[tokens, d]`, by the path of the weight.
    pub rows: HashMap<String, TensorData>,
}
