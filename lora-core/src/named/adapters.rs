//! The set: a base and its adapters.

use super::acting::{Handle, Key};
use super::build::{Build, Named};
use super::change::Change;
use super::name::{check_name, nearest};
use super::set::PutSet;
use crate::adapter::AdapterSwitch;
use crate::attach::{Adapted, AdapterWeights, AttachPlan};
use crate::file::{
    self, AdapterDir, AdapterTensors, Parts, PeftOptions, StoredAdapter, WEIGHTS_FILE, read_weights,
};
use crate::modules::{self, AdapterPath, LayerKind};
use crate::quantize::{put_packed, unpacked};
use crate::targets::SavedParameter;
use crate::{Architecture, AttachReport, LoraError};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A base with several adapters, each with a name: any of them can act, or none, or another one for each example of a
/// batch ([`per_example`](Self::per_example)).
///
/// They are for use: frozen and without dropout. [`alone`](Self::alone) gives one of them to train.
///
/// # Example
/// ```
/// # #![recursion_limit = "256"]
/// use burn::tensor::{Device, Distribution, Tensor};
/// use lora_core::named::NamedAdapters;
/// use lora_core::file::PeftOptions;
/// use lora_core::{Architecture, LoraConfig, LoraInit, LoraLinearConfig, attach};
///
/// let device = Device::flex();
/// let base = LoraLinearConfig::new(6, 4).init(&device);
/// // Adapters with values, as training would leave them.
/// let trained = |rank, seed| {
///     let config = LoraConfig::new(rank).with_init(LoraInit::Random).with_seed(seed);
///     attach(base.clone(), &config)
/// };
/// let mut adapters = NamedAdapters::new(base.clone(), Architecture::default())?;
/// for (name, rank) in [("german", 2), ("french", 3)] {
///     adapters.add_attached(name, &trained(rank, rank as u64)?, &PeftOptions::default())?;
/// }
///
/// let x = Tensor::<2>::random([3, 6], Distribution::Default, &device);
/// let mixed = adapters.per_example(&[Some("french"), None, Some("german")], |model| model.forward(x.clone()))?;
/// adapters.activate("french")?;
/// let french = adapters.model().forward(x.clone().narrow(0, 0, 1));
/// adapters.disable();
/// let bare = adapters.model().forward(x.clone().narrow(0, 1, 1));
/// let close = |a: Tensor<2>, b: Tensor<2>| (a - b).abs().max().into_scalar::<f32>() < 1e-5;
/// assert!(close(mixed.clone().narrow(0, 0, 1), french));
/// assert!(close(mixed.narrow(0, 1, 1), bare));
/// # Ok::<(), lora_core::LoraError>(())
/// ```
#[derive(Debug)]
pub struct NamedAdapters<M: Module> {
    base: M,
    /// The base with all adapters.
    model: M,
    architecture: Architecture,
    named: Vec<Named>,
    handle: Handle,
    next: Key,
}

impl<M: Module> NamedAdapters<M> {
    /// A base without adapters.
    ///
    /// # Errors
    /// [`LoraError::AlreadyAttached`] if it has one.
    pub fn new(base: M, architecture: Architecture) -> Result<Self, LoraError> {
        let matrices = modules::parameters(&base, &architecture).matrices;
        if let Some(matrix) = matrices.into_iter().find(|matrix| matrix.adapted) {
            return Err(LoraError::AlreadyAttached {
                module: matrix.module,
            });
        }
        // A parameter that has no value yet would get one in each clone.
        base.visit(&mut Settle);
        Ok(Self {
            model: base.clone(),
            base,
            architecture,
            named: Vec::new(),
            handle: Handle::new(),
            next: 0,
        })
    }

