//! Layers, built one parameter at a time.

use super::source::{ParamSpec, Weights};
use crate::ModelError;
use burn::module::Param;
use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};
use lora_core::file::transpose;
use lora_core::ops::max_buffer_bytes;
use lora_core::{
    Architecture, HalfFloat, HalfValues, LayerKind, LayerNorm, LayerNormConfig, LoraEmbedding,
    LoraLinear, half_weight, param_id, quantized_embedding, quantized_weight, rows_per_part,
    split_weight,
};
use std::path::PathBuf;

/// Builder for the layers of a model, which reads one parameter at a time from a source.
///
/// Ids of parameters depend on their paths alone, so an optimizer's saved state finds its parameters in another
/// process.
pub(crate) struct LayerBuilder<'a> {
    pub architecture: &'a Architecture,
    pub device: &'a Device,
    pub weights: &'a mut dyn Weights,
}

impl LayerBuilder<'_> {
    /// Builds a linear layer with a bias, `[d_in, d_out]`.
    pub fn linear(&mut self, path: &str, shape: [usize; 2]) -> Result<LoraLinear, ModelError> {
        let bias = self.param(&format!("{path}.bias"), [shape[1]])?;
        Ok(LoraLinear {
            bias: Some(bias),
            ..self.linear_without_bias(path, shape)?
        })
    }

    /// Builds a linear layer without a bias, `[d_in, d_out]`.
    pub fn linear_without_bias(
        &mut self,
        path: &str,
        shape: [usize; 2],
    ) -> Result<LoraLinear, ModelError> {
        let module = self.architecture.module_name(path);
        let transposed = !self.architecture.is_conv1d(&module);
        let path = format!("{path}.weight");
        let quantize = self.weights.quantize(&path);
        let quantize = quantize.filter(|config| !config.skips(&module, self.architecture));
        let of_end = || {
            let is_output = self.architecture.is_output(&module);
            is_output.then(|| self.weights.of_end(&module, &path))?
        };
        let quantize = (quantize.map(|config| config.quantization)).or_else(of_end);
        let half = self.weights.half(&module, LayerKind::Linear, &path);
        let weight = match (quantize, half) {
            (None, None) => self.ask(&path, shape, transposed)?,
            (None, Some(half)) => {
                check_fits(&path, &shape, self.device)?;
                self.half(&module, &path, shape, transposed, half)?
            }
            (Some(quantization), _) => {
                check_fits(&path, &shape, self.device)?;
                // Quantization reads the rows of PyTorch's layout, which is transposed here.
                let spec = self.spec(&path, &[shape[1], shape[0]], !transposed);
                let rows = self.weights.values(&spec)?.unwrap_or_default();
                let id = param_id(&path);
                quantized_weight(&module, id, &rows, shape, quantization, self.device)?
            }
        };
        Ok(LoraLinear { weight, bias: None })
    }

    /// Builds an embedding, `[rows, d_model]`. In f32, one that the device cannot bind in one buffer is in frozen parts.
    pub fn embedding(
        &mut self,
        path: &str,
        shape: [usize; 2],
    ) -> Result<LoraEmbedding, ModelError> {
        let module = self.architecture.module_name(path);
        let path = &format!("{path}.weight");
        if let Some(quantization) = self.weights.of_end(&module, path) {
            check_half_fits(path, shape, self.device)?;
            let spec = self.spec(path, &shape, false);
            let values = self.weights.values(&spec)?.unwrap_or_default();
            let id = param_id(path);
            let weight =
                quantized_embedding(&module, id, &values, shape, quantization, self.device)?;
            return Ok(LoraEmbedding { weight });
        }
        let parts = rows_per_part(shape, self.device);
        let weight = match (
            self.weights.half(&module, LayerKind::Embedding, path),
            parts,
        ) {
            (Some(half), parts) => {
                if parts.is_some() {
                    check_half_fits(path, shape, self.device)?;
                }
                self.half(&module, path, shape, false, half)?
            }
            (None, None) => self.param(path, shape)?,
            (None, Some(rows)) => match self.values(path, shape, false)? {
                None => meta_init(path, shape, self.device),
                Some(values) => split_weight(param_id(path), &values, rows, self.device),
            },
        };
        Ok(LoraEmbedding { weight })
    }

    /// Builds the weight of a layer in 16 bits.
    fn half(
        &mut self,
        module: &str,
        path: &str,
        shape: [usize; 2],
        transposed: bool,
        half: HalfFloat,
    ) -> Result<Param<Tensor<2>>, ModelError> {
        // An output layer keeps the layout of the file, in which it can be unpacked part by part. Any other layer has that of
        // the module: products then have the same sums as with the weight in f32.
        let keeps = transposed && self.architecture.is_output(module);
        let [rows, columns] = shape;
        let file_shape = if transposed { [columns, rows] } else { shape };
        let in_file = self.spec(path, &file_shape, false);
        let elements = self.weights.mapped_half(&in_file, half)?;
        let floats = match (&elements, keeps) {
            (Some(_), _) => None,
            (None, true) => self.weights.values(&in_file)?,
            (None, false) => {
                let spec = self.spec(path, &shape, transposed);
                self.weights.values(&spec)?
            }
        };
        let floats = floats.unwrap_or_default();
        let values = match elements {
            None => HalfValues::Floats(&floats),
            Some(elements) if keeps || !transposed => {
                HalfValues::Bits(Bytes::from_shared(elements, AllocationProperty::File))
            }
            Some(elements) => {
                let values: Vec<u16> = bytemuck::pod_collect_to_vec(&elements[..]);
                HalfValues::Bits(Bytes::from_elems(transpose(&values, file_shape)))
            }
        };
        let id = param_id(path);
        Ok(half_weight(
            module,
            id,
            values,
            shape,
            keeps,
            half,
            self.device,
        )?)
    }

    /// Builds a layer norm over `d` features.
    pub fn norm(&mut self, path: &str, d: usize, epsilon: f64) -> Result<LayerNorm, ModelError> {
        let gamma = self.param(&format!("{path}.gamma"), [d])?;
        let beta = self.param(&format!("{path}.beta"), [d])?;
        let config = LayerNormConfig::new(d).with_epsilon(epsilon);
        Ok(config.init_with(gamma, beta))
    }

    /// Builds a parameter that has the same layout in files.
    pub fn param<const D: usize>(
        &mut self,
        path: &str,
        shape: [usize; D],
    ) -> Result<Param<Tensor<D>>, ModelError> {
        self.ask(path, shape, false)
    }

    fn ask<const D: usize>(
        &mut self,
        path: &str,
        shape: [usize; D],
        transposed: bool,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let Some(data) = self.values(path, shape, transposed)? else {
            return Ok(meta_init(path, shape, self.device));
        };
        check_fits(path, &shape, self.device)?;
        Ok(param(path, data, self.device))
    }

    /// Returns the values of a parameter on the host; `None` if only its shape is needed.
    fn values<const D: usize>(
        &mut self,
        path: &str,
        shape: [usize; D],
        transposed: bool,
    ) -> Result<Option<TensorData>, ModelError> {
        let spec = self.spec(path, &shape, transposed);
        if let Some(elements) = self.weights.mapped(&spec)? {
            // Burn copies them before it writes to them.
            let bytes = Bytes::from_shared(elements, AllocationProperty::File);
            return Ok(Some(TensorData::from_bytes(bytes, shape, DType::F32)));
        }
        let values = self.weights.values(&spec)?;
        Ok(values.map(|values| TensorData::new(values, shape)))
    }

    fn spec(&self, path: &str, shape: &[usize], transposed: bool) -> ParamSpec {
        ParamSpec {
            path: path.into(),
            name: self.architecture.tensor_name(path),
            shape: shape.to_vec(),
            transposed,
        }
    }
}

