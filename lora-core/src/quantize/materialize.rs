//! Modules with dense weights: composed by Burn, but never above the largest buffer of a device.

use super::collect::packed_weights;
use crate::bare::{is_bare, keeping_parts};
use crate::layout::put;
use crate::split::split_weights;
use burn::module::Module;
use std::collections::BTreeSet;

/// Replaces every parameter by its value, as [`Module::materialize`]. A weight that the device cannot bind in one buffer is in
/// [parts](crate::SplitWeight) then, also if it is packed now.
pub(crate) fn materialized<M: Module>(module: M) -> M {
    let mut split = split_weights(&module);
    if !is_bare() {
        for (path, packed) in packed_weights(&module) {
            if let Some(parts) = packed.in_parts() {
                split.insert(path, parts);
            }
        }
    }
    put(keeping_parts(|| module.materialize()), split)
}

/// Returns the paths of the weights that the device cannot bind in one buffer of f32.
pub(crate) fn weights_above_limit<M: Module>(module: &M) -> BTreeSet<String> {
    let packed = packed_weights(module).into_iter();
    let packed = packed.filter(|(_, packed)| packed.rows_per_part().is_some());
    let packed = packed.map(|(path, _)| path);
    packed.chain(split_weights(module).into_keys()).collect()
}
