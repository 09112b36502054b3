//! Several adapters made into one, as PEFT's `add_weighted_adapter` does, on files and without a model.
//!
//! ```
//! use lora_core::combine::{CombineOptions, combine};
//! # use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor};
//! # use lora_core::{LayerKind, LoraConfig};
//! # let adapter = |value: f32| StoredAdapter {
//! #     config: LoraConfig::new(1),
//! #     options: Default::default(),
//! #     modules: [("query".to_string(), StoredFactors {
//! #         kind: LayerKind::Linear,
//! #         a: StoredTensor::new([1, 2], vec![value, 1.0]),
//! #         b: StoredTensor::new([2, 1], vec![1.0, value]),
//! #         scale: 2.0,
//! #         magnitude: None,
//! #         bias: None,
//! #     })].into(),
//! #     saved: Default::default(),
//! #     metadata: Default::default(),
//! # };
//! # let (first, second) = (adapter(0.5), adapter(3.0));
//! // 0.7 ΔW₁ + 0.3 ΔW₂, exactly: the ranks add up.
//! let both = combine(&[(&first, 0.7), (&second, 0.3)], &CombineOptions::default())?;
//! assert_eq!(both.adapter.modules["query"].rank(), 2);
//! # Ok::<(), lora_core::LoraError>(())
//! ```

mod check;
mod low_rank;
mod mix;

pub use mix::{MajoritySign, Mix};

use crate::config::TargetModules;
use crate::error::{BaseDifference, LoraError};
use crate::file::{StoredAdapter, StoredFactors, StoredTensor};
use crate::layout::stable_hash;
use std::collections::{BTreeMap, BTreeSet};

/// What the mixing is done on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CombineOn {
    /// The factors beside each other: the exact weighted sum of the updates, with all ranks together. PEFT's
    /// `cat`; for [`Mix::Linear`] only.
    #[default]
    Concatenation,
    /// `A` and `B` apart, as PEFT does where a method's name does not end in `_svd`. The ranks must be equal, and
    /// what comes out is no sum of the updates.
    Factors,
    /// The dense updates, of which the best approximation of this rank is kept: PEFT's methods in `_svd`, and
    /// `svd`. The rank is PEFT's default, the largest of the adapters', if it is not given.
    Update {
        /// Rank of the result.
        rank: Option<usize>,
    },
}

/// How adapters become one.
#[derive(Clone, Debug, PartialEq)]
pub struct CombineOptions {
    /// What is mixed.
    pub on: CombineOn,
    /// How it is.
    pub mix: Mix,
    /// Whose parameters that trained whole are kept, by position, where several adapters have the same ones and
    /// they differ. Without it that is an error: a head cannot be two.
    pub saved_from: Option<usize>,
    /// Seed of what is random: DARE's pruning.
    pub seed: u64,
    /// Refuse adapters that were trained on different bases, as far as their files tell.
    pub strict_base: bool,
}

impl Default for CombineOptions {
    /// The exact weighted sum.
    fn default() -> Self {
        Self {
            on: CombineOn::Concatenation,
            mix: Mix::Linear,
            saved_from: None,
            seed: 0,
            strict_base: false,
        }
    }
}

/// An adapter that others were made into.
#[derive(Clone, Debug)]
pub struct Combined {
    /// It.
    pub adapter: StoredAdapter,
    /// The share of each module's update that its rank could not hold: the norm of what is missing, over the
    /// norm of the update. Only of [`CombineOn::Update`].
    pub truncation: BTreeMap<String, f64>,
    /// How the bases differ that the adapters were trained on, where they are known to: their sum is then of none.
    pub base_difference: Option<BaseDifference>,
}