/// Source of the values of one parameter.
struct Given(Vec<f32>);

impl Weights for Given {
    fn values(&mut self, _spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        Ok(Some(std::mem::take(&mut self.0)))
    }
}

/// Builds an embedding of these values, `[rows, d_model]`.
pub(crate) fn embedding_of(
    path: &str,
    shape: [usize; 2],
    values: Vec<f32>,
    architecture: &Architecture,
    device: &Device,
) -> Result<LoraEmbedding, ModelError> {
    let mut builder = LayerBuilder {
        architecture,
        device,
        weights: &mut Given(values),
    };
    builder.embedding(path, shape)
}

/// Builds a linear layer without a bias of these values, `[d_in, d_out]`.
pub(crate) fn linear_of(
    path: &str,
    shape: [usize; 2],
    values: Vec<f32>,
    architecture: &Architecture,
    device: &Device,
) -> Result<LoraLinear, ModelError> {
    let mut builder = LayerBuilder {
        architecture,
        device,
        weights: &mut Given(values),
    };
    builder.linear_without_bias(path, shape)
}

/// Builds a trainable parameter at `path`.
pub(crate) fn param<const D: usize>(
    path: &str,
    data: TensorData,
    device: &Device,
) -> Param<Tensor<D>> {
    // As in Burn's own layers: memory with the lifetime of the model is kept apart from the rest.
    let tensor = device.memory_persistent_allocations(data, |data| Tensor::from_data(data, device));
    // Set on the parameter and not on the tensor: a device without autodiff has no gradients, but
    // the parameter is to have them once `train()` has moved it to one that has.
    Param::initialized(param_id(path), tensor).set_require_grad(true)
}

