//! One adapted module: its factors measured, and held against each other.

use super::names::{Part, Place};
use super::report::{ModuleReport, Unusual};
use super::values::{Measured, measure};
use lora_core::LayerKind;
use lora_core::stored::{StoredFactors, StoredTensor};
use lora_models::checkpoint::Checkpoint;
use lora_models::formats::AdapterFormat;

/// The names of a module's tensors.
#[derive(Default)]
pub(super) struct Tensors {
    a: Option<String>,
    b: Option<String>,
    magnitude: Option<String>,
    bias: Option<String>,
    embedding: bool,
}

/// What the configuration says of a module.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected {
    pub rank: Option<usize>,
    /// What `B A` is multiplied by at a rank.
    pub scale: Option<f64>,
    pub dora: bool,
    pub lora_bias: bool,
    /// Whether all that is known is the file: what else is there is no contradiction.
    pub by_file: bool,
}

impl Tensors {
    pub fn put(&mut self, place: Place<'_>, name: &str) {
        self.embedding |= place.embedding;
        let part = match place.part {
            Part::A => &mut self.a,
            Part::B => &mut self.b,
            Part::Magnitude => &mut self.magnitude,
            Part::Bias => &mut self.bias,
        };
        *part = Some(name.to_string());
    }

    /// The rank of each part in a loralib file.
    pub fn loralib_rank(&self, checkpoint: &Checkpoint) -> Option<usize> {
        let shape = checkpoint.shape(self.b.as_deref()?)?;
        shape.get(1).copied().filter(|&rank| rank > 0)
    }

    /// Measures them.
    pub fn report(
        &self,
        module: &str,
        format: AdapterFormat,
        checkpoint: &Checkpoint,
        expected: Expected,
        unusual: &mut Vec<Unusual>,
    ) -> ModuleReport {
        let mut read = |name: &Option<String>| {
            let name = name.as_deref()?;
            measure(checkpoint, name, unusual)
        };
        let (a, b) = (read(&self.a), read(&self.b));
        let (magnitude, bias) = (read(&self.magnitude), read(&self.bias));
        let of = |m: &Option<Measured>| m.as_ref().map(|m| m.norm);
        let names = [&self.a, &self.b, &self.magnitude, &self.bias];
        let names = names.into_iter().flatten();
        let mut report = ModuleReport {
            module: module.into(),
            kind: if self.embedding {
                "embedding"
            } else {
                "linear"
            },
            scale: expected.scale,
            parameters: names
                .map(|name| super::values::elements(checkpoint, name))
                .sum(),
            norm_a: of(&a),
            norm_b: of(&b),
            norm_magnitude: of(&magnitude),
            norm_bias: of(&bias),
            ..ModuleReport::default()
        };
        self.note_missing(module, expected, unusual);
        if let (Some(a), Some(b)) = (&a, &b) {
            let kind = match self.embedding {
                true => LayerKind::Embedding,
                false => LayerKind::Linear,
            };
            match Factors::new(format, a, b) {
                Some(factors) => factors.describe(kind, expected, &mut report, unusual),
                None => unusual.push(Unusual::of(
                    "shape",
                    module,
                    format!(
                        "`{module}`: factors {:?} and {:?} do not fit each other",
                        a.tensor.shape, b.tensor.shape
                    ),
                )),
            }
            let trains = [&magnitude, &bias]
                .into_iter()
                .flatten()
                .any(|m| !m.is_zero());
            if b.is_zero() && a.is_zero() {
                let message = format!(
                    "`{module}`: `A` and `B` are all zero: it does nothing and cannot train"
                );
                unusual.push(Unusual::of("zero_b", module, message));
            } else if b.is_zero() && !trains {
                let message =
                    format!("`{module}`: `B` is all zero: it does nothing, as before training");
                unusual.push(Unusual::of("zero_b", module, message));
            } else if b.is_zero() {
                let message = format!(
                    "`{module}`: `B` is all zero: nothing but its other parts does anything"
                );
                unusual.push(Unusual::of("zero_b", module, message));
            } else if a.is_zero() {
                let message = format!("`{module}`: `A` is all zero: it does nothing");
                unusual.push(Unusual::of("zero_a", module, message));
            }
        }
        let width = report.shape.map(|[d_out, _]| d_out);
        for (what, vector) in [("magnitude", &magnitude), ("bias", &bias)] {
            let found = vector.as_ref().map(|v| v.tensor.shape.as_slice());
            if let (Some(found), Some(width)) = (found, width)
                && found != [width]
            {
                let message =
                    format!("`{module}`: its {what} has shape {found:?}, expected [{width}]");
                unusual.push(Unusual::of("shape", module, message));
            }
        }
        report
    }

