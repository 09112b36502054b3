//! What a prefix in a file is, without a model.

use super::peft::{PrefixKeys, TENSOR, open};
use crate::ModelError;
use lora_core::LoraError;
use lora_core::peft::WEIGHTS_FILE;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// A description of the prefix in a PEFT directory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefixSummary {
    /// Number of virtual tokens.
    pub tokens: usize,
    /// Width of keys and values.
    pub d_model: usize,
    /// Number of values.
    pub parameters: usize,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Of each layer the norm of the keys and that of the values.
    pub norms: Vec<[f64; 2]>,
    /// What is out of the ordinary.
    pub unusual: Vec<String>,
}

impl PrefixSummary {
    /// Reads and describes it.
    ///
    /// # Errors
    /// If a file cannot be read or is malformed, or the tensor is not what the configuration says.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let keys = PrefixKeys::read(dir)?;
        let (tokens, checkpoint) = (keys.tokens()?, open(dir)?);
        let found = checkpoint.shape(TENSOR).unwrap_or_default().to_vec();
        let width = found.get(1).copied().unwrap_or(0);
        // What the configuration leaves out the width tells.
        let layers = keys.number("num_layers")?;
        let d_model = keys.number("token_dim")?;
        let of_width = |number: usize| width.checked_div(number.saturating_mul(2));
        let d_model = d_model.or_else(|| of_width(layers?)).unwrap_or(0);
        let layers = layers.or_else(|| of_width(d_model)).unwrap_or(0);
        let expected = vec![tokens, layers.saturating_mul(d_model).saturating_mul(2)];
        // Of no tokens a width is not bounded by the file.
        if found != expected || tokens == 0 || width == 0 {
            return Err(LoraError::TensorShape {
                path: dir.join(WEIGHTS_FILE),
                name: TENSOR.into(),
                expected,
                found,
            }
            .into());
        }
        let values = checkpoint.read_f32(TENSOR)?.values;
        let mut squares = vec![[0.0; 2]; layers];
        for (index, value) in values.iter().enumerate() {
            let part = index % width / d_model;
            squares[part / 2][part % 2] += f64::from(*value).powi(2);
        }
        let norms: Vec<[f64; 2]> = squares
            .into_iter()
            .map(|pair| pair.map(f64::sqrt))
            .collect();
        let mut unusual = Vec::new();
        for (layer, [keys, values]) in norms.iter().enumerate() {
            for (what, norm) in [("keys", keys), ("values", values)] {
                if !norm.is_finite() {
                    unusual.push(format!("the {what} of layer {layer} are not finite"));
                } else if *norm == 0.0 {
                    unusual.push(format!("the {what} of layer {layer} are all zero"));
                }
            }
        }
        Ok(Self {
            tokens,
            d_model,
            parameters: values.len(),
            bytes: checkpoint.file_bytes(),
            norms,
            unusual,
        })
    }
}

impl fmt::Display for PrefixSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} virtual tokens in {} layers of width {}",
            self.tokens,
            self.norms.len(),
            self.d_model
        )?;
        writeln!(f, "  {} parameters, {} bytes", self.parameters, self.bytes)?;
        for (layer, [keys, values]) in self.norms.iter().enumerate() {
            writeln!(
                f,
                "  layer {layer}: keys norm {keys:.4}, values norm {values:.4}"
            )?;
        }
        for note in &self.unusual {
            writeln!(f, "  unusual: {note}")?;
        }
        Ok(())
    }
}
