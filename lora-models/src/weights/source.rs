//! Sources of the values of parameters.

use crate::ModelError;
use bytes::Bytes;
use lora_core::{BaseFloats, HalfFloat, LayerKind, Quantization, QuantizeConfig, normal_values};

/// Path, name, shape and layout of a parameter to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamSpec {
    /// Path in the module.
    pub path: String,
    /// Name in a file.
    pub name: String,
    /// Shape in the module.
    pub shape: Vec<usize>,
    /// True if files have the transposed matrix.
    pub transposed: bool,
}

impl ParamSpec {
    /// Returns the shape in a file.
    pub fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Returns the name and the shape in a file.
    pub fn in_file(&self) -> (String, Vec<usize>) {
        (self.name.clone(), self.file_shape())
    }
}

/// Source of the values of parameters.
pub trait Weights {
    /// Returns the values of a parameter, row-major in the module's layout; `None` if only its shape is needed.
    fn values(&mut self, spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError>;

    /// Returns the same values in the mapped pages of a file, if their layout there needs no change.
    fn mapped(&mut self, _spec: &ParamSpec) -> Result<Option<Bytes>, ModelError> {
        Ok(None)
    }

    /// Returns the quantization for the weight of a linear layer at this path.
    fn quantize(&self, _path: &str) -> Option<&QuantizeConfig> {
        None
    }

    /// Returns the 16-bit type in which the weight of a module at this path is held; `None` for f32.
    fn half(&self, _module: &str, _kind: LayerKind, _path: &str) -> Option<HalfFloat> {
        None
    }

    /// Returns the quantization of the weight of an embedding or an output layer at this path; `None` for floats.
    fn of_end(&self, _module: &str, _path: &str) -> Option<Quantization> {
        None
    }

    /// Returns the elements of a parameter in the mapped pages of a file, if they are of this type there. The
    /// specification has the layout of the file.
    fn mapped_half(
        &mut self,
        _spec: &ParamSpec,
        _half: HalfFloat,
    ) -> Result<Option<Bytes>, ModelError> {
        Ok(None)
    }
}

/// Source without values, which records the parameters.
struct Recorder(Vec<ParamSpec>);

impl Weights for Recorder {
    fn values(&mut self, spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        self.0.push(spec.clone());
        Ok(None)
    }
}

/// Returns all parameters that `build` asks for, in order.
pub(crate) fn plan<M>(
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<Vec<ParamSpec>, ModelError> {
    let mut recorder = Recorder(Vec::new());
    build(&mut recorder)?;
    Ok(recorder.0)
}

/// Builds a model of parameters without values.
pub(crate) fn meta_init<M>(
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<M, ModelError> {
    build(&mut Recorder(Vec::new()))
}

/// Source whose weights of linear layers and embeddings are packed as they are read.
pub(crate) struct Packed<'a, W> {
    pub weights: W,
    pub quantize: Option<&'a QuantizeConfig>,
    pub floats: &'a BaseFloats,
}

impl<W: Weights> Weights for Packed<'_, W> {
    fn values(&mut self, spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        self.weights.values(spec)
    }

    fn quantize(&self, _path: &str) -> Option<&QuantizeConfig> {
        self.quantize
    }

    fn half(&self, module: &str, kind: LayerKind, _path: &str) -> Option<HalfFloat> {
        self.floats.half(module, kind, None)
    }

    fn of_end(&self, module: &str, _path: &str) -> Option<Quantization> {
        self.floats.of_end(module)
    }
}

/// Random initialization of transformers: matrices normal around zero, norms one, biases zero.
///
/// The values are drawn on the host and depend only on the seed and the parameter's path, so they are the same on
/// every device.
pub(crate) struct Random<F> {
    pub seed: u64,
    /// Standard deviation of the matrix at a path.
    pub deviation: F,
    /// Weight of the norms.
    pub norm: f32,
}

impl<F: Fn(&str) -> f64> Weights for Random<F> {
    fn values(&mut self, spec: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        let count = spec.shape.iter().product();
        let path = &spec.path;
        Ok(Some(match spec.shape.len() {
            1 if path.ends_with(".gamma") => vec![self.norm; count],
            1 => vec![0.0; count],
            _ => normal_values(self.seed, path, count, (self.deviation)(path)),
        }))
    }
}
