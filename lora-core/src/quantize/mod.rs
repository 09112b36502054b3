//! Keeping frozen weights in few bits: QLoRA (Dettmers et al. 2023, arXiv 2305.14314).

mod report;

pub use report::QuantizedModule;
pub(crate) use report::{quantized_modules, write_report};

use crate::bare::bare;
use crate::modules::{self, Matrix};
use crate::packed::{self, placeholder};
use crate::targets::pattern::nearest;
use crate::targets::{ForArchitecture, is_inside};
use crate::{Architecture, LoraError, PackedWeight, Quantization};
use burn::module::{Module, Param, ParamId, Reparameterizer};
use burn::tensor::{Device, Tensor};
use std::collections::BTreeMap;

/// Which weights are quantised, and how.
///
/// As with bitsandbytes in transformers these are the weights of all linear layers but output layers.
/// Embeddings, norms and biases stay in floats.
///
/// ```
/// use lora_core::{Quantization, QuantizeConfig};
///
/// let config = QuantizeConfig::new(Quantization::Nf4).with_skip(["pooler"]);
/// assert_eq!(config.quantization.bits(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeConfig {
    /// How they are kept.
    pub quantization: Quantization,
    /// Modules that stay in floats with all that is in them, by name or the end of it: what is to train whole.
    pub skip: Vec<String>,
}

impl QuantizeConfig {
    /// All linear layers but output layers, like this.
    pub fn new(quantization: Quantization) -> Self {
        Self {
            quantization,
            skip: Vec::new(),
        }
    }

    /// Joins this configuration and the architecture of the model that is quantized.
    pub fn for_architecture<'a>(
        &'a self,
        architecture: &'a Architecture,
    ) -> ForArchitecture<'a, Self> {
        ForArchitecture::new(self, architecture)
    }

    /// Leaves modules in floats.
    pub fn with_skip<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.skip = names.into_iter().map(Into::into).collect();
        self
    }

    /// Whether the linear layer of this name stays in floats.
    pub fn skips(&self, module: &str, architecture: &Architecture) -> bool {
        let inside = |skip: &String| is_inside(&format!("{module}.weight"), skip);
        architecture.is_output(module) || self.skip.iter().any(inside)
    }
}

/// Quantises the weights of a module's linear layers, which are frozen then: 4 or 8 bits stay of 32, while
/// everything that is put on them trains in floats.
///
/// One weight after another is packed and its floats are freed, if nothing else holds them. What comes after it works
/// as on the module in floats: adapters are attached, loaded, saved and taken off, and leave the weights packed.
/// [`merge`](crate::merge()) adds an adapter to the dequantised weight, in f32, and leaves that; for deployment
/// put the adapter on the module in floats and merge it there.
///
/// # Backends
/// All of them. On flex a loop of its own dequantises; elsewhere operations that every backend has do. That the
/// placeholders of packed weights take no memory is so on flex and on the GPU backends; ndarray copies them out.
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
/// [`LoraError::AlreadyAttached`] where there are adapters: quantise before. [`LoraError::UnsupportedTarget`] for
/// a weight that is packed already or is not finite. [`LoraError::NoMatch`] where a name to skip, or the module, has no
/// such layer.
pub fn quantize<'a, M: Module>(
    module: M,
    config: impl Into<ForArchitecture<'a, QuantizeConfig>>,
) -> Result<(M, Vec<QuantizedModule>), LoraError> {
    let ForArchitecture {
        config,
        architecture,
    } = config.into();
    let matrices = modules::parameters(&module, architecture).matrices;
    let packed = packed::of_module(&module);
    for matrix in &matrices {
        if matrix.adapted {
            return Err(LoraError::AlreadyAttached {
                module: matrix.module.clone(),
            });
        }
        if packed.contains_key(&matrix.parameter) {
            return Err(refused(&matrix.module, "its weight is quantised already"));
        }
    }
    for skip in &config.skip {
        let inside = |m: &Matrix| is_inside(&format!("{}.weight", m.module), skip);
        if !matrices.iter().any(inside) {
            return Err(LoraError::NoMatch {
                what: "module to leave in floats",
                entry: skip.clone(),
                candidates: nearest(skip, &matrices),
            });
        }
    }
    let linear = matrices.iter().filter(|m| m.is_linear_layer);
    let chosen: Vec<&Matrix> = linear
        .filter(|m| !config.skips(&m.module, architecture))
        .collect();
    if chosen.is_empty() {
        return Err(LoraError::NoMatch {
            what: "quantization",
            entry: "linear layers but output layers".into(),
            candidates: nearest("", &matrices),
        });
    }
    let mut not_finite = None;
    let module = module.apply_reparameterization(Pack {
        chosen: chosen
            .iter()
            .map(|m| (m.parameter.as_str(), m.shape))
            .collect(),
        quantization: config.quantization,
        not_finite: &mut not_finite,
    });
    if let Some(matrix) = chosen
        .iter()
        .find(|m| Some(&m.parameter) == not_finite.as_ref())
    {
        return Err(refused(&matrix.module, NOT_FINITE));
    }
    let quantized = quantized_modules(&module, architecture);
    Ok((module, quantized))
}

