//! Whether a merged model, as it was written, says what the base with its adapter says.

use super::open::{Base, Opens};
use super::ranges::within;
use crate::TrainError;
use crate::data::{Lines, is_blank};
use crate::host;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use clap::Args;
use lora_core::WeightError;
use lora_models::checkpoint::ExportDType;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::path::{Path, PathBuf};

/// Most tokens of a text that is compared on: a language model has as many rows of the size of its vocabulary.
const MAX_TOKENS: usize = 64;
/// Lengths of the rows of random tokens, as parts of the longest.
const RANDOM_ROWS: [(usize, usize); 4] = [(1, 1), (3, 4), (1, 2), (1, 4)];
/// The longest row of random tokens.
const RANDOM_TOKENS: usize = 32;
/// Rows in a forward pass.
const BATCH: usize = 4;

/// Options of `lora merge` for checking what was written.
#[derive(Args, Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Compare the written model with the base and its adapter before it is put into its place: by their logits on some rows of tokens, and by each merged weight.
    #[arg(long)]
    pub verify: bool,
    /// Largest difference of a logit, as a share of the largest one [default: 1e-4 in f32, 1e-2 in f16, 8e-2 in bf16].
    #[arg(long, value_name = "X", requires = "verify")]
    pub tolerance: Option<f64>,
    /// Texts to compare on, one a line, a tab between those of a pair, the first 64 tokens of each [default: random tokens].
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub verify_data: Option<PathBuf>,
}

impl VerifyOptions {
    /// The tolerance that is asked for, or the one for an element type.
    ///
    /// In f32 nothing is rounded but sums in another order: a few units of 2⁻²⁴ a layer are seen, and 10⁻⁴ is what no
    /// honest merge comes near. In f16 and bf16 each weight is off by at most a unit roundoff, 2⁻¹¹ or 2⁻⁸; such errors
    /// add up like the root of the number of layers in a row, and twenty of them are allowed.
    ///
    /// # Errors
    /// [`TrainError::Config`] if it is no number from 0 on.
    pub fn tolerance(&self, dtype: ExportDType) -> Result<f64, TrainError> {
        let standard = match dtype {
            ExportDType::F32 => 1e-4,
            ExportDType::F16 => 1e-2,
            ExportDType::BF16 => 8e-2,
        };
        let tolerance = self.tolerance.unwrap_or(standard);
        within(
            "tolerance",
            tolerance,
            tolerance.is_finite() && tolerance >= 0.0,
            "a number of at least 0",
        )
    }

    /// The rows to compare on.
    ///
    /// # Errors
    /// If the file cannot be read or holds no text.
    pub fn probe(&self, base: &Base, seed: u64) -> Result<Probe, TrainError> {
        match &self.verify_data {
            Some(path) => Probe::of_texts(base, path),
            None => Ok(Probe::random(base, seed)),
        }
    }
}

/// Rows of tokens that two models are compared on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    rows: Vec<Row>,
    pad_id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    ids: Vec<u32>,
    /// Which text of a pair each token is of.
    type_ids: Vec<u32>,
}

impl Probe {
    /// Rows of different lengths, of tokens that a seed draws from all that the model knows.
    pub fn random(base: &Base, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (vocabulary, pad_id) = (base.traits.vocab_size as u32, base.pad_id());
        let longest = base.traits.max_length.clamp(1, RANDOM_TOKENS);
        let mut token = || loop {
            let token = rng.random_range(0..vocabulary);
            // Padding in a text is no text; some models count positions without it.
            if token != pad_id || vocabulary == 1 {
                return token;
            }
        };
        let rows = RANDOM_ROWS.iter().map(|(part, of)| {
            let length = (longest * part / of).max(1);
            Row {
                ids: (0..length).map(|_| token()).collect(),
                type_ids: vec![0; length],
            }
        });
        Self {
            rows: rows.collect(),
            pad_id,
        }
    }

