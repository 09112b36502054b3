//! What to adapt and how: [`LoraConfig`].

use crate::targets::{Architecture, ForArchitecture};
use crate::{LoraError, LoraInit, LoraScaling};
use serde::{Deserialize, Serialize};

/// Which biases of the base train and are saved with the adapter: PEFT's `bias`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasTraining {
    /// None: the base stays as it is. The default.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// Those of the adapted layers.
    LoraOnly,
}

/// Which modules get an adapter.
///
/// Names are the dotted path of the module, such as `transformer.h.0.attn.c_attn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TargetsInFile", into = "TargetsInFile")]
pub enum TargetModules {
    /// Each entry is a whole path or its last components: `c_attn` adapts every `….c_attn`.
    ///
    /// Where the model says how a projection is fused, an entry may name slices of it:
    /// `c_attn[q,v]` gives q and v an adapter each, of the configured rank.
    Names(Vec<String>),
    /// A regular expression that must match the whole path.
    Pattern(String),
    /// Every linear layer except output layers: PEFT's `"all-linear"`.
    AllLinear,
}

impl TargetModules {
    /// PEFT's name for [`AllLinear`](Self::AllLinear).
    pub const ALL_LINEAR: &'static str = "all-linear";

    /// Modules by path or by the end of it.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        TargetModules::Names(names.into_iter().map(Into::into).collect())
    }

    /// Modules whose whole path matches a regular expression.
    pub fn regex(pattern: impl Into<String>) -> Self {
        TargetModules::Pattern(pattern.into())
    }
}

/// [`TargetModules`] as PEFT's files hold them.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of module names or a string")]
enum TargetsInFile {
    Names(Vec<String>),
    Text(String),
}

impl From<TargetsInFile> for TargetModules {
    fn from(targets: TargetsInFile) -> Self {
        match targets {
            TargetsInFile::Names(names) => Self::Names(names),
            TargetsInFile::Text(text) if text == Self::ALL_LINEAR => Self::AllLinear,
            TargetsInFile::Text(pattern) => Self::Pattern(pattern),
        }
    }
}

impl From<TargetModules> for TargetsInFile {
    fn from(targets: TargetModules) -> Self {
        match targets {
            TargetModules::Names(names) => Self::Names(names),
            TargetModules::Pattern(pattern) => Self::Text(pattern),
            TargetModules::AllLinear => Self::Text(TargetModules::ALL_LINEAR.into()),
        }
    }
}

/// Modules that are left alone although they are targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExcludeModules {
    /// Whole paths or ends of paths.
    Names(Vec<String>),
    /// A regular expression that must match the whole path.
    Pattern(String),
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
    /// Probability in [0, 1) of dropping an input of the adapter, while training. Default 0.
    pub dropout: f64,
    /// How α and r make the scale. Default α/r.
    pub scaling: LoraScaling,
    /// How the factors start.
    pub init: LoraInit,
    /// Seed of the factors' values, which depend on it and on the module's path alone. Default 0.
    pub seed: u64,
    /// Whether magnitude and direction of the weights train apart: DoRA (Liu et al. 2024). Default no.
    pub dora: bool,
    /// Whether the factor B has a bias. Default no. Not together with DoRA.
    pub lora_bias: bool,
    /// Which biases of the base train, and are saved with the adapter. Default none.
    pub bias: BiasTraining,
    /// Which modules are adapted. Default: all linear layers.
    pub targets: TargetModules,
    /// Which of them are left alone.
    pub exclude: Option<ExcludeModules>,
    /// Only these layers, by index, of what [`TargetModules::Names`] selects.
    pub layers: Option<Vec<usize>>,
    /// Name of the list that the layers are in, such as `h`; any name when empty.
    pub layers_pattern: Vec<String>,
    /// Modules that train whole and are saved with the adapter, by name or the end of it: a new head.
    pub modules_to_save: Vec<String>,
    /// Another rank for some modules: regular expressions on the end of the path, the first that
    /// matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Another alpha for some modules, likewise.
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
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
        }
    }
}

impl LoraConfig {
    /// A configuration of this rank, with PEFT's other defaults.
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

    /// Sets how α and r make the scale.
    pub fn with_scaling(mut self, scaling: LoraScaling) -> Self {
        self.scaling = scaling;
        self
    }

    /// Sets how the factors start.
    pub fn with_init(mut self, init: LoraInit) -> Self {
        self.init = init;
        self
    }

    /// Sets the seed of A's values.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Trains magnitude and direction of the weights apart: DoRA.
    pub fn with_dora(mut self, dora: bool) -> Self {
        self.dora = dora;
        self
    }

