//! What was quantised, and how much memory that saves.

use crate::modules;
use crate::{Architecture, Quantization, packed};
use burn::module::Module;
use std::fmt;

/// A linear layer whose weight is kept in few bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedModule {
    /// Name of the module.
    pub module: String,
    /// Path of its weight.
    pub parameter: String,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// How it is kept.
    pub quantization: Quantization,
    /// Bytes that it takes in f32.
    pub f32_bytes: usize,
    /// Bytes that it takes now, scales included.
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

/// The quantised layers of a module, in its order.
pub(crate) fn quantized_modules<M: Module>(
    module: &M,
    architecture: &Architecture,
) -> Vec<QuantizedModule> {
    let packed = packed::of_module(module);
    if packed.is_empty() {
        return Vec::new();
    }
    let matrices = modules::parameters(module, architecture).matrices;
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

/// A line for each, and one for all.
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
        "{} quantised modules: {:.2} MiB in place of {:.2} MiB, {:.2} MiB less",
        modules.len(),
        mib(after),
        mib(before),
        mib(before.saturating_sub(after)),
    )
}
