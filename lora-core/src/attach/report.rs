//! What an attach did.

use crate::adapted::AdaptedModule;
use crate::adapter::AdapterSwitch;
use crate::fingerprint::{BaseDifference, BaseOutline};
use crate::quantize::write_report;
use crate::targets::SavedParameter;
use crate::{LoraConfig, LoraError, QuantizedModule};
use std::fmt;
use std::path::Path;

/// What [`attach`](crate::attach()) did. Saving, merging and inspecting the adapters need it.
#[derive(Clone, Debug)]
pub struct AttachReport {
    /// The configuration that was applied.
    pub config: LoraConfig,
    /// The adapted modules, in the model's order.
    pub modules: Vec<AdaptedModule>,
    /// The parameters that train whole and are saved with the adapters, such as a new head.
    pub saved: Vec<SavedParameter>,
    /// The layers whose weights are quantised, with an adapter or without.
    pub quantized: Vec<QuantizedModule>,
    /// Turns these adapters on and off.
    pub switch: AdapterSwitch,
    /// How the base differs from the one that the adapter was trained on, where it was read from a file that says
    /// so; `None` where nothing is known to differ. Computing goes on; [`check_base`](Self::check_base) refuses.
    pub base_difference: Option<BaseDifference>,
    /// The tensors of the base, for what is written of it.
    pub(crate) outline: BaseOutline,
}

impl AttachReport {
    /// Number of trainable parameters of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdaptedModule::parameters).sum()
    }

    /// Refuses an adapter that was read from `dir` and is of another base.
    ///
    /// # Errors
    /// [`LoraError::OtherBase`] where [`base_difference`](Self::base_difference) is one.
    pub fn check_base(&self, dir: &Path) -> Result<(), LoraError> {
        match &self.base_difference {
            None => Ok(()),
            Some(difference) => Err(LoraError::OtherBase {
                path: dir.into(),
                difference: difference.clone(),
            }),
        }
    }

    /// Whether nothing was adapted, and nothing trains whole.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty() && self.saved.is_empty()
    }

    /// Number of parameters that train whole, beside the adapters.
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
                "{:width$}  {:>14}  trains whole, saved with the adapter  {:>7}",
                saved.name,
                format!("{:?}", saved.shape),
                saved.elements(),
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
            0 => Ok(()),
            saved => write!(f, " and {saved} that train whole"),
        }
    }
}
