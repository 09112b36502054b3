//! One adapted module: norms of its factors, and whether they belong together.

use super::names::Place;
use super::report::{ModuleReport, Unusual};
use super::values::{Measured, elements, measure};
use lora_core::LayerKind;
use lora_core::file::{StoredFactors, StoredTensor, TensorRole};
use lora_models::checkpoint::Checkpoint;
use lora_models::formats::AdapterFormat;
use std::collections::BTreeMap;

/// Names of a module's tensors.
#[derive(Default)]
pub(super) struct Tensors {
    names: BTreeMap<TensorRole, String>,
    embedding: bool,
}

/// Expectations that the configuration raises of a module.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected {
    pub rank: Option<usize>,
    /// Factor that `B A` is multiplied by.
    pub scale: Option<f64>,
    /// True if there is to be a magnitude; `None` if nothing but the file is known.
    pub dora: Option<bool>,
    /// True if there is to be a bias on `B`; `None` if nothing but the file is known.
    pub lora_bias: Option<bool>,
}

impl Tensors {
    pub fn put(&mut self, place: Place<'_>, name: &str) {
        self.embedding |= place.embedding;
        self.names.insert(place.role, name.to_string());
    }

    /// Returns the rank of each part in a loralib file.
    pub fn loralib_rank(&self, checkpoint: &Checkpoint) -> Option<usize> {
        let shape = checkpoint.shape(self.names.get(&TensorRole::B)?)?;
        shape.get(1).copied().filter(|&rank| rank > 0)
    }

    /// Measures the tensors.
    pub fn report(
        &self,
        module: &str,
        format: AdapterFormat,
        checkpoint: &Checkpoint,
        expected: Expected,
        unusual: &mut Vec<Unusual>,
    ) -> ModuleReport {
        let mut measured: BTreeMap<TensorRole, Measured> = BTreeMap::new();
        for (&role, name) in &self.names {
            measured.extend(measure(checkpoint, name, unusual).map(|m| (role, m)));
        }
        let norm = |role| measured.get(&role).map(|m| m.norm);
        let mut report = ModuleReport {
            module: module.into(),
            kind: if self.embedding {
                "embedding"
            } else {
                "linear"
            },
            scale: expected.scale,
            parameters: self.names.values().map(|n| elements(checkpoint, n)).sum(),
            norm_a: norm(TensorRole::A),
            norm_b: norm(TensorRole::B),
            norm_magnitude: norm(TensorRole::Magnitude),
            norm_bias: norm(TensorRole::Bias),
            ..ModuleReport::default()
        };
        let mut note = |kind, message: String| {
            unusual.push(Unusual::of(kind, module, format!("`{module}`{message}")));
        };
        self.note_missing(expected, &mut note);
        let factors = measured
            .get(&TensorRole::A)
            .zip(measured.get(&TensorRole::B));
        if let Some((a, b)) = factors {
            if let Some(factors) = Factors::new(format, &a.tensor, &b.tensor) {
                let rank = factors.rank;
                report.rank = Some(rank);
                report.shape = Some([factors.b.shape[0], factors.a.shape[1]]);
                report.parts = (factors.parts > 1).then_some(factors.parts);
                if let Some(expected) = expected.rank.filter(|&expected| expected != rank) {
                    note(
                        "rank",
                        format!(" has rank {rank}, and the configuration says {expected}"),
                    );
                }
                if a.finite && b.finite {
                    report.norm_update = Some(factors.update_norm(expected.scale.unwrap_or(1.0)));
                }
            } else {
                let (a, b) = (&a.tensor.shape, &b.tensor.shape);
                note(
                    "shape",
                    format!(": factors {a:?} and {b:?} do not fit each other"),
                );
            }
            let vectors = [TensorRole::Magnitude, TensorRole::Bias];
            let vectors = vectors.iter().filter_map(|role| measured.get(role));
            let other_parts = vectors.into_iter().any(|m| !m.is_zero());
            let zero = match (a.is_zero(), b.is_zero()) {
                (false, false) => None,
                (true, false) => Some(("zero_a", "`A` is all zero: it does nothing")),
                (true, true) => Some((
                    "zero_b",
                    "`A` and `B` are all zero: it does nothing and cannot train",
                )),
                (false, true) if other_parts => Some((
                    "zero_b",
                    "`B` is all zero: nothing but its other parts does anything",
                )),
                (false, true) => Some((
                    "zero_b",
                    "`B` is all zero: it does nothing, as before training",
                )),
            };
            if let Some((kind, message)) = zero {
                note(kind, format!(": {message}"));
            }
        }
        for (role, what) in [
            (TensorRole::Magnitude, "magnitude"),
            (TensorRole::Bias, "bias"),
        ] {
            let found = measured.get(&role).map(|m| m.tensor.shape.as_slice());
            if let (Some(found), Some([width, _])) = (found, report.shape)
                && found != [width]
            {
                note(
                    "shape",
                    format!(": its {what} has shape {found:?}, expected [{width}]"),
                );
            }
        }
        report
    }

