//! Frozen weights in 16 bits.

use super::base_floats::BaseFloats;
use super::collect::packed_weights;
use super::half_words::HalfValues;
use super::materialize::materialized;
use super::pack::{check_bare, on_placeholder, pack_all};
use super::report::{QuantizedModule, quantized_modules};
use super::weight::PackedWeight;
use crate::error::LoraError;
use crate::layout::{AdapterPath, ForArchitecture, LayerKind, Matrix, parameters};
use crate::ops::HalfFloat;
use crate::split::split_weights;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;

/// Holds the weights of a module's linear layers and embeddings in 16 bits and freezes them. Weights that are quantized
/// or [in parts](crate::SplitWeight) stay as they are. Adapters are trained in f32, and everything is computed in f32.
///
/// Weights are rounded to nearest even; those of a checkpoint in the same type are exact. The results are then those of
/// the module in f32: bit for bit on the CPU, except that sums through an output layer may be taken in another order: in the
/// gradient of a large one, and in the product of few rows with one that is not tied. [`merge`](crate::merge()) adds an adapter to the weight in f32, and [`widen`] returns the
/// module in f32.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::Device;
/// use lora_core::{BaseDType, BaseFloats, LoraLinearConfig, narrow};
///
/// let linear = LoraLinearConfig::new(64, 128).init(&Device::flex());
/// let (linear, modules) = narrow(linear, &BaseFloats::new(BaseDType::Bf16))?;
/// assert_eq!((modules[0].bytes, modules[0].f32_bytes), (2 * 64 * 128, 4 * 64 * 128));
/// assert_eq!(linear.packed().unwrap().format().to_string(), "bf16");
/// # Ok::<(), lora_core::LoraError>(())
/// ```
///
/// # Errors
/// [`LoraError::AlreadyAttached`] if the module has adapters. [`LoraError::UnsupportedTarget`] for a weight that is in 16
/// bits already, is not finite, or has a value that would become infinite.
pub fn narrow<'a, M: Module>(
    module: M,
    floats: impl Into<ForArchitecture<'a, BaseFloats>>,
) -> Result<(M, Vec<QuantizedModule>), LoraError> {
    let ForArchitecture {
        config,
        architecture,
    } = floats.into();
    let matrices = parameters(&module, architecture).matrices;
    check_bare(&module, &matrices, |packed| packed.format().is_half())?;
    let packed = packed_weights(&module);
    let split = split_weights(&module);
    let has_layer = |m: &Matrix| m.is_linear_layer || m.path == AdapterPath::Activation;
    // The values in memory are f32: `auto` changes nothing.
    let chosen = matrices.iter().filter(|m| {
        let is_stored = packed.contains_key(&m.parameter) || split.contains_key(&m.parameter);
        has_layer(m) && !is_stored && config.half(&m.module, m.kind, None).is_some()
    });
    let chosen: BTreeMap<&str, &Matrix> = chosen.map(|m| (m.parameter.as_str(), m)).collect();
    let module = pack_all(module, chosen, |matrix, weight, id| {
        let Some(half) = config.half(&matrix.module, matrix.kind, None) else {
            return Err(LoraError::unsupported_target(
                &matrix.module,
                "stays in f32",
            ));
        };
        // The orientation of PyTorch's files lets a large output layer be unpacked part by part.
        let transposed = matrix.kind == LayerKind::Linear
            && architecture.is_output(&matrix.module)
            && !architecture.is_conv1d(&matrix.module);
        let device = weight.device();
        let weight = if transposed {
            weight.transpose()
        } else {
            weight
        };
        let values = weight.into_data().convert::<f32>();
        let values = values.as_slice::<f32>().unwrap_or_default();
        let values = HalfValues::Floats(values);
        PackedWeight::half(values, matrix.shape, transposed, half, id, &device)
            .map_err(|message| LoraError::unsupported_target(&matrix.module, message))
    })?;
    let modules = quantized_modules(&module, architecture);
    Ok((module, modules))
}

/// Creates the weight of a new layer in 16 bits, so that it never has to be in memory as f32.
///
/// # Shapes
/// - `values`: those of `shape`, or of its transpose if `transposed`
/// - `shape`: `[d_in, d_out]` of a linear layer, or `[rows, d_model]` of an embedding
///
/// # Errors
/// [`LoraError::UnsupportedTarget`] with the name of the `module` if a value is not finite or would become infinite.
///
/// # Panics
/// If the number of values is not that of the shape.
pub fn half_weight(
    module: &str,
    id: ParamId,
    values: HalfValues<'_>,
    shape: [usize; 2],
    transposed: bool,
    half: HalfFloat,
    device: &Device,
) -> Result<Param<Tensor<2>>, LoraError> {
    let packed = PackedWeight::half(values, shape, transposed, half, id, device)
        .map_err(|message| LoraError::unsupported_target(module, message))?;
    Ok(on_placeholder(id, packed, device))
}

/// Creates the weight `[d_model, rows]` of an output layer from an embedding `[rows, d_model]` in 8 or 16 bits. They share the
/// values.
pub fn tied_weight(id: ParamId, embedding: &PackedWeight) -> Param<Tensor<2>> {
    on_placeholder(id, embedding.transpose(id), &embedding.device())
}

/// Returns a module with its weights of 16 bits in f32, exactly. A module with adapters or quantized weights is returned as it
/// is.
pub fn widen<M: Module>(module: M) -> M {
    let packed = packed_weights(&module);
    let adapted = parameters(&module, &crate::layout::Architecture::PLAIN);
    let plain = adapted.matrices.iter().all(|matrix| !matrix.adapted);
    if plain && packed.values().all(|packed| packed.format().is_half()) && !packed.is_empty() {
        materialized(module)
    } else {
        module
    }
}
