//! Report of an attach: [`AttachReport`].

use crate::adapter::AdapterSwitch;
use crate::config::LoraConfig;
use crate::error::{BaseDifference, LoraError};
use crate::fingerprint::BaseOutline;
use crate::layout::{AdaptedModule, SavedParameter, TokenModule};
use crate::quantize::{QuantizedModule, write_report};
use std::fmt;
use std::path::Path;

/// Report of an [`attach`](crate::attach()): the configuration, and what was adapted. Saving adapters needs it.
#[derive(Clone, Debug)]
pub struct AttachReport {
    /// Configuration that was applied.
    pub config: LoraConfig,
    /// Adapted modules, in the model's order.
    pub modules: Vec<AdaptedModule>,
    /// Fully trained parameters that are saved with the adapters, such as a new head.
    pub saved: Vec<SavedParameter>,
    /// Matrices over the vocabulary of which the rows of some tokens are trained.
    pub tokens: Vec<TokenModule>,
    /// Weights of the base that its file brings in the place of the base's own, such as embeddings with new tokens; frozen, and
    /// saved with the adapter.
    pub base_weights: Vec<SavedParameter>,
    /// Layers with weights that are quantized or in 16 bits, adapted or not.
    pub quantized: Vec<QuantizedModule>,
    /// Switch that enables and disables these adapters.
    pub switch: AdapterSwitch,
    /// Difference between the base and the one that the adapter was trained on, if its file has a fingerprint; `None` if no
    /// difference is known. Loading ignores it, [`check_base`](Self::check_base) refuses it.
    pub base_difference: Option<BaseDifference>,
    /// What was done to the base before the adapter was put on it, for people: a resized vocabulary.
    pub notes: Vec<String>,
    /// Weights over the vocabulary that the module has, the input embedding first.
    pub(crate) vocabulary: Vec<SavedParameter>,
    /// Tensors of the base, for its fingerprint.
    pub(crate) outline: BaseOutline,
}

impl AttachReport {
    /// Returns the number of trainable parameters of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdaptedModule::parameters).sum()
    }

    /// Refuses an adapter that was read from `dir` and trained on another base.
    ///
    /// # Errors
    /// [`LoraError::OtherBase`] if [`base_difference`](Self::base_difference) is known.
    pub fn check_base(&self, dir: &Path) -> Result<(), LoraError> {
        match &self.base_difference {
            None => Ok(()),
            Some(difference) => Err(LoraError::OtherBase {
                path: dir.into(),
                difference: difference.clone(),
            }),
        }
    }

    /// Returns true if nothing was adapted and no parameter is fully trained.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty() && self.saved.is_empty() && self.tokens.is_empty()
    }

    /// Returns the number of values of the trained rows.
    pub fn token_parameters(&self) -> usize {
        self.tokens.iter().map(TokenModule::elements).sum()
    }

    /// Returns the number of values of the fully trained parameters.
    pub fn saved_parameters(&self) -> usize {
        self.saved.iter().map(SavedParameter::elements).sum()
    }
}

impl fmt::Display for AttachReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .modules
            .iter()
            .map(|m| m.module.len())
            .max()
            .unwrap_or(6);
        writeln!(
            f,
            "{:width$}  {:>14}  {:>4}  {:>8}  {:>10}  {:>10}",
            "module", "shape", "rank", "scale", "path", "parameters"
        )?;
        for m in &self.modules {
            let slices = match &m.slices {
                None => String::new(),
                Some(s) => format!("  slices {:?} of {}", s.adapted, s.parts),
            };
            writeln!(
                f,
                "{:width$}  {:>14}  {:>4}  {:>8.4}  {:>10}  {:>10}{slices}",
                m.module,
                format!("[{}, {}]", m.shape[0], m.shape[1]),
                m.rank,
                m.scale,
                m.path.to_string(),
                m.parameters(),
            )?;
        }
        for saved in &self.saved {
            writeln!(
                f,
                "{:width$}  {:>14}  fully trained, saved with the adapter {:>7}",
                saved.name,
                format!("{:?}", saved.shape),
                saved.elements(),
            )?;
        }
        for tokens in &self.tokens {
            writeln!(
                f,
                "{:width$}  {:>14}  rows of {} tokens are trained {:>7}",
                tokens.module,
                format!("{:?}", tokens.shape),
                tokens.ids.len(),
                tokens.elements(),
            )?;
        }
        for weight in &self.base_weights {
            writeln!(
                f,
                "{:width$}  {:>14}  of the adapter's file in place of the base's, frozen",
                weight.name,
                format!("{:?}", weight.shape),
            )?;
        }
        write_report(f, &self.quantized)?;
        write!(
            f,
            "{} adapted modules, {} trainable parameters",
            self.modules.len(),
            self.parameters()
        )?;
        match self.saved_parameters() {
            0 => {}
            saved => write!(f, " and {saved} in fully trained parameters")?,
        }
        match self.token_parameters() {
            0 => Ok(()),
            rows => write!(f, " and {rows} in the rows of tokens"),
        }
    }
}
