//! Start values of the factors.
//!
//! | file | contents |
//! | --- | --- |
//! | `decompose` | PiSSA, OLoRA and orthogonal start values |

mod decompose;

use super::weights::AdapterValues;
use crate::config::{LoraConfig, LoraInit};
use crate::error::LoraError;
use crate::layout::{AdaptedModule, LayerKind};
use crate::random::{normal_values, uniform_values};
use burn::tensor::TensorData;

/// Returns the start values of a module's adapter. They are drawn on the host from the seed and the module's
/// path, so that they are the same on every backend and do not depend on the order of the modules, or
/// computed from its weight.
///
/// # Errors
/// [`LoraError::UnsupportedTarget`] if they are computed from a weight that is not finite.
pub(crate) fn starting_values(
    module: &AdaptedModule,
    config: &LoraConfig,
    weight: impl FnOnce() -> Vec<f32>,
) -> Result<AdapterValues, LoraError> {
    let [a_shape, b_shape] = module.factor_shapes();
    let (a_count, b_count) = (a_shape[0] * a_shape[1], b_shape[0] * b_shape[1]);
    let (d_in, rank) = (a_shape[0], module.rank);
    let (seed, path) = (config.seed, module.module.as_str());
    let b_path = format!("{path}.lora_B");
    let bound = |fan_in: usize| 1.0 / (fan_in as f64).sqrt();
    let zeros = |count: usize| vec![0.0f32; count];
    let embedding = module.kind == LayerKind::Embedding;
    let (a, b) = match config.init {
        LoraInit::KaimingUniform | LoraInit::Gaussian if embedding => {
            (zeros(a_count), normal_values(seed, path, b_count, 1.0))
        }
        LoraInit::KaimingUniform => (
            uniform_values(seed, path, a_count, bound(d_in)),
            zeros(b_count),
        ),
        LoraInit::Gaussian => (
            normal_values(seed, path, a_count, 1.0 / rank as f64),
            zeros(b_count),
        ),
        LoraInit::Random if embedding => (
            normal_values(seed, path, a_count, 1.0),
            normal_values(seed, &b_path, b_count, 1.0),
        ),
        LoraInit::Random => (
            uniform_values(seed, path, a_count, bound(d_in)),
            uniform_values(seed, &b_path, b_count, bound(rank)),
        ),
        LoraInit::Orthogonal => decompose::orthogonal_factors(module, seed)?,
        LoraInit::Pissa | LoraInit::FastPissa { .. } | LoraInit::Olora => {
            decompose::leading_factors(module, config, &weight())?
        }
    };
    let bias = module.bias.as_ref().map(|_| {
        let values = match config.init {
            LoraInit::Random => uniform_values(
                seed,
                &format!("{b_path}.bias"),
                module.shape[1],
                bound(rank),
            ),
            _ => zeros(module.shape[1]),
        };
        TensorData::new(values, [module.shape[1]])
    });
    let factors = [TensorData::new(a, a_shape), TensorData::new(b, b_shape)];
    Ok(AdapterValues {
        start: module.residual_init.then(|| factors.clone()),
        factors,
        magnitude: None,
        bias,
    })
}
