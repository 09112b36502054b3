//! Precision of products with frozen weights.

use crate::{TrainError, device};
use burn::tensor::Device;
use lora_core::HalfFloat;
use lora_core::ops::{device_facts, is_on_host, mixed_type};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Precision of products with frozen weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// Operands in 16 bits, sums and results in f32: bf16 on CUDA and `ROCm`, f16 on other GPUs. Everything else is in f32.
    Mixed,
}

impl Precision {
    /// Both precisions.
    pub const ALL: [Self; 2] = [Self::F32, Self::Mixed];

    /// Returns the 16-bit type of the products on a device; `None` for f32.
    ///
    /// # Errors
    /// [`TrainError::Config`] for mixed precision on a CPU, and on a device without a 16-bit type.
    pub fn half_on(self, device: &Device) -> Result<Option<HalfFloat>, TrainError> {
        if self == Self::F32 {
            return Ok(None);
        }
        if let Some(half) = mixed_type(device) {
            return Ok(Some(half));
        }
        let message = if is_on_host(device) {
            format!(
                "is mixed, but {} is a CPU, which multiplies in f32: operands in 16 bits would be less exact and not faster. \
                 Leave it out, or give f32; `--base-dtype` halves the memory of the frozen weights here too",
                device::describe(device)
            )
        } else {
            format!(
                "is mixed, but {} ({}) computes neither in f16 nor in bf16; leave it out, or give f32",
                device_facts(device).name,
                device::describe(device)
            )
        };
        Err(TrainError::config("precision", message))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Mixed => "mixed",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let same = |precision: &Self| precision.to_string() == text.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(same);
        found.ok_or_else(|| format!("`{text}` is not a precision; expected f32 or mixed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precisions_are_named_and_a_cpu_has_f32_alone() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("half".parse::<Precision>().is_err());
        let device = Device::flex().autodiff();
        assert_eq!(Precision::F32.half_on(&device).unwrap(), None);
        let error = Precision::Mixed.half_on(&device).unwrap_err().to_string();
        for word in ["precision", "CPU", "f32", "--base-dtype"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
