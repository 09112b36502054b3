//! Published models whose weights exceed the limit of a buffer.

use super::report::Fit;
use crate::TrainError;
use burn::tensor::Device;
use lora_models::{Preset, Pretrained, dispatch};

const MIB: f64 = (1 << 20) as f64;

/// Compares the weights of the published models, in f32, with the largest buffer that a device binds, in bytes.
pub(super) fn fits(limit: Option<u64>, device: &Device) -> Result<Vec<Fit>, TrainError> {
    let fit = |preset: Preset| {
        let config = preset.config()?;
        let shapes = dispatch!(&config, M(config) => {
            M::weight_shapes(config, &<M as Pretrained>::Options::default(), device)
        })?;
        let sizes = shapes.into_iter().map(|(name, shape)| {
            let bytes = 4.0 * shape.iter().map(|&n| n as f64).product::<f64>();
            (name, bytes / MIB)
        });
        let sizes: Vec<(String, f64)> = sizes.collect();
        let total = sizes.iter().map(|(_, mib)| mib).sum();
        let largest = sizes.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (weight, mib) = largest.unwrap_or_default();
        let over = limit.map(|limit| mib - limit as f64 / MIB);
        Ok(Fit {
            model: preset.name(),
            weights_mib: total,
            largest_weight: weight,
            largest_mib: mib,
            over_mib: over.filter(|&over| over > 0.0),
        })
    };
    Preset::ALL.into_iter().map(fit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_above_the_limit_are_named_with_the_excess() {
        let found = fits(Some(128 << 20), &Device::flex()).unwrap();
        let of = |name| found.iter().find(|fit| fit.model == name).unwrap();
        let gpt2 = of("gpt2");
        // 50257 · 768 values of 4 bytes are 147.2 MiB.
        assert!(gpt2.largest_weight.contains("wte"), "{gpt2:?}");
        assert!((gpt2.over_mib.unwrap() - 19.2).abs() < 0.1, "{gpt2:?}");
        assert!((gpt2.weights_mib - 474.7).abs() < 1.0, "{gpt2:?}");
        assert_eq!(of("minilm").over_mib, None);
        let unlimited = fits(None, &Device::flex()).unwrap();
        assert!(unlimited.iter().all(|fit| fit.over_mib.is_none()));
    }
}