/// Refuses a parameter that the device cannot bind in one buffer of f32.
pub(crate) fn check_fits(name: &str, shape: &[usize], device: &Device) -> Result<(), ModelError> {
    let advice = "use the CPU (`--device flex`) or a device with a higher limit";
    check_bytes(name, shape, size_of::<f32>(), advice, device)
}

/// Refuses an embedding in 16 bits that the device cannot bind in one buffer. One with an odd number of columns is unpacked as
/// a whole.
fn check_half_fits(name: &str, shape: [usize; 2], device: &Device) -> Result<(), ModelError> {
    let advice = "hold it in f32 (without `--base-dtype`), which is done in parts, or use the CPU (`--device flex`) or a device with \
                  a higher limit";
    let bytes = if shape[1].is_multiple_of(2) { 2 } else { 4 };
    check_bytes(name, &shape, bytes, advice, device)
}

fn check_bytes(
    name: &str,
    shape: &[usize],
    bytes_per_value: usize,
    advice: &'static str,
    device: &Device,
) -> Result<(), ModelError> {
    let values = shape.iter().map(|&n| n as u64).product::<u64>();
    let bytes = bytes_per_value as u64 * values;
    match max_buffer_bytes(device) {
        Some(limit) if bytes > limit => Err(ModelError::TooLargeForDevice {
            name: name.into(),
            shape: shape.to_vec(),
            bytes,
            limit,
            advice,
        }),
        _ => Ok(()),
    }
}

/// Builds a parameter with a shape and without memory for it, on backends that repeat a number without writing it out.
fn meta_init<const D: usize>(path: &str, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let zero = Tensor::<D>::from_data(TensorData::new(vec![0.0f32], [1; D]), device);
    Param::initialized(param_id(path), zero.expand(shape)).set_require_grad(true)
}

/// Reads the values of the parameter of this name, row-major.
pub(crate) fn on_host<const D: usize>(
    name: &str,
    tensor: Tensor<D>,
) -> Result<Vec<f32>, ModelError> {
    let data = tensor.into_data().convert::<f32>();
    let found = format!("{:?}", data.dtype());
    data.try_into_vec::<f32>()
        .map_err(|_| ModelError::TensorDtype {
            path: PathBuf::new(),
            name: name.into(),
            expected: "F32".into(),
            found,
        })
}
