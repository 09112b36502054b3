//! Adapters on and off a module.
//!
//! | file | contents |
//! | --- | --- |
//! | `adapted`, `report` | [`Adapted`], [`AttachReport`]: a module with adapters, and how they were attached |
//! | `targets` | resolution of a configuration to parameters |
//! | `plan`, `build` | reports from configurations, and adapters on their devices from reports |
//! | `init` | start values of the factors |
//! | `weights` | [`AdapterWeights`]: values from files |
//! | `merge`, `detach` | adapters added to their weights, or taken off |
//! | `trainable`, `weight_error` | counts of trainable parameters; the error of merged weights |

mod adapted;
mod build;
mod detach;
mod init;
mod merge;
mod plan;
mod report;
mod targets;
mod trainable;
mod weight_error;
mod weights;

pub use adapted::Adapted;
pub(crate) use build::build_entries;
pub use detach::detach;
pub use merge::{Merged, merge};
pub use report::AttachReport;
pub use trainable::{TrainableSummary, trainable_summary};
pub use weight_error::{WeightError, weight_errors};
pub(crate) use weights::{AdapterValues, AdapterWeights};

use crate::adapter::AdapterSwitch;
use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::fingerprint::BaseOutline;
use crate::layout::{Architecture, ForArchitecture};
use crate::quantize::quantized_modules;
use burn::module::Module;

/// Freezes a module and attaches LoRA adapters to it.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::nn::{Linear, LinearConfig};
/// use burn::{module::Module, tensor::Device};
/// use lora_core::{LoraConfig, TargetModules, attach};
///
/// #[derive(Module, Debug)]
/// struct Classifier { hidden: Linear, output: Linear }
///
/// let device = Device::flex();
/// let model = Classifier {
///     hidden: LinearConfig::new(16, 32).init(&device),
///     output: LinearConfig::new(32, 4).init(&device),
/// };
/// let config = LoraConfig::new(2).with_targets(TargetModules::names(["hidden"]));
/// let model = attach(model, &config)?;
/// assert_eq!(model.report().parameters(), 16 * 2 + 2 * 32);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
///
/// # Errors
/// An option is out of range, an entry matches nothing (the error names the closest
/// candidates), a target does not support the adapter, or the module has adapters already.
pub fn attach<'a, M: Module>(
    module: M,
    config: impl Into<ForArchitecture<'a, LoraConfig>>,
) -> Result<Adapted<M>, LoraError> {
    let on = config.into();
    let report = attach_report(&module, on)?;
    report.apply(module, AdapterWeights::default())
}

/// Returns the report that [`attach`] would give, without attaching: no value is read or made.
///
/// # Errors
/// As [`attach`].
pub fn attach_report<'a, M: Module>(
    module: &M,
    config: impl Into<ForArchitecture<'a, LoraConfig>>,
) -> Result<AttachReport, LoraError> {
    let on = config.into();
    let report = AttachReport::new(module, on.config, on.architecture)?;
    report.check_dropout()?;
    Ok(report)
}

/// Freezes a module without attaching adapters, for training something beside it, such as a prefix.
pub fn freeze<M: Module>(module: M) -> Adapted<M> {
    let report = AttachReport {
        config: LoraConfig::default(),
        modules: Vec::new(),
        saved: Vec::new(),
        tokens: Vec::new(),
        base_weights: Vec::new(),
        notes: Vec::new(),
        vocabulary: Vec::new(),
        quantized: quantized_modules(&module, &Architecture::default()),
        base_difference: None,
        outline: BaseOutline::default(),
        switch: AdapterSwitch::on(),
    };
    Adapted::from_parts(module.no_grad(), report)
}