/// The quantised weight of a linear layer that is being made: with it a model need not be whole in floats before.
///
/// # Shapes
/// - `rows`: the values of `[d_out, d_in]`, as PyTorch has the weight
/// - `shape`: `[d_in, d_out]`
///
/// # Errors
/// [`LoraError::UnsupportedTarget`] with the name of the `module` where a value is not finite.
///
/// # Panics
/// If there are not as many values as the shape has.
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
    let packed = packed.ok_or_else(|| refused(module, NOT_FINITE))?;
    let empty = Param::initialized(id, placeholder(shape.into(), device)).set_require_grad(false);
    // Alone, a parameter is a module without a path.
    Ok(put_packed(empty, BTreeMap::from([(String::new(), packed)])))
}

const NOT_FINITE: &str = "its weight has values that are not finite";

fn refused(module: &str, message: &str) -> LoraError {
    LoraError::UnsupportedTarget {
        module: module.into(),
        message: message.into(),
    }
}

struct Pack<'a> {
    chosen: BTreeMap<&'a str, [usize; 2]>,
    quantization: Quantization,
    not_finite: &'a mut Option<String>,
}

impl Reparameterizer for Pack<'_> {
    type Reparam = PackedWeight;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<PackedWeight>) {
        let Some(&shape) = self.chosen.get(path) else {
            return (param, None);
        };
        let weight = param.val().reshape(shape);
        let device = weight.device();
        let rows = weight.transpose().into_data().convert::<f32>();
        let rows = rows.as_slice::<f32>().ok();
        let packed = rows
            .and_then(|rows| PackedWeight::new(rows, shape, self.quantization, param.id, &device));
        if packed.is_none() {
            self.not_finite.get_or_insert(path.into());
            return (param, None);
        }
        let param = param
            .map(|weight| placeholder(weight.shape(), &device))
            .set_require_grad(false);
        (param, packed)
    }
}

/// The module without anything on its parameters, and the packed weights that were on them.
pub(crate) fn unpacked<M: Module>(module: M) -> (M, BTreeMap<String, PackedWeight>) {
    let packed = packed::of_module(&module);
    match packed.is_empty() {
        true => (module, packed),
        false => (bare(|| module.materialize()), packed),
    }
}

/// Puts packed weights on parameters that have nothing on them.
pub(crate) fn put_packed<M: Module>(module: M, packed: BTreeMap<String, PackedWeight>) -> M {
    struct Put(BTreeMap<String, PackedWeight>);
    impl Reparameterizer for Put {
        type Reparam = PackedWeight;

        fn reparameterize<const D: usize>(
            &mut self,
            path: &str,
            param: Param<Tensor<D>>,
        ) -> (Param<Tensor<D>>, Option<PackedWeight>) {
            (param, self.0.remove(path))
        }
    }
    match packed.is_empty() {
        true => module,
        false => module.apply_reparameterization(Put(packed)),
    }
}
