//! Float type of frozen weights: [`BaseDType`] and [`BaseFloats`].

use super::config::is_skipped;
use super::kind::Quantization;
use crate::layout::{Architecture, ForArchitecture, LayerKind};
use crate::ops::HalfFloat;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Float type in which the frozen weights of linear layers and embeddings are in memory. Everything is computed in f32,
/// except in [mixed precision](crate::ops::with_mixed_precision).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BaseDType {
    /// 32 bits, whatever the checkpoint has.
    #[default]
    F32,
    /// Half precision. Weights of another type are rounded to nearest even.
    F16,
    /// The upper half of an f32. Weights of another type are rounded to nearest even.
    Bf16,
    /// 8-bit integers with a scale for every 64 values, for embeddings and output layers alone, as they are loaded: other linear
    /// layers are in f32 unless they are [quantized](crate::quantize()).
    Int8,
    /// The type of each weight in the checkpoint, as `torch_dtype="auto"` in transformers: nothing is rounded.
    Auto,
}

impl BaseDType {
    /// All types.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Auto];

    /// Returns the 16-bit type of a weight, given its 16-bit type in a checkpoint; `None` for f32.
    pub fn half(self, stored: Option<HalfFloat>) -> Option<HalfFloat> {
        match self {
            Self::F32 | Self::Int8 => None,
            Self::F16 => Some(HalfFloat::F16),
            Self::Bf16 => Some(HalfFloat::Bf16),
            Self::Auto => stored,
        }
    }
}

impl fmt::Display for BaseDType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for BaseDType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let same = |dtype: &Self| dtype.to_string() == text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(same);
        found.ok_or_else(|| {
            format!(
                "`{text}` is not a type of frozen weights; expected f32, f16, bf16, int8 or auto"
            )
        })
    }
}

/// Float type of the frozen weights of linear layers and embeddings, and the modules that stay in f32.
///
/// Norms, biases and other small parameters are always in f32.
///
/// ```
/// use lora_core::LayerKind::{Embedding, Linear};
/// use lora_core::{BaseDType, BaseFloats, HalfFloat};
///
/// let floats = BaseFloats::new(BaseDType::Auto).with_skip(["pooler"]);
/// let bf16 = Some(HalfFloat::Bf16);
/// assert_eq!(floats.half("encoder.dense", Linear, bf16), bf16);
/// assert_eq!(floats.half("encoder.dense", Linear, None), None);
/// assert_eq!(floats.half("bert.pooler.dense", Linear, bf16), None);
///
/// let f16 = Some(HalfFloat::F16);
/// let mixed = floats.with_linear(f16);
/// assert_eq!(mixed.half("encoder.dense", Linear, bf16), bf16);
/// assert_eq!(mixed.half("encoder.dense", Linear, None), f16);
/// assert_eq!(mixed.half("embeddings", Embedding, None), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseFloats {
    /// Float type.
    pub dtype: BaseDType,
    /// Float type of 16 bits for linear layers that [`dtype`](Self::dtype) leaves in f32. [Mixed
    /// precision](crate::ops::with_mixed_precision) rounds their weights to it in any case.
    pub linear: Option<HalfFloat>,
    /// Modules that stay in f32, by path or the end of it, such as fully trained ones.
    pub skip: Vec<String>,
}

impl BaseFloats {
    /// Selects all linear layers and embeddings.
    pub fn new(dtype: BaseDType) -> Self {
        Self {
            dtype,
            ..Self::default()
        }
    }

    /// Joins this selection and the architecture of the model.
    pub fn for_architecture<'a>(
        &'a self,
        architecture: &'a Architecture,
    ) -> ForArchitecture<'a, Self> {
        ForArchitecture::new(self, architecture)
    }

    /// Sets the 16-bit type of linear layers that would be in f32.
    pub fn with_linear(mut self, half: Option<HalfFloat>) -> Self {
        self.linear = half;
        self
    }

    /// Sets the modules that stay in f32.
    pub fn with_skip<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.skip = names.into_iter().map(Into::into).collect();
        self
    }

    /// Returns the quantization of the weight of an embedding or an output layer; `None` for floats.
    pub fn of_end(&self, module: &str) -> Option<Quantization> {
        let quantizes = self.dtype == BaseDType::Int8 && !is_skipped(module, &self.skip);
        quantizes.then_some(Quantization::Int8)
    }

    /// Returns the 16-bit type of the weight of a module, given its 16-bit type in a checkpoint; `None` for f32.
    pub fn half(
        &self,
        module: &str,
        kind: LayerKind,
        stored: Option<HalfFloat>,
    ) -> Option<HalfFloat> {
        let linear = self.linear.filter(|_| kind == LayerKind::Linear);
        let half = self.dtype.half(stored).or(linear)?;
        (!is_skipped(module, &self.skip)).then_some(half)
    }
}
