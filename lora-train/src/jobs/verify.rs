//! Comparison of a written, merged model with the base and its adapter.

use super::ranges::within;
use super::session::Base;
use crate::TrainError;
use crate::data::{Example, Lines, Origin, Target, collate};
use crate::host;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use clap::Args;
use lora_core::WeightError;
use lora_models::Pretrained;
use lora_models::checkpoint::ExportDType;
use lora_models::formats::gguf::ElementType;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::path::{Path, PathBuf};

/// Maximum number of tokens of a text: a language model has a row of logits for each.
const MAX_TOKENS: usize = 64;
/// Lengths of the rows of random tokens, as fractions of the longest.
const RANDOM_ROWS: [(usize, usize); 4] = [(1, 1), (3, 4), (1, 2), (1, 4)];
/// Length of the longest row of random tokens.
const RANDOM_TOKENS: usize = 32;
/// Number of rows in a forward pass.
const BATCH: usize = 4;

/// Options of `lora merge` for checking the written model.
#[derive(Args, Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Compare the written model with the base and its adapter before it appears under its name: by the logits of some rows of tokens, and by each merged weight.
    #[arg(long)]
    pub verify: bool,
    /// Maximum difference of a logit, as a fraction of the largest one [default: 1e-4 in f32, 1e-2 in f16, 8e-2 in bf16 and `q8_0`].
    #[arg(long, value_name = "X", requires = "verify")]
    pub tolerance: Option<f64>,
    /// Texts for the comparison, one per line, with a tab between the texts of a pair; the first 64 tokens of each count [default: random tokens].
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub verify_data: Option<PathBuf>,
}

impl VerifyOptions {
    /// Returns the tolerance of the options, or the default of an element type.
    ///
    /// In f32 only the order of sums differs: a few units of 2⁻²⁴ per layer occur, and no correct merge comes near 10⁻⁴. In
    /// f16 and bf16 each weight is off by at most a unit roundoff, 2⁻¹¹ or 2⁻⁸; the errors of consecutive layers add up
    /// like the square root of their number, and twenty roundoffs are allowed.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a negative tolerance or one that is not a number.
    pub fn tolerance(&self, dtype: ElementType) -> Result<f64, TrainError> {
        let standard = match dtype {
            ElementType::Float(ExportDType::F32) => 1e-4,
            ElementType::Float(ExportDType::F16) => 1e-2,
            // The largest value of a block of integers is off by 2⁻⁸ of itself, as one in bf16, and the others by less.
            ElementType::Float(ExportDType::BF16) | ElementType::Q8_0 => 8e-2,
        };
        let tolerance = self.tolerance.unwrap_or(standard);
        let range = 0.0..=f64::MAX;
        within("tolerance", tolerance, range, "a number of at least 0")
    }

    /// Returns the rows of the comparison.
    ///
    /// # Errors
    /// If the file cannot be read or has no text.
    pub fn probe(&self, base: &Base, seed: u64) -> Result<Probe, TrainError> {
        match &self.verify_data {
            Some(path) => Probe::from_texts(base, path),
            None => Ok(Probe::random(base, seed)),
        }
    }
}

/// Rows of tokens on which two models are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    rows: Vec<Example>,
    pad_id: u32,
}

impl Probe {
    /// Draws rows of random tokens, of different lengths.
    pub fn random(base: &Base, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (vocabulary, pad_id) = (base.info.vocab_size as u32, base.pad_id());
        let longest = base.info.max_length.clamp(1, RANDOM_TOKENS);
        let mut token = || loop {
            let token = rng.random_range(0..vocabulary);
            // Padding inside a text shifts the positions of some models.
            if token != pad_id || vocabulary == 1 {
                return token;
            }
        };
        let rows = RANDOM_ROWS.iter().zip(1..).map(|((part, of), row)| {
            let length = (longest * part / of).max(1);
            let tokens = (0..length).map(|_| token()).collect();
            let origin = Origin::new(Path::new("random tokens"), row);
            Example::with_target(row, tokens, Target::Unknown, origin)
        });
        Self {
            rows: rows.collect(),
            pad_id,
        }
    }

    /// Reads the nonblank lines of a file; a tab separates the texts of a pair.
    ///
    /// # Errors
    /// If the file cannot be read or has no text.
    pub fn from_texts(base: &Base, path: &Path) -> Result<Self, TrainError> {
        let longest = base.info.max_length.clamp(1, MAX_TOKENS);
        let mut lines = Lines::open(path)?;
        let mut rows = Vec::new();
        while let Some((line, origin)) = lines.next_text()? {
            let (first, second) = match line.split_once('\t') {
                Some((first, second)) => (first, Some(second)),
                None => (line.as_str(), None),
            };
            let row = base.tokenizer.encode_inputs(first, second, Some(longest))?;
            if !row.ids.is_empty() {
                let example = Example::with_target(rows.len(), row.ids, Target::Unknown, origin);
                rows.push(example.with_type_ids(row.type_ids));
            }
        }
        if rows.is_empty() {
            let message = "it has no text to compare on";
            return Err(TrainError::data_empty(path, message));
        }
        Ok(Self {
            rows,
            pad_id: base.pad_id(),
        })
    }