    /// The lines of a file that are not blank; a tab separates the texts of a pair.
    ///
    /// # Errors
    /// If it cannot be read or holds no text.
    pub fn of_texts(base: &Base, path: &Path) -> Result<Self, TrainError> {
        let longest = base.traits.max_length.clamp(1, MAX_TOKENS);
        let mut lines = Lines::open(path)?;
        let mut rows = Vec::new();
        while let Some((line, _)) = lines.next_line()? {
            if is_blank(line) {
                continue;
            }
            let (first, second) = match line.split_once('\t') {
                Some((first, second)) => (first, Some(second)),
                None => (line, None),
            };
            let row = base.tokenizer.encode_inputs(first, second, Some(longest))?;
            if !row.ids.is_empty() {
                rows.push(Row {
                    ids: row.ids,
                    type_ids: row.type_ids,
                });
            }
        }
        match rows.is_empty() {
            true => Err(TrainError::data_empty(
                path,
                "there is no text in it to compare on",
            )),
            false => Ok(Self {
                rows,
                pad_id: base.pad_id(),
            }),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What a model says of some rows: the outputs that are not of padding.
    fn outputs<M: Opens>(
        &self,
        model: &M,
        rows: &[Row],
        device: &Device,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let shape = [rows.len(), longest];
        let padded = |of: &dyn Fn(&Row, usize) -> i64| {
            let cells = rows.iter();
            let cells = cells.flat_map(|row| (0..longest).map(|at| of(row, at)));
            TensorData::new(cells.collect::<Vec<i64>>(), shape)
        };
        let at = |values: &[u32], at: usize, other: u32| {
            i64::from(values.get(at).copied().unwrap_or(other))
        };
        let ids = padded(&|row, place| at(&row.ids, place, self.pad_id));
        let type_ids = padded(&|row, place| at(&row.type_ids, place, 0));
        let real: Vec<bool> = rows
            .iter()
            .flat_map(|row| (0..longest).map(|place| place < row.ids.len()))
            .collect();
        let mask = TensorData::new(real.clone(), shape);
        let outputs = model.outputs(
            Tensor::<2, Int>::from_data(ids, device),
            Tensor::<2, Bool>::from_data(mask, device),
            Tensor::<2, Int>::from_data(type_ids, device),
        );
        let [count, width] = outputs.dims();
        let of_tokens = count == real.len();
        let values = host::values(outputs)?;
        let outputs = values.chunks_exact(width).zip(0..);
        let kept = outputs.filter(|(_, at)| !of_tokens || real[*at]);
        Ok(kept.map(|(output, _)| output.to_vec()).collect())
    }
}

/// How a merged model differs from the base with its adapter.
///
/// Logits are compared without their mean where there are several, since that says nothing: what they are used for
/// depends on their differences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeCheck {
    /// The element type that was written.
    pub dtype: ExportDType,
    /// Rows that were compared on.
    pub rows: usize,
    /// Outputs of them: one a row, or one a token.
    pub outputs: usize,
    /// The largest difference of a logit; infinite where one is not finite.
    pub absolute: f64,
    /// [`absolute`](Self::absolute) over the largest logit.
    pub relative: f64,
    /// The largest value of `relative` that is allowed.
    pub tolerance: f64,
    /// Outputs whose largest logit is the same one; all where there is one logit only.
    pub agreeing: usize,
    /// Outputs whose largest logit is another one, though it was ahead by more than the tolerance.
    pub turned: usize,
    /// The merged weights, in the model's order.
    pub weights: Vec<WeightError>,
}

impl MergeCheck {
    /// Whether the models agree.
    pub fn passed(&self) -> bool {
        self.relative <= self.tolerance && self.turned == 0
    }

    /// The merged weight that is furthest from the exact sum, for its size.
    pub fn worst(&self) -> Option<&WeightError> {
        let mut weights = self.weights.iter();
        let first = weights.next()?;
        Some(weights.fold(first, |worst, weight| {
            match weight.relative > worst.relative {
                true => weight,
                false => worst,
            }
        }))
    }
}

impl fmt::Display for MergeCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "logits differ by {:.1e} at most, {:.1e} of the largest ({:.1e} allowed in {}), on {} outputs of {} rows; \
             the largest is the same in {}",
            self.absolute,
            self.relative,
            self.tolerance,
            self.dtype,
            self.outputs,
            self.rows,
            match self.outputs - self.agreeing {
                0 => "all".to_string(),
                _ => format!("{} of {}", self.agreeing, self.outputs),
            }
        )?;
        match self.worst() {
            None => Ok(()),
            Some(worst) => write!(f, "\nlargest error of a weight: {worst}"),
        }
    }
}

/// Compares what two models say of the rows of a probe.
///
/// # Errors
/// If the device fails.
pub(crate) fn compare<M: Opens>(
    adapted: &M,
    merged: &M,
    probe: &Probe,
    dtype: ExportDType,
    tolerance: f64,
    device: &Device,
) -> Result<MergeCheck, TrainError> {
    let mut differences = Differences::default();
    for rows in probe.rows.chunks(BATCH) {
        let expected = probe.outputs(adapted, rows, device)?;
        let found = probe.outputs(merged, rows, device)?;
        for (expected, found) in expected.iter().zip(&found) {
            differences.add(expected, found);
        }
    }
    Ok(differences.check(probe.len(), dtype, tolerance))
}