/// Makes one adapter of several, each with its weight, which may be negative.
///
/// A module that an adapter has no factors for is one that it does not change.
///
/// # Errors
/// If there is no adapter, they are on layers of different shapes or kinds, an option is out of range, the
/// factors' ranks differ where they are mixed apart, one is no plain low-rank update (DoRA, a bias on `B`,
/// PiSSA and OLoRA on a changed base), parameters that trained whole differ and nothing says whose to keep, or the
/// bases differ and that is to be refused.
pub fn combine(
    adapters: &[(&StoredAdapter, f64)],
    options: &CombineOptions,
) -> Result<Combined, LoraError> {
    check::options(adapters, options)?;
    let saved = check::saved(adapters, options.saved_from)?;
    let (base, base_difference) = check::bases(adapters, options.strict_base)?;
    let names: BTreeSet<&String> = adapters
        .iter()
        .flat_map(|(a, _)| a.modules.keys())
        .collect();
    let mut modules = BTreeMap::new();
    let mut truncation = BTreeMap::new();
    for name in names {
        let parts: Vec<(&StoredFactors, f64)> = adapters
            .iter()
            .filter_map(|(adapter, weight)| Some((adapter.modules.get(name)?, *weight)))
            .collect();
        check::shapes(name, &parts)?;
        let seed = options.seed ^ stable_hash(name);
        let factors = match options.on {
            CombineOn::Concatenation => concatenated(&parts),
            CombineOn::Factors => of_factors(name, &parts, &options.mix, seed)?,
            CombineOn::Update { rank } => {
                let largest = adapters.iter().flat_map(|(a, _)| a.modules.values());
                let largest = largest.map(StoredFactors::rank).max().unwrap_or(1);
                let rank = rank.unwrap_or(largest);
                let (factors, lost) = low_rank::of_update(name, &parts, &options.mix, rank, seed)?;
                truncation.insert(name.clone(), lost);
                factors
            }
        };
        modules.insert(name.clone(), factors);
    }
    let first = adapters[0].0;
    let rank = modules.values().map(StoredFactors::rank).max().unwrap_or(1);
    let mut config = first.config.clone();
    config.rank = rank;
    config.alpha = config.scaling.alpha(1.0, rank);
    config.rank_pattern.clear();
    config.alpha_pattern.clear();
    // Exactly these, whatever each adapter called its own.
    config.targets = TargetModules::names(modules.keys().cloned());
    config.exclude = None;
    config.layers = None;
    config.layers_pattern.clear();
    let to_save = adapters
        .iter()
        .flat_map(|(a, _)| a.config.modules_to_save.clone());
    config.modules_to_save = to_save.collect::<BTreeSet<_>>().into_iter().collect();
    // Slices do not outlive a combination, the base does.
    let mut metadata = BTreeMap::new();
    if let Some(base) = base {
        base.note(&mut metadata);
    }
    Ok(Combined {
        adapter: StoredAdapter {
            config,
            options: first.options.clone(),
            modules,
            saved,
            metadata,
        },
        truncation,
        base_difference,
    })
}

/// The result of this scale, since every weight is in the factors.
fn result(of: &StoredFactors, a: StoredTensor, b: StoredTensor) -> StoredFactors {
    StoredFactors {
        kind: of.kind,
        a,
        b,
        scale: 1.0,
        magnitude: None,
        bias: None,
    }
}

/// `[w₁ s₁ A₁; w₂ s₂ A₂; …]` and `[B₁ B₂ …]`.
fn concatenated(parts: &[(&StoredFactors, f64)]) -> StoredFactors {
    let first = parts[0].0;
    let [d_out, d_in] = first.shape();
    let rank: usize = parts.iter().map(|(factors, _)| factors.rank()).sum();
    let mut a = Vec::with_capacity(rank * d_in);
    for (factors, weight) in parts {
        let weight = weight * factors.scale;
        let values = factors.a.values.iter();
        a.extend(values.map(|&value| (f64::from(value) * weight) as f32));
    }
    let mut b = Vec::with_capacity(rank * d_out);
    for row in 0..d_out {
        for (factors, _) in parts {
            let rank = factors.rank();
            b.extend_from_slice(&factors.b.values[row * rank..(row + 1) * rank]);
        }
    }
    let (a, b) = (
        StoredTensor::new([rank, d_in], a),
        StoredTensor::new([d_out, rank], b),
    );
    result(first, a, b)
}

/// Each factor mixed with those of the other adapters, its weight shared out to the two.
fn of_factors(
    module: &str,
    parts: &[(&StoredFactors, f64)],
    mix: &Mix,
    seed: u64,
) -> Result<StoredFactors, LoraError> {
    let first = parts[0].0;
    if let Some((other, _)) = parts.iter().find(|(f, _)| f.rank() != first.rank()) {
        return Err(LoraError::InvalidOption {
            option: "combine",
            found: format!("ranks {} and {} on `{module}`", first.rank(), other.rank()),
            expected:
                "equal ranks where factors are mixed; mix the updates instead (`--on update`)"
                    .into(),
        });
    }
    let weights: Vec<f64> = parts
        .iter()
        .map(|(factors, weight)| weight * factors.scale)
        .collect();
    // The sign goes to one of the two only.
    let of_a: Vec<f64> = weights
        .iter()
        .map(|w| w.abs().sqrt() * w.signum())
        .collect();
    let of_b: Vec<f64> = weights.iter().map(|w| w.abs().sqrt()).collect();
    let mixed = |tensors: Vec<&StoredTensor>, weights: &[f64], seed: u64| {
        let values: Vec<&[f32]> = tensors.iter().map(|t| t.values.as_slice()).collect();
        StoredTensor::new(tensors[0].shape.clone(), mix.apply(&values, weights, seed))
    };
    let a = mixed(parts.iter().map(|(f, _)| &f.a).collect(), &of_a, seed);
    let b = mixed(parts.iter().map(|(f, _)| &f.b).collect(), &of_b, seed ^ 1);
    Ok(result(first, a, b))
}
