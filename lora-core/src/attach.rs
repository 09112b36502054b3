//! Putting adapters on a module, and taking them off.

use crate::adapter::{AdapterSwitch, LoraAdapter, without_adapters};
use crate::init::{normal_values, random_factor};
use crate::modules::{self, AdapterPath, LayerKind, param_id};
use crate::targets::{Architecture, Slices, Target, resolve};
use crate::{LoraConfig, LoraError};
use burn::module::{Module, Param, Reparameterizer};
use burn::nn::DropoutConfig;
use burn::tensor::{Tensor, TensorData};
use std::collections::HashMap;
use std::fmt;

/// One adapted module, as [`attach`] reports it.
#[derive(Clone, Debug)]
pub struct AdaptedModule {
    /// Path of the module, such as `transformer.h.0.attn.c_attn`.
    pub module: String,
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
    /// Turns these adapters on and off.
    pub switch: AdapterSwitch,
}

impl AttachReport {
    /// Number of trainable parameters of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(|module| module.parameters).sum()
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
        write!(
            f,
            "{} adapted modules, {} trainable parameters",
            self.modules.len(),
            self.parameters()
        )
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
    Ok(plan.apply(module, HashMap::new()))
}

/// What an attach will do, before it is done: reading an adapter checks its tensors in between.
pub(crate) struct AttachPlan {
    pub report: AttachReport,
    /// Paths of the parameters, in the order of `report.modules`.
    pub parameters: Vec<String>,
}

impl AttachPlan {
    pub fn new<M: Module>(
        module: &M,
        config: &LoraConfig,
        architecture: &Architecture,
    ) -> Result<Self, LoraError> {
        let targets = resolve(&modules::matrices(module), config, architecture)?;
        Ok(Self {
            report: AttachReport {
                config: config.clone(),
                modules: targets
                    .iter()
                    .map(|target| adapted(target, config))
                    .collect(),
                switch: AdapterSwitch::on(),
            },
            parameters: targets.into_iter().map(|t| t.matrix.parameter).collect(),
        })
    }

    /// Attaches; `factors` holds A and B by module path, in the adapter's own layout, and modules
    /// that are not in it start afresh.
    pub fn apply<M: Module>(
        self,
        module: M,
        mut factors: HashMap<String, [TensorData; 2]>,
    ) -> (M, AttachReport) {
        let mut modules = HashMap::new();
        for (parameter, adapted) in self.parameters.into_iter().zip(&self.report.modules) {
            let given = factors.remove(&adapted.module);
            modules.insert(parameter, (adapted.clone(), given));
        }
        let module = module.apply_reparameterization(Attach {
            config: self.report.config.clone(),
            modules,
            switch: self.report.switch.clone(),
        });
        (module, self.report)
    }
}

/// Takes the adapters off: the base parameters as they were, without a copy.
///
/// The module stays frozen. Clones of it keep their adapters.
pub fn detach<M: Module>(module: M) -> M {
    without_adapters(|| module.materialize())
}

fn adapted(target: &Target, config: &LoraConfig) -> AdaptedModule {
    let mut module = AdaptedModule {
        module: target.matrix.module.clone(),
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
    switch: AdapterSwitch,
}

impl Reparameterizer for Attach {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
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
                dropout: DropoutConfig::new(self.config.dropout).init(),
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
