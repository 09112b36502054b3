//! An adapter for each example of a batch.

use super::adapter::NamedAdapter;
use super::adapters::NamedAdapters;
use crate::adapter::{ActiveAdapter, BatchRows, Selection};
use crate::error::LoraError;
use burn::module::Module;
use std::sync::Arc;

/// The adapters of the examples of a batch.
///
/// It caches the concatenated adapters: keep it for several forward passes, as in a generation.
#[derive(Clone, Debug)]
pub struct BatchAdapters {
    selected: ActiveAdapter,
    rows: Arc<BatchRows>,
}

impl BatchAdapters {
    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.rows.indices.len()
    }

    /// Returns true if there is no example.
    pub fn is_empty(&self) -> bool {
        self.rows.indices.is_empty()
    }

    /// Returns the adapters of these examples, in this order; an example may occur more than once.
    ///
    /// # Panics
    /// If an index is outside the batch.
    pub fn select(&self, examples: &[usize]) -> Self {
        Self {
            selected: self.selected.clone(),
            rows: Arc::new(self.rows.select(examples)),
        }
    }

    /// Runs `work` with an adapter for each example on this thread, whatever is active. If all examples have the same adapter,
    /// the computation is that of the active adapter.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let first = self.rows.indices.first().copied().flatten();
        let selection = if self.rows.indices.iter().all(|adapter| *adapter == first) {
            Selection::One(first.map(|index| self.rows.adapters[index]))
        } else {
            Selection::PerExample(self.rows.clone())
        };
        self.selected.within(selection, work)
    }
}

impl<M: Module> NamedAdapters<M> {
    /// Assigns an adapter to each example of a batch, by name; `None` for the base alone.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; [`LoraError::NotPerExample`] if the adapters differ and one of them changes a parameter
    /// that the layers of this crate do not read.
    pub fn assign(&self, names: &[Option<&str>]) -> Result<BatchAdapters, LoraError> {
        let mut adapters = Vec::new();
        let mut indices = Vec::with_capacity(names.len());
        for name in names {
            let key = match name {
                None => None,
                Some(name) => Some(self.get(name)?.key),
            };
            indices.push(key.map(|key| {
                let index = adapters.iter().position(|other| *other == key);
                index.unwrap_or_else(|| {
                    adapters.push(key);
                    adapters.len() - 1
                })
            }));
        }
        if indices.iter().any(|adapter| *adapter != indices[0]) {
            let mut used = self.named().iter().filter(|n| adapters.contains(&n.key));
            used.try_for_each(NamedAdapter::check_per_example)?;
        }
        Ok(BatchAdapters {
            selected: self.selected().clone(),
            rows: Arc::new(BatchRows::new(adapters, indices)),
        })
    }

    /// Runs `work` on the model with an adapter for each example of a batch, by name; `None` for the base alone.
    ///
    /// The examples are the first axis of the model's input. They are computed together: each layer takes two products
    /// beside the base's, whatever the adapters and their ranks. If `work` selects
    /// rows of the batch, it has to call [`in_rows`](super::in_rows).
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; [`LoraError::NotPerExample`] if the adapters differ and one of them changes a
    /// parameter that the layers of this crate do not read, such as a fully trained layer norm.
    pub fn per_example<T>(
        &self,
        names: &[Option<&str>],
        work: impl FnOnce(&M) -> T,
    ) -> Result<T, LoraError> {
        Ok(self.assign(names)?.run(|| work(self.model())))
    }
}