    /// Adds the adapter of a PEFT directory. What is active stays so.
    ///
    /// # Errors
    /// [`LoraError::AdapterName`], [`LoraError::DuplicateAdapter`], and as [`load`](crate::file::load()) where it does
    /// not fit the base; the set is then as it was.
    pub fn add(&mut self, name: &str, dir: &Path) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        self.add_dir(name, &AdapterDir::open(dir)?)
    }

    /// Adds the adapter of an opened directory, as [`add`](Self::add) does.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_dir(&mut self, name: &str, dir: &AdapterDir) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        let (plan, weights) = dir.plan(&self.base, dir.config()?, &self.architecture)?;
        self.put(name, plan, weights, dir.options().clone())
    }

    /// [`add`](Self::add) for an adapter that is in memory as files hold it.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_stored(
        &mut self,
        name: &str,
        adapter: &StoredAdapter,
    ) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        let config = adapter.file_config();
        config.validate()?;
        let plan = AttachPlan::new(&self.base, &config, &self.architecture)?;
        // Messages name the tensors as those of the file that it would be written to.
        let path = PathBuf::from(name).join(WEIGHTS_FILE);
        let tensors = AdapterTensors::in_memory(path, adapter)?;
        let (plan, weights) = read_weights(&self.base, plan, &tensors, Parts::All)?;
        self.put(name, plan, weights, adapter.options.clone())
    }

    /// [`add`](Self::add) for the adapter of a module that was made from this base, such as one that was just trained.
    /// `options` are what PEFT keeps beside it.
    ///
    /// # Errors
    /// As [`add`](Self::add), and [`LoraError::NotAttached`] if the report is not that module's.
    pub fn add_attached(
        &mut self,
        name: &str,
        adapted: &Adapted<M>,
        options: &PeftOptions,
    ) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        let stored = adapted.extract(options)?;
        self.add_stored(name, &stored)
    }

    /// Takes an adapter away. If it was active, the base is alone then.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn remove(&mut self, name: &str) -> Result<AttachReport, LoraError> {
        let key = self.get(name)?.key;
        let place = self.named.iter().position(|named| named.key == key);
        let named = self.named.remove(place.unwrap_or_default());
        if self.handle.get() == Some(key) {
            self.handle.set(None);
        }
        self.rebuild();
        Ok(named.report)
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|named| named.name.as_str())
    }

    /// Names and what each attach would have reported, in the order in which they were added.
    pub fn list(&self) -> impl Iterator<Item = (&str, &AttachReport)> {
        self.named
            .iter()
            .map(|named| (named.name.as_str(), &named.report))
    }

    /// What the attach of an adapter would have reported.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn report(&self, name: &str) -> Result<&AttachReport, LoraError> {
        Ok(&self.get(name)?.report)
    }

    /// Makes an adapter act, and no other: a store of a number, whatever the size of the model.
    ///
    /// Every clone of [`model`](Self::model) follows.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn activate(&self, name: &str) -> Result<(), LoraError> {
        self.handle.set(Some(self.get(name)?.key));
        Ok(())
    }

    /// Makes the base answer alone.
    pub fn disable(&self) {
        self.handle.set(None);
    }

    /// The adapter that acts.
    pub fn active(&self) -> Option<&str> {
        let key = self.handle.get()?;
        let named = self.named.iter().find(|named| named.key == key)?;
        Some(&named.name)
    }

    /// The model with its adapters: what it computes is what is active.
    ///
    /// A clone of it is for use only while no adapter is added or removed: it keeps those that it has.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The base, without adapters. Its weights are shared with [`model`](Self::model).
    pub fn base(&self) -> &M {
        &self.base
    }

    /// What the model tells about itself.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The base with one of the adapters as [`attach`](crate::attach()) would have put it there: to go on training it,
    /// or to save it. The base's weights are not copied.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn alone(&self, name: &str) -> Result<Adapted<M>, LoraError> {
        let named = self.get(name)?;
        let report = AttachReport {
            switch: AdapterSwitch::on(),
            ..named.report.clone()
        };
        AttachPlan { report }.apply(self.base.clone(), named.weights())
    }

    /// One of the adapters as files hold it.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn extract(&self, name: &str) -> Result<StoredAdapter, LoraError> {
        let named = self.get(name)?;
        let saved = |saved: &SavedParameter| {
            let own = named.saved_values(saved);
            own.or_else(|| modules::base_value(&self.base, &saved.parameter))
        };
        file::stored(
            &self.base,
            &named.report,
            &named.options,
            &named.source(),
            saved,
        )
    }

    /// Replaces the base by one that was made from it and computes the same, such as one whose tied output layer became a
    /// layer of its own. The adapters stay.
    ///
    /// # Errors
    /// What `change` returns; [`LoraError::NotAttached`] if a parameter that an adapter is on is no longer there. The set is
    /// then as it was.
    pub fn map_base<E: From<LoraError>>(
        &mut self,
        change: impl FnOnce(M) -> Result<M, E>,
    ) -> Result<(), E> {
        let base = change(self.base.clone())?;
        let all = modules::parameters(&base, &self.architecture).all;
        let mut paths = self.named.iter().flat_map(|named| &named.changes);
        if let Some((path, _)) = paths.find(|(path, _)| !all.iter().any(|p| p.path == *path)) {
            let module = path.clone();
            return Err(LoraError::NotAttached { module }.into());
        }
        self.base = base;
        self.rebuild();
        Ok(())
    }

    pub(super) fn check_new(&self, name: &str) -> Result<(), LoraError> {
        check_name(name)?;
        match self.named.iter().any(|named| named.name == name) {
            true => Err(LoraError::DuplicateAdapter { name: name.into() }),
            false => Ok(()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Result<&Named, LoraError> {
        let found = self.named.iter().find(|named| named.name == name);
        found.ok_or_else(|| LoraError::UnknownAdapter {
            name: name.into(),
            candidates: nearest(name, self.names()),
        })
    }

    pub(super) fn named(&self) -> &[Named] {
        &self.named
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Refuses an adapter that cannot act on some examples of a batch alone.
    pub(super) fn check_mixable(&self, named: &Named) -> Result<(), LoraError> {
        match &named.one_for_all {
            None => Ok(()),
            Some((parameter, message)) => Err(LoraError::NotPerExample {
                adapter: named.name.clone(),
                parameter: parameter.clone(),
                message: (*message).into(),
            }),
        }
    }

    /// Takes those away that were added after the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.named.truncate(count);
        self.rebuild();
    }

    fn put(
        &mut self,
        name: &str,
        plan: AttachPlan,
        weights: AdapterWeights,
        options: PeftOptions,
    ) -> Result<&AttachReport, LoraError> {
        let (report, weights) = plan.complete(&self.base, weights)?;
        let key = self.next;
        let mut build = Build::new(key, name, &report, weights);
        self.base.visit(&mut build);
        let changes = build.changes;
        let one_for_all = self.one_for_all(&changes);
        self.next += 1;
        self.named.push(Named {
            name: name.into(),
            key,
            report,
            options,
            changes,
            one_for_all,
        });
        self.rebuild();
        let place = self.named.len() - 1;
        Ok(&self.named[place].report)
    }

    fn rebuild(&mut self) {
        let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
        for (path, change) in self.named.iter().flat_map(|named| &named.changes) {
            changes
                .entry(path.clone())
                .or_default()
                .push(change.clone());
        }
        // Burn keeps one thing on a parameter: where there are adapters, the packed weight goes into their set.
        let (bare, mut packed) = unpacked(self.base.clone());
        let in_sets = changes.keys().filter_map(|path| packed.remove_entry(path));
        let model = bare.apply_reparameterization(PutSet {
            packed: in_sets.collect(),
            changes,
            handle: self.handle.clone(),
        });
        self.model = put_packed(model, packed);
    }

    fn one_for_all(&self, changes: &[(String, Change)]) -> Option<(String, &'static str)> {
        let matrices = modules::parameters(&self.base, &self.architecture).matrices;
        let read_by_us = matrices
            .iter()
            .filter(|m| m.path == AdapterPath::Activation);
        let read_by_us: Vec<_> = read_by_us.collect();
        changes.iter().find_map(|(path, change)| {
            let mut matrices = read_by_us.iter();
            let message = match matrices
                .find(|m| m.parameter == *path || m.bias.as_ref() == Some(path))
            {
                None => "which is one value for all that its layer computes",
                Some(matrix) if matrix.kind == LayerKind::Embedding && change.whole.is_some() => {
                    "an embedding that trained whole"
                }
                Some(_) => return None,
            };
            Some((path.clone(), message))
        })
    }
}

/// Gives every parameter its value.
struct Settle;

impl ModuleVisitor for Settle {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let _ = param.base();
    }
}
