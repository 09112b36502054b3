//! Comparison of two adapters.

use super::report::{DiffReport, FieldDifference, ModuleDifference, TensorDifference};
use super::values::{Distance, only_in};
use crate::tools::inspect::settings;
use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor, TOKENIZER_FILES};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Compares two adapters; `same` is left false.
pub(super) fn compare(first: &StoredAdapter, second: &StoredAdapter, tolerance: f64) -> DiffReport {
    let modules = both(&first.modules, &second.modules);
    let saved = both(&first.saved, &second.saved);
    DiffReport {
        config: config(first, second),
        modules_only_in: only_in(names(&first.modules), names(&second.modules)),
        modules: modules
            .map(|(name, x, y)| module(name, x, y, tolerance))
            .collect(),
        tensors_only_in: only_in(names(&first.saved), names(&second.saved)),
        tensors: saved
            .map(|(name, x, y)| tensor(name, x, y, tolerance))
            .collect(),
        ..DiffReport::default()
    }
}

fn names<T>(parts: &BTreeMap<String, T>) -> impl Iterator<Item = &str> {
    parts.keys().map(String::as_str)
}

fn both<'a, T>(
    first: &'a BTreeMap<String, T>,
    second: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = (&'a str, &'a T, &'a T)> {
    first
        .iter()
        .filter_map(|(name, x)| Some((name.as_str(), x, second.get(name)?)))
}

/// Returns the fields that differ. Sets are compared as such: PEFT writes them in any order.
fn config(first: &StoredAdapter, second: &StoredAdapter) -> Vec<FieldDifference> {
    let (first, second) = (fields(first), fields(second));
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let values =
        |name| [&first, &second].map(|fields| fields.get(name).cloned().unwrap_or_default());
    let fields = names.into_iter().map(|name| FieldDifference {
        field: name.clone(),
        values: values(name),
    });
    fields
        .filter(|field| field.values[0] != field.values[1])
        .collect()
}

/// Returns the fields that are compared. What the modules have counts for ranks and scales, whichever way a
/// configuration says it.
fn fields(adapter: &StoredAdapter) -> BTreeMap<String, Value> {
    let (config, options) = (&adapter.config, &adapter.options);
    let mut fields: BTreeMap<String, Value> = settings(config, options).into_iter().collect();
    for by_module in ["rank", "alpha", "scale", "rank_pattern", "alpha_pattern"] {
        fields.remove(by_module);
    }
    for set in ["targets", "exclude", "modules_to_save"] {
        if let Some(Value::Array(names)) = fields.get_mut(set) {
            names.sort_by_key(Value::to_string);
            names.dedup();
        }
    }
    let modules = || adapter.modules.values();
    let more = [
        ("ranks", distinct(modules().map(|m| json!(m.rank())))),
        ("scales", distinct(modules().map(|m| json!(m.scale)))),
        ("layers_pattern", json!(config.layers_pattern)),
        ("fan_in_fan_out", json!(options.fan_in_fan_out)),
    ];
    fields.extend(more.map(|(name, value)| (name.to_string(), value)));
    let notes = adapter.metadata.iter();
    fields.extend(notes.map(|(key, note)| (format!("metadata.{key}"), json!(note))));
    let mut files = options.companions.clone();
    files.retain(|(name, _)| !TOKENIZER_FILES.contains(&name.as_str()));
    fields.extend(files.iter().map(|(name, bytes)| {
        let content = serde_json::from_slice(bytes);
        let content = content.unwrap_or_else(|_| json!(String::from_utf8_lossy(bytes)));
        (format!("file.{name}"), content)
    }));
    fields
}

/// Returns each value once, in the order of the modules.
fn distinct(values: impl Iterator<Item = Value>) -> Value {
    let mut all: Vec<Value> = Vec::new();
    for value in values {
        if !all.contains(&value) {
            all.push(value);
        }
    }
    Value::Array(all)
}

fn module(
    name: &str,
    first: &StoredFactors,
    second: &StoredFactors,
    tolerance: f64,
) -> ModuleDifference {
    let update = first.compare(second);
    let mut one_sided = Vec::new();
    let mut vector = |what: &'static str, x: &Option<StoredTensor>, y: &Option<StoredTensor>| {
        if x.is_some() != y.is_some() {
            one_sided.push(what);
        }
        Distance::between(x.as_ref()?, y.as_ref()?)
    };
    let magnitude = vector("magnitude", &first.magnitude, &second.magnitude);
    let bias = vector("bias", &first.bias, &second.bias);
    let factors = [(&first.a, &second.a), (&first.b, &second.b)];
    let mut factors = factors.into_iter().map(|(x, y)| Distance::between(x, y));
    let same_factors = (first.kind, first.scale) == (second.kind, second.scale)
        && factors.all(|distance| distance.is_some_and(|distance| distance.equal));
    let relative = update.map(|update| update.relative());
    let vectors = [&magnitude, &bias].into_iter().flatten();
    // Equal values that are not finite have no difference to tell.
    let same_update =
        same_factors || relative.is_some_and(|relative| relative <= tolerance && tolerance > 0.0);
    ModuleDifference {
        module: name.into(),
        same: same_update
            && one_sided.is_empty()
            && vectors.into_iter().all(|v| v.within(tolerance)),
        ranks: [first.rank(), second.rank()],
        scales: [first.scale, second.scale],
        shapes: [first.shape(), second.shape()],
        norms: update.map(|update| update.norms),
        relative,
        cosine: update.and_then(|update| update.cosine),
        subspace: update.and_then(|update| update.subspace),
        magnitude: magnitude.map(|distance| distance.largest),
        bias: bias.map(|distance| distance.largest),
        one_sided,
    }
}

fn tensor(
    name: &str,
    first: &StoredTensor,
    second: &StoredTensor,
    tolerance: f64,
) -> TensorDifference {
    let distance = Distance::between(first, second);
    TensorDifference {
        name: name.into(),
        same: distance.is_some_and(|distance| distance.within(tolerance)),
        shapes: [first.shape.clone(), second.shape.clone()],
        dtypes: None,
        largest: distance.map(|distance| distance.largest),
        relative: distance.map(|distance| distance.relative),
    }
}
