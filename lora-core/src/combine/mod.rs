//! Combination of several adapters into one, as PEFT's `add_weighted_adapter` does, on files and without a model.
//!
//! | file | contents |
//! | --- | --- |
//! | `check` | checks of the adapters |
//! | `mix` | element-wise mixing of tensors |
//! | `low_rank` | best low-rank approximation of a mixed update |
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
use crate::file::{PeftOptions, StoredAdapter, StoredFactors, StoredTensor};
use crate::layout::stable_hash;
use std::collections::{BTreeMap, BTreeSet};

/// Operands of the mixing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CombineOn {
    /// The factors side by side: the exact weighted sum of the updates, with all ranks together. PEFT's
    /// `cat`; for [`Mix::Linear`] only.
    #[default]
    Concatenation,
    /// `A` and `B` separately, as PEFT does if a method's name does not end in `_svd`. The ranks must be equal, and
    /// the result is not the sum of the updates.
    Factors,
    /// The dense updates, approximated by the best update of this rank: PEFT's methods in `_svd`, and
    /// `svd`. The rank is PEFT's default, the largest of the adapters', if it is not given.
    Update {
        /// Rank of the result.
        rank: Option<usize>,
    },
}

/// Options of [`combine`].
#[derive(Clone, Debug, PartialEq)]
pub struct CombineOptions {
    /// Operands of the mixing.
    pub on: CombineOn,
    /// Method of the mixing.
    pub mix: Mix,
    /// Index of the adapter whose fully trained parameters (PEFT's `modules_to_save`) are kept, if several adapters have
    /// different values of the same ones. Without it that is an error: there can be only one head.
    pub saved_from: Option<usize>,
    /// Seed of DARE's random pruning.
    pub seed: u64,
    /// Refuses adapters that were trained on different bases, as far as their files tell.
    pub strict_base: bool,
}

impl Default for CombineOptions {
    /// Returns the options of the exact weighted sum.
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

/// Result of [`combine`].
#[derive(Clone, Debug)]
pub struct Combined {
    /// Combined adapter.
    pub adapter: StoredAdapter,
    /// Truncation error of each module's update: the norm of what its rank could not hold, over the norm of the update.
    /// Only with [`CombineOn::Update`].
    pub truncation: BTreeMap<String, f64>,
    /// Difference between the bases that the adapters were trained on, if there is a known one: the sum then fits none of
    /// them.
    pub base_difference: Option<BaseDifference>,
}

/// Combines several adapters into one, each with its weight, which may be negative.
///
/// An adapter does not change the modules that it has no factors for.
///
/// # Errors
/// If there is no adapter, they are on layers of different shapes or kinds, an option is out of range, the
/// factors' ranks differ where they are mixed separately, one is no plain low-rank update (DoRA, a bias on `B`,
/// PiSSA and OLoRA on a changed base), fully trained parameters differ and no option says which to keep, or the
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
            CombineOn::Factors => mixed_factors(name, &parts, &options.mix, seed)?,
            CombineOn::Update { rank } => {
                let largest = adapters.iter().flat_map(|(a, _)| a.modules.values());
                let largest = largest.map(StoredFactors::rank).max().unwrap_or(1);
                let rank = rank.unwrap_or(largest);
                let (factors, lost) =
                    low_rank::approximate(name, &parts, &options.mix, rank, seed)?;
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
    // Exactly these, whatever the targets of each adapter.
    config.targets = TargetModules::names(modules.keys().cloned());
    config.exclude = None;
    config.layers = None;
    config.layers_pattern.clear();
    let to_save = adapters
        .iter()
        .flat_map(|(a, _)| a.config.modules_to_save.clone());
    config.modules_to_save = to_save.collect::<BTreeSet<_>>().into_iter().collect();
    let mut tokens = adapters.iter().map(|(a, _)| &a.config.token_indices);
    config.token_indices = tokens
        .find(|tokens| !tokens.is_empty())
        .cloned()
        .unwrap_or_default();
    // The fingerprint of the base stays valid, slices do not.
    let mut metadata = BTreeMap::new();
    if let Some(base) = base {
        base.note(&mut metadata);
    }
    Ok(Combined {
        adapter: StoredAdapter {
            config,
            options: PeftOptions {
                companions: check::companions(adapters, options.saved_from),
                ..first.options.clone()
            },
            modules,
            saved,
            metadata,
        },
        truncation,
        base_difference,
    })
}

/// Returns the combined factors with scale 1, since every weight is in the factors.
fn combined(like: &StoredFactors, a: StoredTensor, b: StoredTensor) -> StoredFactors {
    StoredFactors {
        kind: like.kind,
        a,
        b,
        scale: 1.0,
        magnitude: None,
        bias: None,
    }
}

/// Concatenates factors: `[w₁ s₁ A₁; w₂ s₂ A₂; …]` and `[B₁ B₂ …]`.
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
    combined(first, a, b)
}

/// Mixes each factor with those of the other adapters; the weight is split between `A` and `B`.
fn mixed_factors(
    module: &str,
    parts: &[(&StoredFactors, f64)],
    mix: &Mix,
    seed: u64,
) -> Result<StoredFactors, LoraError> {
    let first = parts[0].0;
    if let Some((other, _)) = parts.iter().find(|(f, _)| f.rank() != first.rank()) {
        return Err(check::refused(
            format!("ranks {} and {} on `{module}`", first.rank(), other.rank()),
            "equal ranks where factors are mixed; mix the updates instead (`--method svd`, or another that ends with `_svd`)",
        ));
    }
    let mixed = |factor: fn(&StoredFactors) -> &StoredTensor, share: fn(f64) -> f64, seed: u64| {
        let tensors = parts
            .iter()
            .map(|(factors, _)| factor(factors).values.as_slice());
        let weights = parts
            .iter()
            .map(|(factors, weight)| share(weight * factors.scale));
        let (tensors, weights): (Vec<&[f32]>, Vec<f64>) = (tensors.collect(), weights.collect());
        let shape = factor(first).shape.clone();
        StoredTensor::new(shape, mix.apply(&tensors, &weights, seed))
    };
    // The sign goes to one of the two only.
    let a = mixed(|factors| &factors.a, |w| w.abs().sqrt() * w.signum(), seed);
    let b = mixed(|factors| &factors.b, |w| w.abs().sqrt(), seed ^ 1);
    Ok(combined(first, a, b))
}
