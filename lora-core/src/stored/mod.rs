//! Adapters as files hold them, without a model under them: what is converted, combined, compared and
//! inspected.

mod compare;
mod coverage;
mod read;
mod rename;
mod write;

pub use compare::UpdateDifference;
pub use coverage::{ModulePatterns, Unmatched, unmatched};
pub(crate) use read::companions;

use crate::config::LoraConfig;
use crate::error::LoraError;
use crate::fingerprint::{BASE_KEY, BaseFingerprint};
use crate::layout::{LayerKind, Slices};
use crate::peft::PeftOptions;
use crate::peft::tensors::{INIT_KEY, SLICES_KEY, SavedSlices, SlicesByModule};
use std::collections::BTreeMap;

/// A tensor of a file, in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

impl StoredTensor {
    /// A tensor.
    ///
    /// # Panics
    /// If there are not as many values as the shape has.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "{shape:?}");
        Self { shape, values }
    }

    /// The square root of the sum of squares.
    pub fn norm(&self) -> f64 {
        let squares = self.values.iter().map(|&value| f64::from(value).powi(2));
        squares.sum::<f64>().sqrt()
    }
}

/// The adapter of one module. Its update of the weight `[d_out, d_in]` is `scale · B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFactors {
    /// Whether it is on a linear layer or an embedding.
    pub kind: LayerKind,
    /// `[rank, d_in]`, the names of PEFT's files.
    pub a: StoredTensor,
    /// `[d_out, rank]`.
    pub b: StoredTensor,
    /// What `B A` is multiplied by.
    pub scale: f64,
    /// DoRA's magnitude, `[d_out]`.
    pub magnitude: Option<StoredTensor>,
    /// The bias on `B`, `[d_out]`.
    pub bias: Option<StoredTensor>,
}

impl StoredFactors {
    /// The rank of the update.
    pub fn rank(&self) -> usize {
        self.a.shape[0]
    }

    /// `d_out` and `d_in`.
    pub fn shape(&self) -> [usize; 2] {
        [self.b.shape[0], self.a.shape[1]]
    }

    /// Number of values.
    pub fn parameters(&self) -> usize {
        let vectors = [&self.magnitude, &self.bias];
        let vectors = vectors.into_iter().flatten().map(|v| v.values.len());
        self.a.values.len() + self.b.values.len() + vectors.sum::<usize>()
    }
}

/// An adapter as files hold it.
#[derive(Clone, Debug)]
pub struct StoredAdapter {
    /// What its configuration says. Rank, alpha and targets that are written come from `modules`.
    pub config: LoraConfig,
    /// What else PEFT keeps.
    pub options: PeftOptions,
    /// The adapters by module.
    pub modules: BTreeMap<String, StoredFactors>,
    /// Parameters that trained whole, by their name.
    pub saved: BTreeMap<String, StoredTensor>,
    /// What this crate notes in the file, where PEFT does not look.
    pub metadata: BTreeMap<String, String>,
}

impl StoredAdapter {
    /// Number of values of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.values().map(StoredFactors::parameters).sum()
    }

    /// Whether the factors are on a base from which their start was taken (PiSSA, OLoRA as PEFT saves them unless
    /// told otherwise): alone they say nothing of the update of the original base.
    pub fn needs_changed_base(&self) -> bool {
        self.config.init.is_residual() && !self.metadata.contains_key(INIT_KEY)
    }

    /// What the base that it was trained on is known by, where that is noted.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] if what the file notes of it is malformed.
    pub fn base(&self) -> Result<Option<BaseFingerprint>, LoraError> {
        BaseFingerprint::read(&self.metadata).map_err(|found| LoraError::InvalidOption {
            option: BASE_KEY,
            found,
            expected: "what this crate writes there".into(),
        })
    }

    /// The slices of the fused projections that have some.
    ///
    /// # Errors
    /// [`LoraError::InvalidOption`] if what the file notes of them is malformed.
    pub fn slices(&self) -> Result<BTreeMap<String, Slices>, LoraError> {
        let Some(text) = self.metadata.get(SLICES_KEY) else {
            return Ok(BTreeMap::new());
        };
        let malformed = |found: String| LoraError::InvalidOption {
            option: SLICES_KEY,
            found,
            expected: "the slices of each fused projection, as JSON".into(),
        };
        let saved: SlicesByModule =
            serde_json::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let mut slices = BTreeMap::new();
        for (module, factors) in &self.modules {
            let Some(saved) = saved.get(module) else {
                continue;
            };
            let of = saved.of(factors.shape()[0]);
            let of = of.ok_or_else(|| malformed(format!("slices that `{module}` cannot have")))?;
            slices.insert(module.clone(), of);
        }
        Ok(slices)
    }

    /// Notes that the factors of these modules are those of slices, so that they are read back as such.
    pub fn note_slices(&mut self, slices: impl IntoIterator<Item = (String, Slices)>) {
        let slices = slices.into_iter();
        let saved: SlicesByModule = slices
            .map(|(module, s)| (module, SavedSlices::from(&s)))
            .collect();
        if saved.is_empty() {
            return;
        }
        // A map of strings and numbers always has a JSON form.
        let text = serde_json::to_string(&saved).unwrap_or_default();
        self.metadata.insert(SLICES_KEY.into(), text);
    }

    /// Number of values that trained whole.
    pub fn saved_parameters(&self) -> usize {
        self.saved.values().map(|tensor| tensor.values.len()).sum()
    }
}