    /// Computes the outputs of a model for some rows, without those at padding.
    fn outputs<M: Pretrained>(
        &self,
        model: &M,
        rows: &[Example],
        device: &Device,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut batch = collate(&rows.iter().collect::<Vec<_>>(), self.pad_id);
        batch.type_ids.resize(batch.input_ids.len(), 0);
        let shape = [batch.batch, batch.seq];
        let integers = |values| Tensor::from_data(TensorData::new::<i64, _>(values, shape), device);
        let real = batch.attention_mask.clone();
        let mask = TensorData::new(batch.attention_mask, shape);
        let outputs = model.outputs(
            integers(batch.input_ids),
            Tensor::<2, Bool>::from_data(mask, device),
            integers(batch.type_ids),
        );
        let [count, width] = outputs.dims();
        let per_token = count == real.len();
        let values = host::values(outputs)?;
        let outputs = values.chunks_exact(width).zip(0..);
        let kept = outputs.filter(|(_, at)| !per_token || real[*at]);
        Ok(kept.map(|(output, _)| output.to_vec()).collect())
    }
}

/// Differences between a merged model and the base with its adapter.
///
/// Logits are compared after subtraction of their mean, if there are several: only their differences matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeCheck {
    /// Element type of the written weights.
    pub dtype: ElementType,
    /// Number of compared rows.
    pub rows: usize,
    /// Number of compared outputs: one per row, or one per token.
    pub outputs: usize,
    /// Maximum difference of a logit; infinite if a logit is not finite.
    pub absolute: f64,
    /// Maximum difference divided by the largest logit.
    pub relative: f64,
    /// Maximum of `relative` that passes.
    pub tolerance: f64,
    /// Number of outputs with the same largest logit in both models; all outputs if they have one logit.
    pub agreeing: usize,
    /// Number of outputs with another largest logit, although its lead exceeded the tolerance.
    pub turned: usize,
    /// Errors of the merged weights, in the model's order.
    pub weights: Vec<WeightError>,
}

impl MergeCheck {
    /// Returns true if the models agree: in their outputs, and in each weight that the adapter changes, which no output may have
    /// used.
    pub fn passed(&self) -> bool {
        let mut weights = self.weights.iter();
        self.relative <= self.tolerance
            && self.turned == 0
            && weights.all(|weight| weight.relative <= self.tolerance)
    }

    /// Returns the merged weight with the largest relative error.
    pub fn worst(&self) -> Option<&WeightError> {
        self.weights.iter().reduce(|worst, weight| {
            if weight.relative > worst.relative {
                weight
            } else {
                worst
            }
        })
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

/// Compares the outputs of two models on the rows of a probe.
///
/// # Errors
/// If the device fails.
pub(crate) fn compare<M: Pretrained>(
    adapted: &M,
    merged: &M,
    probe: &Probe,
    dtype: ElementType,
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
    Ok(differences.check(probe.rows.len(), dtype, tolerance))
}

/// Differences of the outputs compared so far.
#[derive(Default)]
struct Differences {
    largest: f64,
    size: f64,
    /// For each output, the lead of the largest logit and true if it is the largest in both models.
    leads: Vec<(f64, bool)>,
}

impl Differences {
    fn add(&mut self, expected: &[f32], found: &[f32]) {
        let (expected, found) = (centered(expected), centered(found));
        for (expected, found) in expected.iter().zip(&found) {
            let difference = (expected - found).abs();
            // `max` ignores NaN.
            let difference = Some(difference).filter(|difference| !difference.is_nan());
            self.largest = self.largest.max(difference.unwrap_or(f64::INFINITY));
            self.size = self.size.max(expected.abs());
        }
        let (first, lead) = leader(&expected);
        self.leads.push((lead, leader(&found).0 == first));
    }

    fn check(&self, rows: usize, dtype: ElementType, tolerance: f64) -> MergeCheck {
        let relative = match self.largest {
            0.0 => 0.0,
            largest => largest / self.size,
        };
        let ahead = tolerance * self.size;
        let leads = self.leads.iter();
        let turned = leads.filter(|(lead, same)| !same && *lead > ahead);
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

/// Subtracts the mean, if there are several logits.
fn centered(logits: &[f32]) -> Vec<f64> {
    let mean = match logits.len() {
        0 | 1 => 0.0,
        count => logits.iter().map(|&l| f64::from(l)).sum::<f64>() / count as f64,
    };
    logits.iter().map(|&l| f64::from(l) - mean).collect()
}

/// Returns the index of the largest logit, and its lead over the second.
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
        differences.check(1, ExportDType::F32.into(), tolerance)
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
