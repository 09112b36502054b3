//! Checks of the adapters to combine.

use super::{CombineOn, CombineOptions, Mix};
use crate::error::{BaseDifference, LoraError};
use crate::file::{StoredAdapter, StoredFactors, StoredTensor, is_embedding, is_of_tokenizer};
use crate::fingerprint::BaseFingerprint;
use std::collections::BTreeMap;

pub(super) fn refused(found: impl ToString, expected: impl ToString) -> LoraError {
    LoraError::invalid_option("combine", found, expected)
}

pub(super) fn options(
    adapters: &[(&StoredAdapter, f64)],
    options: &CombineOptions,
) -> Result<(), LoraError> {
    if adapters.is_empty() {
        return Err(refused("no adapter", "at least one"));
    }
    if let Some((_, weight)) = adapters.iter().find(|(_, weight)| !weight.is_finite()) {
        return Err(refused(format!("weight {weight}"), "a finite number"));
    }
    let density = options.mix.density();
    if !(0.0..=1.0).contains(&density) {
        return Err(refused(format!("density {density}"), "a share in [0, 1]"));
    }
    if options.on == CombineOn::Concatenation && options.mix != Mix::Linear {
        return Err(refused(
            "a pruning method on the concatenation",
            "the factors or the updates to prune",
        ));
    }
    if options.on == (CombineOn::Update { rank: Some(0) }) {
        return Err(refused("rank 0", "at least 1"));
    }
    if options
        .saved_from
        .is_some_and(|index| index >= adapters.len())
    {
        return Err(refused(
            "an index of the head's adapter beyond the last adapter",
            "one of the adapters",
        ));
    }
    let tokens = adapters.iter().map(|(a, _)| &a.config.token_indices);
    let mut tokens = tokens.filter(|tokens| !tokens.is_empty());
    if let Some(first) = tokens.next()
        && tokens.any(|other| other != first)
    {
        return Err(refused(
            "adapters that train different tokens",
            "the same `trainable_token_indices`, in the same order",
        ));
    }
    for (adapter, _) in adapters {
        let plain = "plain low-rank updates of the same base";
        if adapter.needs_changed_base() {
            let found = format!("an adapter of init {}", adapter.config.init);
            return Err(refused(found, format!("{plain}: convert it in PEFT first")));
        }
        for (module, factors) in &adapter.modules {
            if factors.magnitude.is_some() {
                return Err(refused(
                    format!("DoRA on `{module}`"),
                    format!("{plain}: merge it"),
                ));
            }
            if factors.bias.is_some() {
                return Err(refused(format!("a bias on B of `{module}`"), plain));
            }
        }
    }
    Ok(())
}

pub(super) fn shapes(module: &str, parts: &[(&StoredFactors, f64)]) -> Result<(), LoraError> {
    let first = parts[0].0;
    for (other, _) in parts {
        if (other.shape(), other.kind) != (first.shape(), first.kind) {
            return Err(refused(
                format!(
                    "`{module}` of shape {:?} and {:?}",
                    first.shape(),
                    other.shape()
                ),
                "adapters of one base model",
            ));
        }
    }
    Ok(())
}

/// Returns the fully trained parameters: those of the one adapter that has them, or that is named.
pub(super) fn saved(
    adapters: &[(&StoredAdapter, f64)],
    from: Option<usize>,
) -> Result<BTreeMap<String, StoredTensor>, LoraError> {
    let mut all: BTreeMap<String, StoredTensor> = BTreeMap::new();
    for (adapter, _) in adapters {
        for (name, tensor) in &adapter.saved {
            match all.get(name) {
                Some(other) if other != tensor && from.is_none() => {
                    return Err(refused(
                        format!("different values of the fully trained `{name}`"),
                        "one head: choose the adapter to keep it from (`--head-from`)",
                    ));
                }
                Some(_) => {}
                None => {
                    all.insert(name.clone(), tensor.clone());
                }
            }
        }
    }
    if let Some((adapter, _)) = from.and_then(|index| adapters.get(index)) {
        all.extend(adapter.saved.clone());
    }
    Ok(all)
}

/// Returns the files beside the adapter whose fully trained parameters are kept: they hold the labels of its head. The tokenizer is
/// that of an adapter with tokens of its own, if there is one.
pub(super) fn companions(
    adapters: &[(&StoredAdapter, f64)],
    from: Option<usize>,
) -> Vec<(String, Vec<u8>)> {
    let named = from.and_then(|index| adapters.get(index));
    let with_head = || {
        adapters
            .iter()
            .find(|(adapter, _)| !adapter.saved.is_empty())
    };
    let chosen = named.or_else(with_head).or(adapters.first());
    let files = |adapter: Option<&(&StoredAdapter, f64)>, of_tokenizer: bool| {
        let files = adapter.map_or(&[][..], |(adapter, _)| &adapter.options.companions);
        let files = files
            .iter()
            .filter(move |(name, _)| is_of_tokenizer(name) == of_tokenizer);
        files.cloned().collect::<Vec<_>>()
    };
    let with_tokens = || adapters.iter().find(|(adapter, _)| brings_tokens(adapter));
    let tokens = named.filter(|(adapter, _)| brings_tokens(adapter));
    let tokens = tokens.or_else(with_tokens).or(chosen);
    [files(chosen, false), files(tokens, true)].concat()
}

/// Returns true if an adapter has rows of an embedding, which tokens of its own need.
fn brings_tokens(adapter: &StoredAdapter) -> bool {
    let modules = adapter
        .saved
        .keys()
        .filter_map(|name| name.strip_suffix(".weight"));
    let modules = modules.map(|module| module.trim_end_matches(".base_layer"));
    !adapter.config.token_indices.is_empty() || modules.into_iter().any(is_embedding)
}

/// Returns the base that all adapters were trained on, if each file has one and none contradicts another; else the
/// difference of the first two that do.
pub(super) fn bases(
    adapters: &[(&StoredAdapter, f64)],
    strict: bool,
) -> Result<(Option<BaseFingerprint>, Option<BaseDifference>), LoraError> {
    let mut known: Option<BaseFingerprint> = None;
    let mut all_say = true;
    for (adapter, _) in adapters {
        let Some(base) = adapter.base()? else {
            all_say = false;
            continue;
        };
        known = match known {
            None => Some(base),
            Some(other) => match other.joined(base) {
                Ok(joined) => Some(joined),
                Err(difference) if strict => {
                    let found = format!("an adapter {difference}");
                    return Err(refused(found, "adapters of one base model"));
                }
                Err(difference) => return Ok((None, Some(difference))),
            },
        };
    }
    Ok((known.filter(|_| all_say), None))
}