/// What is known of the outputs that were compared.
#[derive(Default)]
struct Differences {
    largest: f64,
    size: f64,
    /// By how much the largest logit was ahead, and whether it still is, one an output.
    leads: Vec<(f64, bool)>,
}

impl Differences {
    fn add(&mut self, expected: &[f32], found: &[f32]) {
        let (expected, found) = (centred(expected), centred(found));
        for (expected, found) in expected.iter().zip(&found) {
            let difference = (expected - found).abs();
            // Comparisons pass over what is not a number.
            let difference = if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            };
            self.largest = self.largest.max(difference);
            self.size = self.size.max(expected.abs());
        }
        let (first, lead) = leader(&expected);
        self.leads.push((lead, leader(&found).0 == first));
    }

    fn check(&self, rows: usize, dtype: ExportDType, tolerance: f64) -> MergeCheck {
        let relative = match self.largest {
            0.0 => 0.0,
            largest => largest / self.size,
        };
        let ahead = tolerance * self.size;
        let turned = self
            .leads
            .iter()
            .filter(|(lead, same)| !same && *lead > ahead);
        MergeCheck {
            dtype,
            rows,
            outputs: self.leads.len(),
            absolute: self.largest,
            relative,
            tolerance,
            agreeing: self.leads.iter().filter(|(_, same)| *same).count(),
            turned: turned.count(),
            weights: Vec::new(),
        }
    }
}

/// Less their mean, where there are several.
fn centred(logits: &[f32]) -> Vec<f64> {
    let mean = match logits.len() {
        0 | 1 => 0.0,
        count => logits.iter().map(|&l| f64::from(l)).sum::<f64>() / count as f64,
    };
    logits
        .iter()
        .map(|&logit| f64::from(logit) - mean)
        .collect()
}

/// Which is the largest, and by how much.
fn leader(logits: &[f64]) -> (usize, f64) {
    let (mut at, mut first, mut second) = (0, f64::NEG_INFINITY, f64::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit > first {
            (at, second, first) = (index, first, logit);
        } else if logit > second {
            second = logit;
        }
    }
    (at, first - second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&[f32], &[f32])], tolerance: f64) -> MergeCheck {
        let mut differences = Differences::default();
        for (expected, found) in pairs {
            differences.add(expected, found);
        }
        differences.check(1, ExportDType::F32, tolerance)
    }

    #[test]
    fn a_constant_added_to_all_logits_is_no_difference() {
        let same = check(&[(&[1.0, 3.0, -1.0], &[11.0, 13.0, 9.0])], 1e-6);
        assert_eq!((same.absolute, same.agreeing), (0.0, 1));
        assert!(same.passed());
        let one = check(&[(&[2.0], &[3.0])], 0.1);
        assert_eq!((one.relative, one.agreeing), (0.5, 1));
        assert!(!one.passed());
    }

    #[test]
    fn an_output_that_turns_is_refused_where_it_was_clear() {
        // A tenth of 7.5 or 7 is allowed: a lead of 1 is clear, one of 0.5 is not.
        let clear = check(
            &[
                (&[4.0, 3.0, -7.0], &[3.4, 3.6, -7.0]),
                (&[7.0, -7.0], &[7.0, -7.0]),
            ],
            0.1,
        );
        assert_eq!((clear.agreeing, clear.turned), (1, 1));
        assert!(clear.relative < 0.1 && !clear.passed(), "{clear}");
        let close = check(
            &[
                (&[4.0, 3.5, -7.5], &[3.6, 3.9, -7.5]),
                (&[7.0, -7.0], &[7.0, -7.0]),
            ],
            0.1,
        );
        assert_eq!((close.agreeing, close.turned), (1, 0));
        assert!(close.passed());
    }

    #[test]
    fn what_is_not_a_number_never_passes() {
        for (expected, found) in [
            (1.0, f32::NAN),
            (f32::NAN, 1.0),
            (f32::INFINITY, f32::INFINITY),
        ] {
            let check = check(&[(&[expected, 0.0], &[found, 0.0])], 1e9);
            assert!(!check.passed(), "{check}");
        }
    }
}
