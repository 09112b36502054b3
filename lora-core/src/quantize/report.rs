//! Report of a quantization: the quantized layers, and the memory saved.

use super::collect::packed_weights;
use super::kind::Quantization;
use crate::layout::{Architecture, parameters};
use burn::module::Module;
use std::fmt;

/// A linear layer with a quantized weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedModule {
    /// Name of the module.
    pub module: String,
    /// Path of its weight.
    pub parameter: String,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Number format.
    pub quantization: Quantization,
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
            self.module,
            self.shape[0],
            self.shape[1],
            self.quantization,
            self.f32_bytes,
            self.bytes
        )
    }
}

/// Lists the quantized layers of a module, in its order.
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
            quantization: packed.quantization(),
            f32_bytes: size_of::<f32>() * matrix.shape[0] * matrix.shape[1],
            bytes: packed.bytes(),
            module: matrix.module,
            parameter: matrix.parameter,
            shape: matrix.shape,
        })
    });
    quantized.collect()
}

/// Writes a line for each layer, and one with the sum.
pub(crate) fn write_report(f: &mut fmt::Formatter<'_>, modules: &[QuantizedModule]) -> fmt::Result {
    if modules.is_empty() {
        return Ok(());
    }
    for module in modules {
        writeln!(f, "{module}")?;
    }
    let sum = |bytes: fn(&QuantizedModule) -> usize| modules.iter().map(bytes).sum::<usize>();
    let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
    let (before, after) = (sum(|m| m.f32_bytes), sum(|m| m.bytes));
    writeln!(
        f,
        "{} quantized modules: {:.2} MiB in place of {:.2} MiB, {:.2} MiB less",
        modules.len(),
        mib(after),
        mib(before),
        mib(before.saturating_sub(after)),
    )
}
