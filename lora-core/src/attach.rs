//! Putting adapters on a module, and taking them off.

use crate::adapter::{AdapterSwitch, LoraAdapter, without_adapters};
use crate::init::{normal_values, random_factor};
use crate::modules::{self, AdapterPath, LayerKind, param_id};
use crate::targets::{Architecture, SavedParameter, Slices, Target, resolve};
use crate::{Dropout, LoraConfig, LoraError};
use burn::module::{Module, Param, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use std::collections::HashMap;
use std::fmt;

/// One adapted module, as [`attach`] reports it.
#[derive(Clone, Debug)]
pub struct AdaptedModule {
    /// Name of the module, such as `transformer.h.0.attn.c_attn`.
    pub module: String,
    /// Path of its weight in the module: the name with `.weight`, but where the model has other
    /// names in Python.
    pub parameter: String,
    /// Whether its weight is multiplied or looked up.
    pub kind: LayerKind,
    /// Shape of the weight, `[d_in, d_out]`.
    pub shape: [usize; 2],
    /// Rank; with slices, of each slice.
    pub rank: usize,
    /// Alpha.
    pub alpha: f64,
    /// What `A B` is multiplied by.
    pub scale: f64,
    /// Where the adapter acts.
    pub path: AdapterPath,
    /// The adapted parts of a fused projection.
    pub slices: Option<Slices>,
    /// Number of trainable parameters of the adapter.
    pub parameters: usize,
}

impl AdaptedModule {
    /// Rank of the standard adapter that computes the same: that of all slices together.
    pub fn total_rank(&self) -> usize {
        self.rank * self.slices.as_ref().map_or(1, |s| s.adapted.len())
    }

    /// Shapes of `A` and `B` as the adapter holds them.
    pub(crate) fn factor_shapes(&self) -> [[usize; 2]; 2] {
        let [d_in, d_out] = self.shape;
        let width = self.slices.as_ref().map_or(d_out, |s| d_out / s.parts);
        [[d_in, self.total_rank()], [self.total_rank(), width]]
    }
}

/// What [`attach`] did. Saving, merging and inspecting the adapters need it.
#[derive(Clone, Debug)]
pub struct AttachReport {
    /// The configuration that was applied.
    pub config: LoraConfig,
    /// The adapted modules, in the model's order.
    pub modules: Vec<AdaptedModule>,
    /// The parameters that train whole and are saved with the adapters, such as a new head.
    pub saved: Vec<SavedParameter>,
    /// Turns these adapters on and off.
    pub switch: AdapterSwitch,
}

impl AttachReport {
    /// Number of trainable parameters of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(|module| module.parameters).sum()
    }

    /// Number of parameters that train whole, beside the adapters.
    pub fn saved_parameters(&self) -> usize {
        self.saved.iter().map(SavedParameter::elements).sum()
    }
}

impl fmt::Display for AttachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .modules
            .iter()
            .map(|m| m.module.len())
            .max()
            .unwrap_or(6);
        writeln!(
            f,
            "{:width$}  {:>14}  {:>4}  {:>8}  {:>10}  {:>10}",
            "module", "shape", "rank", "scale", "path", "parameters"
        )?;
        for m in &self.modules {
            let slices = match &m.slices {
                None => String::new(),
                Some(s) => format!("  slices {:?} of {}", s.adapted, s.parts),
            };
            writeln!(
                f,
                "{:width$}  {:>14}  {:>4}  {:>8.4}  {:>10}  {:>10}{slices}",
                m.module,
                format!("[{}, {}]", m.shape[0], m.shape[1]),
                m.rank,
                m.scale,
                m.path.to_string(),
                m.parameters,
            )?;
        }
        for saved in &self.saved {
            writeln!(
                f,
                "{:width$}  {:>14}  trains whole, saved with the adapter  {:>7}",
                saved.name,
                format!("{:?}", saved.shape),
                saved.elements(),
            )?;
        }
        write!(
            f,
            "{} adapted modules, {} trainable parameters",
            self.modules.len(),
            self.parameters()
        )?;
        match self.saved_parameters() {
            0 => Ok(()),
            saved => write!(f, " and {saved} that train whole"),
        }
    }
}

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
/// let (model, report) = attach(model, &config)?;
/// assert_eq!(report.parameters(), 16 * 2 + 2 * 32);
/// # Ok::<(), lora_core::LoraError>(())
/// ```
///
/// # Errors
/// If an option is out of range, an entry matches nothing (the error names the nearest
/// candidates), a target cannot take the adapter, or the module has adapters already.
pub fn attach<M: Module>(module: M, config: &LoraConfig) -> Result<(M, AttachReport), LoraError> {
    attach_with(module, config, &Architecture::default())
}

/// [`attach`] for a model that tells which of its layers are output layers and which are fused.
///
/// # Errors
/// As [`attach`].
pub fn attach_with<M: Module>(
    module: M,
    config: &LoraConfig,
    architecture: &Architecture,
) -> Result<(M, AttachReport), LoraError> {
    let plan = AttachPlan::new(&module, config, architecture)?;
    Ok(plan.apply(module, Given::default()))
}