    fn note_missing(&self, expected: Expected, note: &mut impl FnMut(&'static str, String)) {
        for (role, what) in [(TensorRole::A, "A"), (TensorRole::B, "B")] {
            if !self.names.contains_key(&role) {
                note("missing_tensor", format!(" has no `{what}`"));
            }
        }
        for (role, what, key, wanted) in [
            (TensorRole::Magnitude, "magnitude", "DoRA", expected.dora),
            (
                TensorRole::Bias,
                "bias on B",
                "lora_bias",
                expected.lora_bias,
            ),
        ] {
            match (self.names.contains_key(&role), wanted) {
                (false, Some(true)) => note(
                    "missing_tensor",
                    format!(" has no {what}, and the configuration says {key}"),
                ),
                (true, Some(false)) => note(
                    "extra_tensor",
                    format!(" has a {what}, and the configuration does not say {key}"),
                ),
                _ => {}
            }
        }
    }
}

/// `A` `[rank · parts, d_in]` and `B` `[d_out, rank]` that fit each other.
struct Factors {
    a: StoredTensor,
    b: StoredTensor,
    rank: usize,
    parts: usize,
}

impl Factors {
    fn new(format: AdapterFormat, a: &StoredTensor, b: &StoredTensor) -> Option<Self> {
        // Without a value the other extent may be anything, and a transpose would never end.
        let is_matrix = |t: &StoredTensor| t.shape.len() == 2 && !t.values.is_empty();
        if !is_matrix(a) || !is_matrix(b) {
            return None;
        }
        let (a, b) = if format == AdapterFormat::Mlx {
            (a.transposed(), b.transposed())
        } else {
            (a.clone(), b.clone())
        };
        let (total, rank) = (a.shape[0], b.shape[1]);
        if !total.is_multiple_of(rank) {
            return None;
        }
        let parts = total / rank;
        let fused = format == AdapterFormat::Loralib && b.shape[0].is_multiple_of(parts);
        (parts == 1 || fused).then_some(Self { a, b, rank, parts })
    }

    /// Returns the norm of the update. Parts of a fused projection lie beside each other: their squares add up.
    fn update_norm(&self, scale: f64) -> f64 {
        let block = |tensor: &StoredTensor, part: usize| {
            let shape = [tensor.shape[0] / self.parts, tensor.shape[1]];
            let values = shape[0] * shape[1];
            let own = &tensor.values[part * values..(part + 1) * values];
            StoredTensor::new(shape, own.to_vec())
        };
        let squared = |part: usize| {
            let factors = StoredFactors {
                kind: LayerKind::Linear,
                a: block(&self.a, part),
                b: block(&self.b, part),
                scale,
                magnitude: None,
                bias: None,
            };
            factors.update_norm().powi(2)
        };
        (0..self.parts).map(squared).sum::<f64>().sqrt()
    }
}