    /// Gives the factor B a bias.
    pub fn with_lora_bias(mut self, lora_bias: bool) -> Self {
        self.lora_bias = lora_bias;
        self
    }

    /// Sets which biases of the base train.
    pub fn with_bias(mut self, bias: BiasTraining) -> Self {
        self.bias = bias;
        self
    }

    /// Sets which modules are adapted.
    pub fn with_targets(mut self, targets: TargetModules) -> Self {
        self.targets = targets;
        self
    }

    /// Leaves some of the targets alone.
    pub fn with_exclude(mut self, exclude: ExcludeModules) -> Self {
        self.exclude = Some(exclude);
        self
    }

    /// Adapts these layers only.
    pub fn with_layers(mut self, layers: impl IntoIterator<Item = usize>) -> Self {
        self.layers = Some(layers.into_iter().collect());
        self
    }

    /// Says which list the layer indices count in, such as `h`.
    pub fn with_layers_pattern<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.layers_pattern = names.into_iter().map(Into::into).collect();
        self
    }

    /// Trains these modules whole, beside the adapters, and saves them with these.
    pub fn with_modules_to_save<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.modules_to_save = names.into_iter().map(Into::into).collect();
        self
    }

    /// Gives the modules that end in `pattern` another rank.
    pub fn with_rank_for(mut self, pattern: impl Into<String>, rank: usize) -> Self {
        self.rank_pattern.push((pattern.into(), rank));
        self
    }

    /// Gives the modules that end in `pattern` another alpha.
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

    /// Whether there are factors to train. Without targets, and with every bias training, it is BitFit
    /// (Ben Zaken et al. 2021, arXiv 2106.10199): the model itself but for its biases stays as it is.
    pub fn has_targets(&self) -> bool {
        !matches!(&self.targets, TargetModules::Names(names) if names.is_empty())
    }

    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] for a rank of 0, an alpha that is not finite, a dropout outside
    /// [0, 1), layers together with a pattern for the targets, a bias on `B` with DoRA or with a start
    /// that has none, or a start that the rank does not allow.
    pub fn validate(&self) -> Result<(), LoraError> {
        let ranks = self.rank_pattern.iter().map(|(_, rank)| *rank);
        if let Some(rank) = std::iter::once(self.rank).chain(ranks).find(|&r| r == 0) {
            return Err(invalid("rank", rank, "at least 1"));
        }
        let alphas = self.alpha_pattern.iter().map(|(_, alpha)| *alpha);
        if let Some(alpha) = std::iter::once(self.alpha)
            .chain(alphas)
            .find(|alpha| !alpha.is_finite())
        {
            return Err(invalid("alpha", alpha, "a finite number"));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(invalid("dropout", self.dropout, "a probability in [0, 1)"));
        }
        if !self.has_targets() && self.bias != BiasTraining::All {
            return Err(invalid("targets", "empty", "at least one module name"));
        }
        if self.layers.is_none() && !self.layers_pattern.is_empty() {
            return Err(invalid(
                "layers_pattern",
                self.layers_pattern.join(", "),
                "the option `layers` beside it",
            ));
        }
        if self.layers.as_ref().is_some_and(Vec::is_empty) {
            return Err(invalid("layers", "empty", "at least one layer index"));
        }
        if self.layers.is_some() && !matches!(self.targets, TargetModules::Names(_)) {
            return Err(invalid(
                "layers",
                "given with a pattern for the targets",
                "targets as a list of names (PEFT ignores layers otherwise)",
            ));
        }
        if self.lora_bias && self.dora {
            return Err(invalid("lora_bias", "given with DoRA", "one of the two"));
        }
        if self.lora_bias && !matches!(self.init, LoraInit::KaimingUniform | LoraInit::Random) {
            return Err(invalid(
                "lora_bias",
                format!("given with init {}", self.init),
                "init `kaiming_uniform` or `random`",
            ));
        }
        let mut ranks = std::iter::once(self.rank).chain(self.rank_pattern.iter().map(|r| r.1));
        match ranks.find(|rank| self.init == LoraInit::Orthogonal && rank % 2 == 1) {
            Some(rank) => Err(invalid(
                "rank",
                rank,
                "an even number with init `orthogonal`",
            )),
            None => Ok(()),
        }
    }
}

fn invalid(option: &'static str, found: impl ToString, expected: impl ToString) -> LoraError {
    LoraError::InvalidOption {
        option,
        found: found.to_string(),
        expected: expected.to_string(),
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
