//! Putting adapters on a module, and taking them off.

mod adapted;
mod plan;
mod put;
mod report;

pub use adapted::Adapted;
pub(crate) use plan::{AdapterValues, AdapterWeights, AttachPlan};
pub(crate) use put::{AdapterSpec, parameter};
pub use report::AttachReport;

use crate::adapter::AdapterSwitch;
use crate::bare::bare;
use crate::fingerprint::BaseOutline;
use crate::packed;
use crate::quantize::{put_packed, quantized_modules};
use crate::targets::{Architecture, ForArchitecture};
use crate::{LoraConfig, LoraError};
use burn::module::Module;

/// Freezes a module and puts LoRA adapters on it.
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
/// If an option is out of range, an entry matches nothing (the error names the nearest
/// candidates), a target cannot take the adapter, or the module has adapters already.
pub fn attach<'a, M: Module>(
    module: M,
    config: impl Into<ForArchitecture<'a, LoraConfig>>,
) -> Result<Adapted<M>, LoraError> {
    let ForArchitecture {
        config,
        architecture,
    } = config.into();
    let plan = AttachPlan::new(&module, config, architecture)?;
    plan.apply(module, AdapterWeights::default())
}

/// Returns the report that [`attach`] would give, without attaching: no value is read or made.
///
/// # Errors
/// As [`attach`].
pub fn attach_report<'a, M: Module>(
    module: &M,
    config: impl Into<ForArchitecture<'a, LoraConfig>>,
) -> Result<AttachReport, LoraError> {
    let ForArchitecture {
        config,
        architecture,
    } = config.into();
    Ok(AttachPlan::new(module, config, architecture)?.report)
}

/// Freezes a module and puts nothing on it: for what trains beside adapters, such as a prefix.
pub fn freeze<M: Module>(module: M) -> Adapted<M> {
    let report = AttachReport {
        config: LoraConfig::default(),
        modules: Vec::new(),
        saved: Vec::new(),
        quantized: quantized_modules(&module, &Architecture::default()),
        base_difference: None,
        outline: BaseOutline::default(),
        switch: AdapterSwitch::on(),
    };
    Adapted::from_parts(module.no_grad(), report)
}

/// Takes the adapters off: the base parameters as they were, without a copy. Those that are quantised stay so.
///
/// The module stays frozen but for what trained whole beside the adapters, which keeps its values:
/// there is no original to go back to. Clones of the module keep their adapters.
pub fn detach<M: Module>(module: M) -> M {
    let packed = packed::of_module(&module);
    put_packed(bare(|| module.materialize()), packed)
}
