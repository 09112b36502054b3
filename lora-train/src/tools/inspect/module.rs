//! One adapted module: norms of its factors, and whether they belong together.

use super::report::{Findings, ModuleReport};
use super::values::{Measured, elements, measure};
use lora_core::LayerKind;
use lora_core::file::{StoredFactors, StoredTensor, TensorRole};
use lora_models::checkpoint::Checkpoint;
use lora_models::formats::AdapterFormat;
use std::collections::BTreeMap;

/// Names of a module's tensors in the file, each with the kind of layer where the name says it.
pub(super) type Tensors<'a> = BTreeMap<TensorRole, (&'a str, Option<LayerKind>)>;

/// Expectations that the configuration raises of a module.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected {
    pub rank: Option<usize>,
    /// Factor that `B A` is multiplied by.
    pub scale: Option<f64>,
    /// True if the configuration requires a magnitude; `None` without a configuration.
    pub dora: Option<bool>,
    /// True if the configuration requires a bias on `B`; `None` without a configuration.
    pub lora_bias: Option<bool>,
}

/// Measures the tensors of a module.
pub(super) fn describe(
    module: &str,
    tensors: &Tensors<'_>,
    format: AdapterFormat,
    checkpoint: &Checkpoint,
    expected: Expected,
    unusual: &mut Findings,
) -> ModuleReport {
    let mut measured: BTreeMap<TensorRole, Measured> = BTreeMap::new();
    for (&role, (name, _)) in tensors {
        measured.extend(measure(checkpoint, name, unusual).map(|m| (role, m)));
    }
    let norm = |role| measured.get(&role).map(|m| m.norm);
    let is_embedding = |(_, kind): &(&str, _)| *kind == Some(LayerKind::Embedding);
    let counts = tensors.values().map(|(name, _)| elements(checkpoint, name));
    let mut report = ModuleReport {
        module: module.into(),
        kind: if tensors.values().any(is_embedding) {
            "embedding"
        } else {
            "linear"
        },
        scale: expected.scale,
        parameters: counts.sum(),
        norm_a: norm(TensorRole::A),
        norm_b: norm(TensorRole::B),
        norm_magnitude: norm(TensorRole::Magnitude),
        norm_bias: norm(TensorRole::Bias),
        ..ModuleReport::default()
    };
    let mut note = |kind, message: String| {
        unusual.add_on(kind, module, format!("`{module}`{message}"));
    };
    for (role, what) in [(TensorRole::A, "A"), (TensorRole::B, "B")] {
        if !tensors.contains_key(&role) {
            note("missing_tensor", format!(" has no `{what}`"));
        }
    }
    if let (Some(a), Some(b)) = (measured.get(&TensorRole::A), measured.get(&TensorRole::B)) {
        if !add_update(&mut report, format, a, b) {
            let (a, b) = (&a.tensor.shape, &b.tensor.shape);
            let message = format!(": the shapes of its factors, {a:?} and {b:?}, do not match");
            note("shape", message);
        }
        if let (Some(rank), Some(expected)) = (report.rank, expected.rank)
            && rank != expected
        {
            let message = format!(" has rank {rank}, but the configuration has {expected}");
            note("rank", message);
        }
        let others = [TensorRole::Magnitude, TensorRole::Bias];
        let is_active = |role| measured.get(&role).is_some_and(|m| !m.is_zero());
        let zero = match (a.is_zero(), b.is_zero()) {
            (false, false) => "",
            (true, false) => "`A` is all zero: the update is zero",
            (true, true) => "`A` and `B` are all zero: the update is zero and cannot be trained",
            (false, true) if others.into_iter().any(is_active) => {
                "`B` is all zero: only the other parts have an effect"
            }
            (false, true) => "`B` is all zero: the update is zero, as before training",
        };
        if !zero.is_empty() {
            let kind = if b.is_zero() { "zero_b" } else { "zero_a" };
            note(kind, format!(": {zero}"));
        }
    }
    let (dora, lora_bias) = (expected.dora, expected.lora_bias);
    for (role, what, key, wanted) in [
        (TensorRole::Magnitude, "magnitude", "DoRA", dora),
        (TensorRole::Bias, "bias on B", "lora_bias", lora_bias),
    ] {
        let found = tensors.contains_key(&role);
        if !found && wanted == Some(true) {
            let message = format!(" has no {what}, but the configuration enables {key}");
            note("missing_tensor", message);
        }
        if found && wanted == Some(false) {
            let message = format!(" has a {what}, but the configuration does not enable {key}");
            note("extra_tensor", message);
        }
        let shape = measured.get(&role).map(|m| &m.tensor.shape);
        if let (Some(found), Some([width, _])) = (shape, report.shape)
            && *found != [width]
        {
            let message = format!(": its {what} has shape {found:?}, expected [{width}]");
            note("shape", message);
        }
    }
    report
}

/// Adds rank, shape and norm of the update of `A` `[rank · parts, d_in]` and `B` `[d_out, rank]`; false if they do not fit
/// each other.
fn add_update(
    report: &mut ModuleReport,
    format: AdapterFormat,
    Measured {
        tensor: a,
        norm: norm_a,
    }: &Measured,
    Measured {
        tensor: b,
        norm: norm_b,
    }: &Measured,
) -> bool {
    // Without a value the other extent may be anything, and a transpose would never end.
    let is_matrix = |t: &StoredTensor| t.shape.len() == 2 && !t.values.is_empty();
    if !is_matrix(a) || !is_matrix(b) {
        return false;
    }
    let (a, b) = if format == AdapterFormat::Mlx {
        (a.transposed(), b.transposed())
    } else {
        (a.clone(), b.clone())
    };
    let (total, rank) = (a.shape[0], b.shape[1]);
    let parts = total / rank;
    let is_fused = format == AdapterFormat::Loralib && b.shape[0].is_multiple_of(parts);
    if !total.is_multiple_of(rank) || (parts > 1 && !is_fused) {
        return false;
    }
    report.rank = Some(rank);
    report.shape = Some([b.shape[0], a.shape[1]]);
    report.parts = (parts > 1).then_some(parts);
    if norm_a.is_finite() && norm_b.is_finite() {
        let block = |tensor: &StoredTensor, part: usize| {
            let shape = [tensor.shape[0] / parts, tensor.shape[1]];
            let values = shape[0] * shape[1];
            StoredTensor::new(shape, tensor.values[part * values..][..values].to_vec())
        };
        let squared = |part: usize| {
            let factors = StoredFactors {
                kind: LayerKind::Linear,
                a: block(&a, part),
                b: block(&b, part),
                scale: report.scale.unwrap_or(1.0),
                magnitude: None,
                bias: None,
            };
            factors.update_norm().powi(2)
        };
        // Parts of a fused projection lie beside each other: their squares add up.
        report.norm_update = Some((0..parts).map(squared).sum::<f64>().sqrt());
    }
    true
}
