//! An adapter for each example of a batch.

use super::NamedAdapters;
use super::acting::{Acting, Handle, Rows};
use crate::LoraError;
use burn::module::Module;
use std::sync::Arc;

/// The adapters of the examples of a batch, checked and ready.
///
/// Kept over several passes, as in a generation, it keeps what the adapters are side by side.
#[derive(Clone, Debug)]
pub struct BatchAdapters {
    handle: Handle,
    rows: Arc<Rows>,
}

impl BatchAdapters {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.rows.of.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.rows.of.is_empty()
    }

    /// The adapters of these examples, in this order; one may be named more than once.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn select(&self, examples: &[usize]) -> Self {
        Self {
            handle: self.handle.clone(),
            rows: Arc::new(self.rows.select(examples)),
        }
    }

    /// Runs `work`, in which each example has its own adapter on this thread, whatever is active. A batch whose examples
    /// all have the same one takes the way that it takes when it is active.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let first = self.rows.of.first().copied().flatten();
        let acting = match self.rows.of.iter().all(|adapter| *adapter == first) {
            true => Acting::One(first.map(|place| self.rows.adapters[place])),
            false => Acting::Each(self.rows.clone()),
        };
        self.handle.within(acting, work)
    }
}

impl<M: Module> NamedAdapters<M> {
    /// Gives each example of a batch its adapter, by name; `None` is the base alone.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; [`LoraError::NotPerExample`] if they differ and one of them changes a parameter that
    /// the layers of this crate do not read.
    pub fn assign(&self, names: &[Option<&str>]) -> Result<BatchAdapters, LoraError> {
        let mut adapters = Vec::new();
        let mut of = Vec::with_capacity(names.len());
        for name in names {
            let key = match name {
                None => None,
                Some(name) => Some(self.get(name)?.key),
            };
            of.push(key.map(|key| {
                let place = adapters.iter().position(|other| *other == key);
                place.unwrap_or_else(|| {
                    adapters.push(key);
                    adapters.len() - 1
                })
            }));
        }
        if of.iter().any(|adapter| *adapter != of[0]) {
            let mut occur = self.named().iter();
            occur.try_for_each(|named| match adapters.contains(&named.key) {
                true => self.check_mixable(named),
                false => Ok(()),
            })?;
        }
        Ok(BatchAdapters {
            handle: self.handle().clone(),
            rows: Arc::new(Rows {
                adapters: Arc::new(adapters),
                of,
                groups: Arc::default(),
            }),
        })
    }

    /// Computes a batch in which each example has its own adapter, by name; `None` is the base alone.
    ///
    /// The examples are the first axis of what `work` gives the model. All of them are computed together: beside the
    /// base's there are two products a layer, whatever adapters occur and whatever their ranks are. Where `work` picks
    /// rows of the batch it says so with [`in_rows`](super::in_rows).
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`]; [`LoraError::NotPerExample`] if the adapters differ and one of them changes a
    /// parameter that the layers of this crate do not read, such as a layer norm that trained whole.
    pub fn per_example<T>(
        &self,
        names: &[Option<&str>],
        work: impl FnOnce(&M) -> T,
    ) -> Result<T, LoraError> {
        Ok(self.assign(names)?.run(|| work(self.model())))
    }
}
