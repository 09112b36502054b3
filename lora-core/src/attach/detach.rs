//! Taking adapters off a module.

use crate::bare::bare;
use crate::layout::put;
use crate::quantize::{materialized, packed_weights};
use burn::module::Module;

/// Takes the adapters off a module and returns it with its base parameters, without a copy. Quantized weights stay quantized.
///
/// The module stays frozen, except fully trained parameters: these keep their trained values, since the originals are
/// gone. Clones of the module keep their adapters.
pub fn detach<M: Module>(module: M) -> M {
    let packed = packed_weights(&module);
    put(bare(|| materialized(module)), packed)
}
