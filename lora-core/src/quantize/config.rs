//! Configuration of a quantization: [`QuantizeConfig`].

use super::kind::Quantization;
use crate::layout::{Architecture, ForArchitecture, is_inside};

/// Selection of the weights to quantize, and their number format.
///
/// As with bitsandbytes in transformers, these are the weights of all linear layers except output layers.
/// Embeddings, norms and biases are never quantized.
///
/// ```
/// use lora_core::{Quantization, QuantizeConfig};
///
/// let config = QuantizeConfig::new(Quantization::Nf4).with_skip(["pooler"]);
/// assert_eq!(config.quantization.bits(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizeConfig {
    /// Number format of the quantized weights.
    pub quantization: Quantization,
    /// Modules that are not quantized, by path or the end of it, such as fully trained ones.
    pub skip: Vec<String>,
}

impl QuantizeConfig {
    /// Selects all linear layers except output layers.
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

    /// Sets the modules that are not quantized.
    pub fn with_skip<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.skip = names.into_iter().map(Into::into).collect();
        self
    }

    /// Returns true if the linear layer of this name is not quantized.
    pub fn skips(&self, module: &str, architecture: &Architecture) -> bool {
        architecture.is_output(module) || is_skipped(module, &self.skip)
    }
}

/// Returns true if the weight of a module is inside one of these modules.
pub(super) fn is_skipped(module: &str, skip: &[String]) -> bool {
    let weight = format!("{module}.weight");
    skip.iter().any(|skip| is_inside(&weight, skip))
}
