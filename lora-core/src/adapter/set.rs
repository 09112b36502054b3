//! Several adapters on one parameter: [`AdapterSet`].

use super::entry::AdapterEntry;
use super::scope::{ActiveAdapter, BatchRows, Key, Selection};
use crate::bare::is_bare;
use crate::quantize::PackedWeight;
use burn::module::{Module, Param, Reparameterization};
use burn::tensor::Tensor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Several adapters on one parameter, one of them active. It lives on the parameter, as
/// [`LowRankAdapter`](super::LowRankAdapter) does.
#[derive(Module, Debug)]
pub(crate) struct AdapterSet {
    entries: Vec<AdapterEntry>,
    /// Packed weight, if there is one: the parameter then holds a placeholder.
    packed: Option<PackedWeight>,
    /// Unique number: the ids of parameters may be shared by clones of a layer.
    #[module(skip)]
    pub(super) id: usize,
    #[module(skip)]
    selected: ActiveAdapter,
}

impl AdapterSet {
    /// Joins the entries of a parameter, with its packed weight.
    pub fn new(
        entries: Vec<AdapterEntry>,
        packed: Option<PackedWeight>,
        selected: ActiveAdapter,
    ) -> Self {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        Self {
            entries,
            packed,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            selected,
        }
    }

    /// Returns the set on a parameter.
    pub fn on<const D: usize>(param: &Param<Tensor<D>>) -> Option<&Self> {
        param.reparameterization::<Self>()
    }

    /// Returns the entry of an adapter; most adapters have none on most parameters.
    pub fn entry(&self, key: Key) -> Option<&AdapterEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Returns the packed weight.
    pub fn packed(&self) -> Option<&PackedWeight> {
        self.packed.as_ref()
    }

    /// Returns the adapters of the batch, if each example has its own.
    pub fn rows(&self) -> Option<Arc<BatchRows>> {
        match self.selected.selection() {
            Selection::PerExample(rows) if !is_bare() => Some(rows),
            _ => None,
        }
    }

    /// Returns the entry of the active adapter.
    pub fn active(&self) -> Option<&AdapterEntry> {
        match self.selected.selection() {
            Selection::One(Some(key)) if !is_bare() => self.entry(key),
            _ => None,
        }
    }
}

impl Reparameterization for AdapterSet {
    const NAME: &'static str = "adapters";

    /// Returns the parameter with the active adapter, or the base itself.
    ///
    /// # Panics
    /// If the examples of a batch have different adapters and one of them changes this parameter, which then has no single
    /// value. Assigning adapters refuses such a batch, so that this happens only to a weight that is read past its layer.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if let Some(rows) = self.rows() {
            let mut adapters = rows.adapters.iter();
            assert!(
                adapters.all(|key| self.entry(*key).is_none()),
                "a parameter of shape {:?} is read past its layer, where each example has an adapter of its own",
                base.dims()
            );
        }
        if is_bare() {
            return base;
        }
        let base = match &self.packed {
            None => base,
            Some(packed) => packed.dequantize().reshape(base.shape()),
        };
        match self.active() {
            None => base,
            Some(entry) => entry.apply(base),
        }
    }
}
