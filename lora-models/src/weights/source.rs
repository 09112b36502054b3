//! Where the values of parameters come from.

use crate::ModelError;
use bytes::Bytes;
use lora_core::{QuantizeConfig, normal_values};

/// A parameter that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its path in the module.
    pub path: String,
    /// Its name in a file.
    pub name: String,
    /// Its shape in the module.
    pub shape: Vec<usize>,
    /// Whether it lies the other way round in a file.
    pub transposed: bool,
}

impl Wanted {
    /// Its shape in a file.
    pub fn file_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Its name and shape in a file.
    pub fn in_file(&self) -> (String, Vec<usize>) {
        (self.name.clone(), self.file_shape())
    }
}

/// A source of values.
pub(crate) trait Weights {
    /// The values of a parameter, row-major in the module's layout; `None` where only the asking
    /// counts.
    fn values(&mut self, wanted: &Wanted) -> Result<Option<Vec<f32>>, ModelError>;

    /// The same values in the pages of a file, where they lie there as they are used.
    fn mapped(&mut self, _wanted: &Wanted) -> Result<Option<Bytes>, ModelError> {
        Ok(None)
    }

    /// How the weight of a linear layer at this path is to be quantised.
    fn quantize(&self, _path: &str) -> Option<&QuantizeConfig> {
        None
    }
}

/// Notes what is asked for.
struct Notes(Vec<Wanted>);

impl Weights for Notes {
    fn values(&mut self, wanted: &Wanted) -> Result<Option<Vec<f32>>, ModelError> {
        self.0.push(wanted.clone());
        Ok(None)
    }
}

/// All that `build` asks for, in its order.
pub(crate) fn plan<M>(
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<Vec<Wanted>, ModelError> {
    let mut notes = Notes(Vec::new());
    build(&mut notes)?;
    Ok(notes.0)
}

/// What `build` makes, of parameters without values.
pub(crate) fn outline<M>(
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<M, ModelError> {
    build(&mut Notes(Vec::new()))
}

/// A random start as transformers': matrices normal around zero, norms one, biases zero.
///
/// The values are drawn on the host and depend on the seed and the parameter's path alone, so they
/// are the same on every device.
pub(crate) struct Random<F> {
    pub seed: u64,
    /// The standard deviation of the matrix at a path.
    pub deviation: F,
}

impl<F: Fn(&str) -> f64> Weights for Random<F> {
    fn values(&mut self, wanted: &Wanted) -> Result<Option<Vec<f32>>, ModelError> {
        let count = wanted.shape.iter().product();
        let path = &wanted.path;
        Ok(Some(match wanted.shape.len() {
            1 if path.ends_with(".gamma") => vec![1.0; count],
            1 => vec![0.0; count],
            _ => normal_values(self.seed, path, count, (self.deviation)(path)),
        }))
    }
}
