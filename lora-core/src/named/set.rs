//! What all adapters of a set do to one parameter.

use super::acting::{Acting, Handle, Key, Rows};
use super::change::Change;
use crate::LowRankAdapter;
use crate::bare::is_bare;
use crate::packed::PackedWeight;
use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the adapters of a set do to one parameter. It lives on the parameter, as [`LowRankAdapter`] does.
#[derive(Module, Debug)]
pub(crate) struct AdapterSet {
    changes: Vec<Change>,
    /// The parameter, where it is kept in few bits: it holds a placeholder then.
    packed: Option<PackedWeight>,
    /// Tells it from those of other parameters, whose ids clones of a layer may share.
    #[module(skip)]
    pub(super) id: usize,
    #[module(skip)]
    handle: Handle,
}

impl AdapterSet {
    /// That of a parameter.
    pub fn of<const D: usize>(param: &Param<Tensor<D>>) -> Option<&Self> {
        param.reparameterization::<Self>()
    }

    /// What an adapter does here; most do nothing to most parameters.
    pub fn change(&self, key: Key) -> Option<&Change> {
        self.changes.iter().find(|change| change.key == key)
    }

    /// The adapters of the batch, where each example has its own.
    pub(super) fn rows(&self) -> Option<Arc<Rows>> {
        match self.handle.acting() {
            Acting::Each(rows) if !is_bare() => Some(rows),
            _ => None,
        }
    }

    fn acting(&self) -> Option<&Change> {
        match self.handle.acting() {
            Acting::One(Some(key)) if !is_bare() => self.change(key),
            _ => None,
        }
    }
}

impl Reparameterization for AdapterSet {
    const NAME: &'static str = "adapters";

    /// The parameter under the adapter that acts, or the base itself.
    ///
    /// # Panics
    /// If the examples of a batch have different adapters and one of them changes this parameter: it has no one value
    /// then. The set refuses such a batch, so this is for a weight that is read past its layer.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if let Some(rows) = self.rows() {
            let mut adapters = rows.adapters.iter();
            assert!(
                adapters.all(|key| self.change(*key).is_none()),
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
        match self.acting() {
            None => base,
            Some(change) => change.apply(base),
        }
    }
}

/// The low-rank adapter that acts on a weight: the one on it, or the active one of its set.
pub(crate) fn acting_adapter(weight: &Param<Tensor<2>>) -> Option<&LowRankAdapter> {
    let adapter = match weight.reparameterization::<LowRankAdapter>() {
        Some(adapter) => adapter,
        None => AdapterSet::of(weight)?.acting()?.factors.as_ref()?,
    };
    adapter.is_enabled().then_some(adapter)
}

/// Whether a set is on a weight.
pub(crate) fn is_on(weight: &Param<Tensor<2>>) -> bool {
    AdapterSet::of(weight).is_some()
}

/// The packed weight that is on a parameter by itself, or in its set.
pub(crate) fn packed_weight(weight: &Param<Tensor<2>>) -> Option<&PackedWeight> {
    match AdapterSet::of(weight) {
        Some(set) => set.packed.as_ref(),
        None => weight.reparameterization::<PackedWeight>(),
    }
}

/// A weight without the low-rank update of the adapter that acts.
pub(crate) fn without_update(weight: &Param<Tensor<2>>) -> Tensor<2> {
    match AdapterSet::of(weight).and_then(AdapterSet::acting) {
        None => weight.base(),
        Some(change) => change.whole_or(weight.base()),
    }
}

/// Puts the adapters of a set on a module.
pub(super) struct PutSet {
    /// What they do, by the path of the parameter.
    pub changes: HashMap<String, Vec<Change>>,
    pub handle: Handle,
    /// The packed weights of those that get adapters.
    pub packed: BTreeMap<String, PackedWeight>,
}

impl Reparameterizer for PutSet {
    type Reparam = AdapterSet;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<AdapterSet>) {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        let set = self.changes.remove(path).map(|changes| AdapterSet {
            changes,
            packed: self.packed.remove(path),
            id: IDS.fetch_add(1, Ordering::Relaxed),
            handle: self.handle.clone(),
        });
        (param, set)
    }
}