/// What an attach will do, before it is done: reading an adapter checks its tensors in between.
pub(crate) struct AttachPlan {
    pub report: AttachReport,
}

/// Values that were read from a file; what is not in it starts afresh, or stays.
#[derive(Default)]
pub(crate) struct Given {
    /// `A` and `B` by the path of the weight, in the adapter's own layout.
    pub factors: HashMap<String, [TensorData; 2]>,
    /// Parameters that train whole, by path.
    pub saved: HashMap<String, TensorData>,
}

impl AttachPlan {
    pub fn new<M: Module>(
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Self, LoraError> {
        let parameters = modules::parameters(module, architecture);
        let resolved = resolve(&parameters, config, architecture)?;
        let targets = resolved.targets.iter();
        Ok(Self {
            report: AttachReport {
                config: config.clone(),
                modules: targets.map(|target| adapted(target, config)).collect(),
                saved: resolved.saved,
                switch: AdapterSwitch::on(),
            },
        })
    }

    /// Attaches.
    pub fn apply<M: Module>(self, module: M, mut given: Given) -> (M, AttachReport) {
        let mut modules = HashMap::new();
        for adapted in &self.report.modules {
            let factors = given.factors.remove(&adapted.parameter);
            modules.insert(adapted.parameter.clone(), (adapted.clone(), factors));
        }
        let saved = self.report.saved.iter().map(|saved| {
            let value = given.saved.remove(&saved.parameter);
            (saved.parameter.clone(), value)
        });
        let module = module.apply_reparameterization(Attach {
            config: self.report.config.clone(),
            saved: saved.collect(),
            modules,
            switch: self.report.switch.clone(),
        });
        (module, self.report)
    }
}

/// Takes the adapters off: the base parameters as they were, without a copy.
///
/// The module stays frozen but for what trained whole beside the adapters, which keeps its values:
/// there is no original to go back to. Clones of the module keep their adapters.
pub fn detach<M: Module>(module: M) -> M {
    without_adapters(|| module.materialize())
}

fn adapted(target: &Target, config: &LoraConfig) -> AdaptedModule {
    let mut module = AdaptedModule {
        module: target.matrix.module.clone(),
        parameter: target.matrix.parameter.clone(),
        kind: target.matrix.kind,
        shape: target.matrix.shape,
        rank: target.rank,
        alpha: target.alpha,
        scale: config.scaling.factor(target.alpha, target.rank),
        path: target.matrix.path,
        slices: target.slices.clone(),
        parameters: 0,
    };
    module.parameters = module.factor_shapes().iter().map(|[m, n]| m * n).sum();
    module
}

struct Attach {
    config: LoraConfig,
    modules: HashMap<String, (AdaptedModule, Option<[TensorData; 2]>)>,
    saved: HashMap<String, Option<TensorData>>,
    switch: AdapterSwitch,
}

impl Reparameterizer for Attach {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        if let Some(value) = self.saved.remove(path) {
            let param = match value {
                None => param,
                Some(data) => {
                    let value = Tensor::<D>::from_data(data, &param.lazy_device());
                    Param::initialized(param.id, value)
                }
            };
            return (param.set_require_grad(true), None);
        }
        let adapter = self.modules.remove(path).map(|(module, given)| {
            let device = param.lazy_device();
            let [a, b] = given.unwrap_or_else(|| self.starting_factors(&module));
            let factor = |name: &str, data: TensorData| {
                // The id depends on the path alone, so that the state an optimizer saved for it is
                // found again in another process.
                let id = param_id(&format!("{path}.lora.{name}"));
                let value = Tensor::<2>::from_data(data, &device);
                // Kept for `train()` on a device without autodiff.
                Param::initialized(id, value).set_require_grad(true)
            };
            LoraAdapter {
                a: factor("a", a),
                b: factor("b", b),
                dropout: Dropout::new(self.config.dropout),
                scale: module.scale,
                slices: module.slices,
                switch: self.switch.clone(),
            }
        });
        (param.set_require_grad(false), adapter)
    }
}

impl Attach {
    /// `A` at random and `B` zero, or on an embedding the other way round.
    fn starting_factors(&self, module: &AdaptedModule) -> [TensorData; 2] {
        let [a, b] = module.factor_shapes();
        let zeros = |[m, n]: [usize; 2]| vec![0.0f32; m * n];
        let seed = self.config.seed;
        let (a_values, b_values) = match module.kind {
            LayerKind::Linear => {
                let values = random_factor(
                    self.config.init,
                    a[0],
                    module.rank,
                    a[0] * a[1],
                    seed,
                    &module.module,
                );
                (values, zeros(b))
            }
            LayerKind::Embedding => (
                zeros(a),
                normal_values(seed, &module.module, b[0] * b[1], 1.0),
            ),
        };
        [TensorData::new(a_values, a), TensorData::new(b_values, b)]
    }
}
