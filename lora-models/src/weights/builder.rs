//! Layers, built one parameter at a time.

use super::source::{ParamSpec, Weights};
use crate::ModelError;
use burn::module::Param;
use burn::tensor::{AllocationProperty, Bytes, DType, Device, Tensor, TensorData};
use lora_core::ops::max_buffer_bytes;
use lora_core::{
    Architecture, LayerNorm, LayerNormConfig, LoraEmbedding, LoraLinear, param_id,
    quantized_weight, rows_per_part, split_weight,
};

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
        let weight = match quantize.map(|config| config.quantization) {
            None => self.ask(&path, shape, transposed)?,
            Some(quantization) => {
                // Quantization reads the rows of PyTorch's layout, which is transposed here.
                let spec = self.spec(&path, &[shape[1], shape[0]], !transposed);
                let rows = self.weights.values(&spec)?.unwrap_or_default();
                let id = param_id(&path);
                quantized_weight(&module, id, &rows, shape, quantization, self.device)?
            }
        };
        Ok(LoraLinear { weight, bias: None })
    }

    /// Builds an embedding, `[rows, d_model]`; in frozen parts if the device cannot bind it in one buffer.
    pub fn embedding(
        &mut self,
        path: &str,
        shape: [usize; 2],
    ) -> Result<LoraEmbedding, ModelError> {
        let path = &format!("{path}.weight");
        let weight = match rows_per_part(shape, self.device) {
            None => self.param(path, shape)?,
            Some(rows) => match self.values(path, shape, false)? {
                None => meta_init(path, shape, self.device),
                Some(values) => split_weight(param_id(path), &values, rows, self.device),
            },
        };
        Ok(LoraEmbedding { weight })
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

/// Refuses a parameter in f32 that the device cannot bind in one buffer.
pub(crate) fn check_fits(name: &str, shape: &[usize], device: &Device) -> Result<(), ModelError> {
    let bytes = 4 * shape.iter().map(|&n| n as u64).product::<u64>();
    match max_buffer_bytes(device) {
        Some(limit) if bytes > limit => Err(ModelError::TooLargeForDevice {
            name: name.into(),
            shape: shape.to_vec(),
            bytes,
            limit,
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
            name: name.into(),
            expected: "F32".into(),
            found,
        })
}
