//! Configuration of an adapter: [`LoraConfig`].
//!
//! | file | contents |
//! | --- | --- |
//! | `targets` | [`TargetModules`], [`ExcludeModules`] |
//! | `init` | [`LoraInit`]: start values of the factors |
//! | `scaling` | [`LoraScaling`]: α/r and α/√r |
//! | `tokens` | [`TrainableTokens`]: single rows of an embedding
//! | `pattern` | [`ModulePatterns`], regular expressions on module names, and the closest names for error messages |

mod init;
mod pattern;
mod scaling;
mod targets;
mod tokens;

pub use init::LoraInit;
pub use pattern::ModulePatterns;
pub(crate) use pattern::{by_similarity, closest, compile};
pub use scaling::LoraScaling;
pub(crate) use targets::without_slices;
pub use targets::{ExcludeModules, TargetModules};
pub use tokens::TrainableTokens;

use crate::error::LoraError;
use crate::layout::{Architecture, ForArchitecture};
use serde::{Deserialize, Serialize};
use std::iter::once;

/// Biases of the base that are trained and saved with the adapter: PEFT's `bias`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasTraining {
    /// No bias. The default.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// The biases of the adapted layers.
    LoraOnly,
}

/// Configuration of an adapter; the defaults are PEFT's.
///
/// # Example
/// ```
/// use lora_core::{LoraConfig, LoraScaling, TargetModules};
///
/// let config = LoraConfig::new(16)
///     .with_alpha(32.0)
///     .with_dropout(0.05)
///     .with_scaling(LoraScaling::RankStabilized)
///     .with_targets(TargetModules::names(["query", "value"]));
/// assert_eq!(config.scaling.factor(config.alpha, config.rank), 8.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r of the update, at least 1. Default 8.
    pub rank: usize,
    /// Scaling numerator α. Default 8.
    pub alpha: f64,
    /// Probability in [0, 1) of dropping an input of the adapter in training. Default 0.
    pub dropout: f64,
    /// Formula of the scale, from α and r. Default α/r.
    pub scaling: LoraScaling,
    /// Initialization of the factors. Default Kaiming uniform.
    pub init: LoraInit,
    /// Seed of the factors' start values, which depend on it and on the module's path alone. Default 0.
    pub seed: u64,
    /// Trains magnitude and direction of the weights separately: DoRA (Liu et al. 2024). Default false.
    pub dora: bool,
    /// Adds a bias to the factor B. Default false. Not together with DoRA.
    pub lora_bias: bool,
    /// Biases of the base that are trained and saved with the adapter. Default none.
    pub bias: BiasTraining,
    /// Modules that are adapted. Default all linear layers except output layers.
    pub targets: TargetModules,
    /// Targets that get no adapter.
    pub exclude: Option<ExcludeModules>,
    /// Indices of the layers that are adapted, with [`TargetModules::Names`]. Default all layers.
    pub layers: Option<Vec<usize>>,
    /// Names of the lists that the layers are in, such as `h`. Empty for any name.
    pub layers_pattern: Vec<String>,
    /// Fully trained modules that are saved with the adapter, such as a new head, by path or the end of it.
    pub modules_to_save: Vec<String>,
    /// Keeps an output layer tied to its embedding where both are fully trained: PEFT's `ensure_weight_tying`. Default false:
    /// each end has a matrix of its own, and one that is not fully trained keeps that of the base.
    pub ensure_weight_tying: bool,
    /// Rows of embeddings that are trained, one a token: PEFT's `trainable_token_indices`.
    pub token_indices: Vec<TrainableTokens>,
    /// Ranks of single modules, by regular expression on the end of the path; the first match counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single modules, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            scaling: LoraScaling::Standard,
            init: LoraInit::KaimingUniform,
            seed: 0,
            dora: false,
            lora_bias: false,
            bias: BiasTraining::None,
            targets: TargetModules::AllLinear,
            exclude: None,
            layers: None,
            layers_pattern: Vec::new(),
            modules_to_save: Vec::new(),
            ensure_weight_tying: false,
            token_indices: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// Returns a configuration of this rank, with PEFT's defaults for all else.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            ..Self::default()
        }
    }

    /// Sets the scaling numerator α.
    pub fn with_alpha(mut self, alpha: f64) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the dropout on the adapter's input.
    pub fn with_dropout(mut self, probability: f64) -> Self {
        self.dropout = probability;
        self
    }

    /// Sets the formula of the scale.
    pub fn with_scaling(mut self, scaling: LoraScaling) -> Self {
        self.scaling = scaling;
        self
    }

    /// Sets the initialization of the factors.
    pub fn with_init(mut self, init: LoraInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the seed of the factors' start values.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Enables DoRA: magnitude and direction of the weights are trained separately.
    pub fn with_dora(mut self, dora: bool) -> Self {
        self.dora = dora;
        self
    }

    /// Enables a bias on the factor B.
    pub fn with_lora_bias(mut self, lora_bias: bool) -> Self {
        self.lora_bias = lora_bias;
        self
    }

    /// Sets the biases of the base that are trained.
    pub fn with_bias(mut self, bias: BiasTraining) -> Self {
        self.bias = bias;
        self
    }

    /// Sets the modules that are adapted.
    pub fn with_targets(mut self, targets: TargetModules) -> Self {
        self.targets = targets;
        self
    }

    /// Sets the targets that get no adapter.
    pub fn with_exclude(mut self, exclude: ExcludeModules) -> Self {
        self.exclude = Some(exclude);
        self
    }

    /// Sets the indices of the layers that are adapted.
    pub fn with_layers(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.layers = Some(layers.into_iter().collect());
        self
    }

    /// Sets the names of the lists that layer indices count in, such as `h`.
    pub fn with_layers_pattern<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.layers_pattern = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the modules that are fully trained and saved with the adapter.
    pub fn with_modules_to_save<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }

    /// Keeps an output layer tied to its embedding where both are fully trained.
    pub fn with_ensure_weight_tying(mut self, tied: bool) -> Self {
        self.ensure_weight_tying = tied;
        self
    }

    /// Sets the rows of the input embedding that are trained.
    pub fn with_token_indices(mut self, ids: impl IntoIterator<Item = usize>) -> Self {
        self.token_indices = vec![TrainableTokens::of_input(ids)];
        self
    }

    /// Sets the rank of the modules that end in `pattern`.
    pub fn with_rank_for(mut self, pattern: impl Into<String>, rank: usize) -> Self {
        self.rank_pattern.push((pattern.into(), rank));
        self
    }

    /// Sets the alpha of the modules that end in `pattern`.
    pub fn with_alpha_for(mut self, pattern: impl Into<String>, alpha: f64) -> Self {
        self.alpha_pattern.push((pattern.into(), alpha));
        self
    }

    /// Joins this configuration and the architecture of the model that it is applied to.
    pub fn for_architecture<'a>(
        &'a self,
        architecture: &'a Architecture,
    ) -> ForArchitecture<'a, Self> {
        ForArchitecture::new(self, architecture)
    }

    /// Returns true if there are factors to train. Without targets, all biases may be trained, which is BitFit (Ben Zaken et al.
    /// 2021, arXiv 2106.10199), or the modules to save or rows of tokens alone.
    pub fn has_targets(&self) -> bool {
        !matches!(&self.targets, TargetModules::Names(names) if names.is_empty())
    }

    /// Returns true if there is something to train: factors, all biases, modules to save, or rows of tokens.
    pub fn trains_anything(&self) -> bool {
        self.has_targets()
            || self.bias == BiasTraining::All
            || !self.modules_to_save.is_empty()
            || !self.token_indices.is_empty()
    }

    /// Checks the options as far as that is possible without a model.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] for a rank of 0, an alpha that is not finite, a dropout outside
    /// [0, 1), token indices that are none or repeated, layers without a list of target names, a bias on `B` with DoRA or with an initialization
    /// that has none, or an initialization that the rank does not allow.
    pub fn validate(&self) -> Result<(), LoraError> {
        let ranks = || once(self.rank).chain(self.rank_pattern.iter().map(|(_, rank)| *rank));
        if ranks().any(|rank| rank == 0) {
            return Err(LoraError::invalid_option("rank", 0, "at least 1"));
        }
        let mut alphas = once(self.alpha).chain(self.alpha_pattern.iter().map(|(_, alpha)| *alpha));
        if let Some(alpha) = alphas.find(|alpha| !alpha.is_finite()) {
            return Err(LoraError::invalid_option("alpha", alpha, "a finite number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(LoraError::invalid_option(
                "dropout",
                self.dropout,
                "a probability in [0, 1)",
            ));
        }
        if !self.trains_anything() {
            return Err(LoraError::invalid_option(
                "targets",
                "empty",
                "at least one module name",
            ));
        }
        if self.layers.is_none() && !self.layers_pattern.is_empty() {
            return Err(LoraError::invalid_option(
                "layers_pattern",
                self.layers_pattern.join(", "),
                "the option `layers` beside it",
            ));
        }
        if self.layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(LoraError::invalid_option(
                "layers",
                "empty",
                "at least one layer index",
            ));
        }
        if self.layers.is_some() && !matches!(self.targets, TargetModules::Names(_)) {
            return Err(LoraError::invalid_option(
                "layers",
                "given with a pattern for the targets",
                "targets as a list of names (otherwise PEFT ignores layers)",
            ));
        }
        for tokens in &self.token_indices {
            tokens.validate()?;
        }
        if self.lora_bias && self.dora {
            return Err(LoraError::invalid_option(
                "lora_bias",
                "given with DoRA",
                "one of the two",
            ));
        }
        if self.lora_bias && !matches!(self.init, LoraInit::KaimingUniform | LoraInit::Random) {
            return Err(LoraError::invalid_option(
                "lora_bias",
                format!("given with init {}", self.init),
                "init `kaiming_uniform` or `random`",
            ));
        }
        if let (LoraInit::Orthogonal, Some(odd)) = (self.init, ranks().find(|rank| rank % 2 == 1)) {
            return Err(LoraError::invalid_option(
                "rank",
                odd,
                "an even number with init `orthogonal`",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_outside_their_range_are_refused_by_name() {
        let bad = [
            (LoraConfig::new(0), "rank"),
            (LoraConfig::new(4).with_rank_for("c_fc", 0), "rank"),
            (LoraConfig::new(4).with_alpha(f64::NAN), "alpha"),
            (
                LoraConfig::new(4).with_alpha_for("c_fc", f64::INFINITY),
                "alpha",
            ),
            (LoraConfig::new(4).with_dropout(1.0), "dropout"),
            (LoraConfig::new(4).with_dropout(-0.1), "dropout"),
            (LoraConfig::new(4).with_dropout(f64::NAN), "dropout"),
            (LoraConfig::new(4).with_layers([1]), "layers"),
            (LoraConfig::new(3).with_init(LoraInit::Orthogonal), "rank"),
            (
                LoraConfig::new(4).with_dora(true).with_lora_bias(true),
                "lora_bias",
            ),
            (
                LoraConfig::new(4)
                    .with_init(LoraInit::Olora)
                    .with_lora_bias(true),
                "lora_bias",
            ),
            (
                LoraConfig::new(4).with_targets(TargetModules::Names(vec![])),
                "targets",
            ),
        ];
        for (config, name) in bad {
            match config.validate() {
                Err(LoraError::InvalidOption { option, .. }) => assert_eq!(option, name),
                other => panic!("{config:?}: {other:?}"),
            }
        }
        assert!(LoraConfig::default().validate().is_ok());
    }
}
