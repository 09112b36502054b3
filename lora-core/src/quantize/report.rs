//! Report of packed weights: the layers that have them, and the memory saved.

use super::collect::packed_weights;
use crate::layout::{Architecture, parameters};
use crate::ops::packed::PackedFormat;
use burn::module::Module;
use std::fmt;

/// A layer with a packed weight: quantized, or in 16 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedModule {
    /// Name of the module.
    pub module: String,
    /// Path of its weight.
    pub parameter: String,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Number format.
    pub format: PackedFormat,
    /// True if packing changed the values: always with 4 or 8 bits.
    pub rounded: bool,
    /// Size in f32, in bytes.
    pub f32_bytes: usize,
    /// Size with scales, in bytes.
    pub bytes: usize,
}

impl fmt::Display for QuantizedModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} [{}, {}] {}: {} -> {} bytes",
            self.module, self.shape[0], self.shape[1], self.format, self.f32_bytes, self.bytes
        )
    }
}

/// Lists the layers of a module with packed weights, in its order.
pub(crate) fn quantized_modules<M: Module>(
    module: &M,
    architecture: &Architecture,
) -> Vec<QuantizedModule> {
    let packed = packed_weights(module);
    if packed.is_empty() {
        return Vec::new();
    }
    let matrices = parameters(module, architecture).matrices;
    let quantized = matrices.into_iter().filter_map(|matrix| {
        let packed = packed.get(&matrix.parameter)?;
        Some(QuantizedModule {
            format: packed.format(),
            rounded: packed.is_rounded(),
            f32_bytes: size_of::<f32>() * matrix.shape[0] * matrix.shape[1],
            bytes: packed.bytes(),
            module: matrix.module,
            parameter: matrix.parameter,
            shape: matrix.shape,
        })
    });
    quantized.collect()
}

/// Writes a line for each layer, and one with the sum of the quantized ones and of those in 16 bits.
pub(crate) fn write_report(f: &mut fmt::Formatter<'_>, modules: &[QuantizedModule]) -> fmt::Result {
    for module in modules {
        writeln!(f, "{module}")?;
    }
    let (halves, quantized): (Vec<_>, Vec<_>) = modules.iter().partition(|m| m.format.is_half());
    for (modules, what) in [
        (quantized, "quantized modules"),
        (halves, "modules in 16 bits"),
    ] {
        if modules.is_empty() {
            continue;
        }
        let sum = |bytes: fn(&QuantizedModule) -> usize| {
            let all = modules.iter().map(|module| bytes(module));
            all.sum::<usize>()
        };
        let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
        let (before, after) = (sum(|m| m.f32_bytes), sum(|m| m.bytes));
        writeln!(
            f,
            "{} {what}: {:.2} MiB in place of {:.2} MiB, {:.2} MiB less",
            modules.len(),
            mib(after),
            mib(before),
            mib(before.saturating_sub(after)),
        )?;
    }
    Ok(())
}