    fn note_missing(&self, module: &str, expected: Expected, unusual: &mut Vec<Unusual>) {
        let parts = [("A", &self.a), ("B", &self.b)];
        for (what, _) in parts.iter().filter(|(_, tensor)| tensor.is_none()) {
            let message = format!("`{module}` has no `{what}`");
            unusual.push(Unusual::of("missing_tensor", module, message));
        }
        if expected.by_file {
            return;
        }
        for (what, key, there, asked) in [
            ("magnitude", "DoRA", self.magnitude.is_some(), expected.dora),
            (
                "bias on B",
                "lora_bias",
                self.bias.is_some(),
                expected.lora_bias,
            ),
        ] {
            let (kind, message) = match (there, asked) {
                (false, true) => (
                    "missing_tensor",
                    format!("`{module}` has no {what}, and the configuration says {key}"),
                ),
                (true, false) => (
                    "extra_tensor",
                    format!("`{module}` has a {what}, and the configuration does not say {key}"),
                ),
                _ => continue,
            };
            unusual.push(Unusual::of(kind, module, message));
        }
    }
}

/// `A` `[rank · parts, d_in]` and `B` `[d_out, rank]` that fit each other.
struct Factors {
    a: StoredTensor,
    b: StoredTensor,
    rank: usize,
    parts: usize,
    finite: bool,
}

impl Factors {
    fn new(format: AdapterFormat, a: &Measured, b: &Measured) -> Option<Self> {
        let (a_shape, b_shape) = (&a.tensor.shape, &b.tensor.shape);
        let (&[a_rows, a_columns], &[b_rows, b_columns]) = (a_shape.as_slice(), b_shape.as_slice())
        else {
            return None;
        };
        // Without a value the other extent may be anything, and turning them around would never end.
        if a.tensor.values.is_empty() || b.tensor.values.is_empty() {
            return None;
        }
        let (a_tensor, b_tensor) = match format {
            AdapterFormat::Mlx => (transposed(&a.tensor), transposed(&b.tensor)),
            _ => (a.tensor.clone(), b.tensor.clone()),
        };
        let (total, rank) = match format {
            AdapterFormat::Mlx => (a_columns, b_rows),
            _ => (a_rows, b_columns),
        };
        if rank == 0 || total == 0 || total % rank != 0 {
            return None;
        }
        let parts = total / rank;
        let fused = format == AdapterFormat::Loralib && b_tensor.shape[0].is_multiple_of(parts);
        (parts == 1 || fused).then_some(Self {
            a: a_tensor,
            b: b_tensor,
            rank,
            parts,
            finite: a.finite && b.finite,
        })
    }

    fn describe(
        self,
        kind: LayerKind,
        expected: Expected,
        report: &mut ModuleReport,
        unusual: &mut Vec<Unusual>,
    ) {
        let module = report.module.clone();
        report.rank = Some(self.rank);
        report.shape = Some([self.b.shape[0], self.a.shape[1]]);
        report.parts = (self.parts > 1).then_some(self.parts);
        if let Some(rank) = expected.rank.filter(|&rank| rank != self.rank) {
            let message = format!(
                "`{module}` has rank {}, and the configuration says {rank}",
                self.rank
            );
            unusual.push(Unusual::of("rank", module, message));
        }
        if self.finite {
            let scale = expected.scale.unwrap_or(1.0);
            report.norm_update = Some(self.update_norm(kind, scale));
        }
    }

    /// Parts of a fused projection lie beside each other: their squares add up.
    fn update_norm(&self, kind: LayerKind, scale: f64) -> f64 {
        let block = |tensor: &StoredTensor, part: usize| {
            let rows = tensor.shape[0] / self.parts;
            let values = rows * tensor.shape[1];
            let own = tensor.values[part * values..(part + 1) * values].to_vec();
            StoredTensor::new([rows, tensor.shape[1]], own)
        };
        let norm = |part: usize| {
            let factors = StoredFactors {
                kind,
                a: block(&self.a, part),
                b: block(&self.b, part),
                scale,
                magnitude: None,
                bias: None,
            };
            factors.update_norm().powi(2)
        };
        (0..self.parts).map(norm).sum::<f64>().sqrt()
    }
}

fn transposed(tensor: &StoredTensor) -> StoredTensor {
    let [rows, columns] = [tensor.shape[0], tensor.shape[1]];
    let column = |c: usize| (0..rows).map(move |r| tensor.values[r * columns + c]);
    StoredTensor::new(
        [columns, rows],
        (0..columns).flat_map(column).collect::<Vec<_>>(),
    )
}
