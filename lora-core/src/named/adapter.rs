//! An adapter of a set, with its name and values.

use crate::adapter::{AdapterEntry, AttachedAdapters, Key};
use crate::attach::{AdapterValues, AdapterWeights, AttachReport};
use crate::error::LoraError;
use crate::file::PeftOptions;
use crate::layout::SavedParameter;
use burn::module::Param;
use burn::tensor::{Tensor, TensorData};

/// An adapter with its name.
#[derive(Debug)]
pub(super) struct NamedAdapter {
    pub name: String,
    pub key: Key,
    pub report: AttachReport,
    /// Options of its PEFT directory.
    pub options: PeftOptions,
    /// Entries, with the path of the parameter.
    pub entries: Vec<(String, AdapterEntry)>,
    /// First parameter that cannot differ between the examples of a batch, with the reason.
    pub batch_wide: Option<(String, &'static str)>,
}

impl NamedAdapter {
    fn entry(&self, path: &str) -> Option<&AdapterEntry> {
        let (_, entry) = self.entries.iter().find(|(other, _)| other == path)?;
        Some(entry)
    }

    /// Refuses an adapter that cannot be active for some examples of a batch only.
    pub fn check_per_example(&self) -> Result<(), LoraError> {
        match &self.batch_wide {
            None => Ok(()),
            Some((parameter, message)) => Err(LoraError::NotPerExample {
                adapter: self.name.clone(),
                parameter: parameter.clone(),
                message: (*message).into(),
            }),
        }
    }

    /// Returns its adapters by the path of their parameter.
    pub fn attached(&self) -> AttachedAdapters {
        let entries = || {
            self.entries
                .iter()
                .map(|(path, entry)| (path.clone(), entry))
        };
        AttachedAdapters {
            adapters: entries()
                .filter_map(|(path, entry)| Some((path, entry.factors.clone()?)))
                .collect(),
            biases: entries()
                .filter_map(|(path, entry)| Some((path, entry.bias.clone()?)))
                .collect(),
        }
    }

    /// Returns the values of a fully trained parameter, row-major.
    pub fn saved_values(&self, saved: &SavedParameter) -> Option<Vec<f32>> {
        let full = self.entry(&saved.parameter)?.full.as_ref()?;
        let data = full.val().into_data().convert::<f32>();
        data.try_to_vec().ok()
    }

    /// Returns the values of the adapter.
    pub fn weights(&self) -> AdapterWeights {
        let mut weights = AdapterWeights::default();
        for module in &self.report.modules {
            let adapter = self.entry(&module.parameter);
            let Some(adapter) = adapter.and_then(|entry| entry.factors.as_ref()) else {
                continue; // Each module of the report has an entry.
            };
            let pair = |a: &Param<Tensor<2>>, b: &Param<Tensor<2>>| {
                [a.val().into_data(), b.val().into_data()]
            };
            let bias = module
                .bias
                .as_ref()
                .and_then(|path| self.entry(path)?.bias.as_ref());
            let values = AdapterValues {
                factors: pair(&adapter.a, &adapter.b),
                start: adapter.start.as_ref().map(|start| pair(&start.a, &start.b)),
                magnitude: adapter.magnitude.as_ref().map(|m| m.val().into_data()),
                bias: bias.map(|bias| bias.value.val().into_data()),
            };
            weights.adapters.insert(module.parameter.clone(), values);
        }
        for saved in &self.report.saved {
            if let Some(values) = self.saved_values(saved) {
                let data = TensorData::new(values, saved.shape.clone());
                weights.saved.insert(saved.parameter.clone(), data);
            }
        }
        weights
    }
}
