//! What an attach did.

use crate::LoraConfig;
use crate::adapted::AdaptedModule;
use crate::adapter::AdapterSwitch;
use crate::targets::SavedParameter;
use std::fmt;

/// What [`attach`](crate::attach()) did. Saving, merging and inspecting the adapters need it.
#[derive(Clone, Debug)]
pub struct AttachReport {
    /// The configuration that was applied.
    pub config: LoraConfig,
    /// The adapted modules, in the model's order.
    pub modules: Vec<AdaptedModule>,
    /// The parameters that train whole and are saved with the adapters, such as a new head.
    pub saved: Vec<SavedParameter>,
    /// Turns these adapters on and off.
    pub switch: AdapterSwitch,
}

impl AttachReport {
    /// Number of trainable parameters of all adapters.
    pub fn parameters(&self) -> usize {
        self.modules.iter().map(AdaptedModule::parameters).sum()
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
