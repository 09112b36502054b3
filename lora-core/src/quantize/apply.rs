//! Quantization of a module's weights.

use super::collect::packed_weights;
use super::config::QuantizeConfig;
use super::half_words::NOT_FINITE;
use super::kind::Quantization;
use super::materialize::materialized;
use super::pack::{check_bare, on_placeholder, pack_all};
use super::report::{QuantizedModule, quantized_modules};
use super::weight::PackedWeight;
use crate::bare::bare;
use crate::config::closest;
use crate::error::LoraError;
use crate::layout::{ForArchitecture, Matrix, is_inside, parameters};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;

/// Quantizes the weights of a module's linear layers to 4 or 8 bits and freezes them. Adapters on them are trained in full
/// precision.
///
/// Weights are packed one after another, and each frees its floats if nothing else holds them. Adapters can be attached,
/// loaded, saved and detached as on the original module, and leave the weights packed.
/// [`merge`](crate::merge()) adds an adapter to the dequantized weight, in f32; for deployment, merge
/// the adapter into the original module.
///
/// # Backends
/// All backends. Flex has a kernel for dequantization; the others use operations that every backend has. The
/// placeholders of packed weights take no memory on flex and on the GPU backends; ndarray allocates them.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Distribution, Tensor};
/// use lora_core::{LoraConfig, LoraLinearConfig, Quantization, QuantizeConfig, attach, quantize};
///
/// let device = Device::flex();
/// let linear = LoraLinearConfig::new(64, 128).init(&device);
/// let (linear, modules) = quantize(linear, &QuantizeConfig::new(Quantization::Nf4))?;
/// assert_eq!((modules[0].bytes, modules[0].f32_bytes), (4096 + 512, 4 * 64 * 128));
///
/// let linear = attach(linear, &LoraConfig::new(4))?;
/// assert_eq!(linear.report().quantized.len(), 1);
/// let x = Tensor::<2>::random([3, 64], Distribution::Default, &device);
/// assert_eq!(linear.module().forward(x).dims(), [3, 128]);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
///
/// # Errors
/// [`LoraError::AlreadyAttached`] if the module has adapters: quantize it before attaching.
/// [`LoraError::UnsupportedTarget`] for a weight that is packed already or is not finite. [`LoraError::NoMatch`] if a name
/// to skip matches nothing, or the module has no linear layers.
pub fn quantize<'a, M: Module>(
    module: M,
    config: impl Into<ForArchitecture<'a, QuantizeConfig>>,
) -> Result<(M, Vec<QuantizedModule>), LoraError> {
    let ForArchitecture {
        config,
        architecture,
    } = config.into();
    let matrices = parameters(&module, architecture).matrices;
    check_bare(&module, &matrices, |_| true)?;
    let names = || matrices.iter().map(|m| m.module.as_str());
    for skip in &config.skip {
        let inside = |m: &Matrix| is_inside(&format!("{}.weight", m.module), skip);
        if !matrices.iter().any(inside) {
            return Err(LoraError::NoMatch {
                what: "module to leave unquantized",
                entry: skip.clone(),
                candidates: closest(skip, names()),
            });
        }
    }
    let linear = matrices.iter().filter(|m| m.is_linear_layer);
    let chosen: BTreeMap<&str, &Matrix> = linear
        .filter(|m| !config.skips(&m.module, architecture))
        .map(|m| (m.parameter.as_str(), m))
        .collect();
    if chosen.is_empty() {
        return Err(LoraError::NoMatch {
            what: "quantization",
            entry: "linear layers except output layers".into(),
            candidates: closest("", names()),
        });
    }
    let module = pack_all(module, chosen, |matrix, weight, id| {
        let device = weight.device();
        let rows = weight.transpose().into_data().convert::<f32>();
        let rows = rows.as_slice::<f32>().ok();
        let kind = config.quantization;
        rows.and_then(|rows| PackedWeight::new(rows, matrix.shape, kind, id, &device))
            .ok_or_else(|| LoraError::unsupported_target(&matrix.module, NOT_FINITE))
    })?;
    let quantized = quantized_modules(&module, architecture);
    Ok((module, quantized))
}

/// Creates the quantized weight of a new linear layer, so that a model never has to be in memory as floats.
///
/// # Shapes
/// - `rows`: the values of `[d_out, d_in]`, as PyTorch has the weight
/// - `shape`: `[d_in, d_out]`
///
/// # Errors
/// [`LoraError::UnsupportedTarget`] with the name of the `module` if a value is not finite.
///
/// # Panics
/// If the number of values is not that of the shape.
pub fn quantized_weight(
    module: &str,
    id: ParamId,
    rows: &[f32],
    shape: [usize; 2],
    quantization: Quantization,
    device: &Device,
) -> Result<Param<Tensor<2>>, LoraError> {
    assert_eq!(rows.len(), shape[0] * shape[1], "values of `{module}`");
    let packed = PackedWeight::new(rows, shape, quantization, id, device);
    let packed = packed.ok_or_else(|| LoraError::unsupported_target(module, NOT_FINITE))?;
    Ok(on_placeholder(id, packed, device))
}

/// Creates the quantized weight of a new embedding, `[rows, d_model]`, so that it never has to be in memory as floats.
///
/// # Shapes
/// - `values`: those of `shape`
/// - `shape`: `[rows, d_model]`
///
/// # Errors
/// [`LoraError::UnsupportedTarget`] with the name of the `module` if a value is not finite.
///
/// # Panics
/// If the number of values is not that of the shape.
pub fn quantized_embedding(
    module: &str,
    id: ParamId,
    values: &[f32],
    shape: [usize; 2],
    quantization: Quantization,
    device: &Device,
) -> Result<Param<Tensor<2>>, LoraError> {
    assert_eq!(values.len(), shape[0] * shape[1], "values of `{module}`");
    let packed = PackedWeight::quantized(values, shape, false, quantization, id, device);
    let packed = packed.ok_or_else(|| LoraError::unsupported_target(module, NOT_FINITE))?;
    Ok(on_placeholder(id, packed, device))
}

/// Takes the packed weights off a module, together with the adapters.
pub(crate) fn take_packed<M: Module>(module: M) -> (M, BTreeMap<String, PackedWeight>) {
    let packed = packed_weights(&module);
    if packed.is_empty() {
        (module, packed)
    } else {
        (bare(|| materialized(module)), packed)
    }
}
