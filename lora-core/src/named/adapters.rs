//! A base with several adapters: [`NamedAdapters`].

use super::adapter::NamedAdapter;
use super::name::check_name;
use crate::adapter::{ActiveAdapter, AdapterEntry, AdapterSet, AdapterSwitch, Key};
use crate::attach::{Adapted, AdapterWeights, AttachReport, build_entries};
use crate::config::by_similarity;
use crate::error::LoraError;
use crate::file::{self, AdapterDir, Parts, PeftOptions, StoredAdapter, WEIGHTS_FILE};
use crate::files::Directory;
use crate::layout::{AdapterPath, Architecture, LayerKind, Place, Visit, parameters, put, visit};
use crate::quantize::take_packed;
use burn::module::{Module, Param};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A base with several named adapters, of which one or none is active, or another one for each example of a
/// batch ([`per_example`](Self::per_example)).
///
/// The adapters are for inference: frozen and without dropout. [`alone`](Self::alone) returns one of them for training.
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
/// // Random values, in place of training.
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
    /// Base with all adapters.
    model: M,
    architecture: Architecture,
    named: Vec<NamedAdapter>,
    selected: ActiveAdapter,
    next: Key,
}

impl<M: Module> NamedAdapters<M> {
    /// Creates a set without adapters.
    ///
    /// # Errors
    /// [`LoraError::AlreadyAttached`] if the base has an adapter.
    pub fn new(base: M, architecture: Architecture) -> Result<Self, LoraError> {
        let matrices = parameters(&base, &architecture).matrices;
        if let Some(matrix) = matrices.into_iter().find(|matrix| matrix.adapted) {
            return Err(LoraError::AlreadyAttached {
                module: matrix.module,
            });
        }
        // A lazy parameter would be initialized anew in each clone.
        visit(&base, InitParameters);
        Ok(Self {
            model: base.clone(),
            base,
            architecture,
            named: Vec::new(),
            selected: ActiveAdapter::new(),
            next: 0,
        })
    }

    /// Adds the adapter of a PEFT directory. The active adapter stays active.
    ///
    /// # Errors
    /// [`LoraError::AdapterName`], [`LoraError::DuplicateAdapter`], and as [`load`](crate::file::load()) if it does
    /// not fit the base; the set is then unchanged.
    pub fn add(
        &mut self,
        name: &str,
        dir: impl Into<Directory>,
    ) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        self.add_dir(name, &AdapterDir::open(dir)?)
    }

    /// Adds the adapter of an opened directory, as [`add`](Self::add) does.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_dir(&mut self, name: &str, dir: &AdapterDir) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        let (report, weights) =
            dir.read_for(&self.base, dir.config()?, &self.architecture, Parts::All)?;
        self.put(name, report, weights, dir.options().clone())
    }

    /// Adds an adapter that is in memory in the form of files.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_stored(
        &mut self,
        name: &str,
        adapter: &StoredAdapter,
    ) -> Result<&AttachReport, LoraError> {
        self.check_new(name)?;
        // Error messages name the tensors as those of the file that it would be written to.
        let path = PathBuf::from(name).join(WEIGHTS_FILE);
        let (report, weights) = adapter.weights_for(&self.base, &self.architecture, &path)?;
        self.put(name, report, weights, adapter.options.clone())
    }

    /// Adds the adapter of a module with this base, such as one that was just trained, with options for its PEFT directory.
    ///
    /// # Errors
    /// As [`add`](Self::add), and [`LoraError::NotAttached`] if the report is not that of the module.
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

    /// Removes an adapter. If it was active, no adapter is active afterwards.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn remove(&mut self, name: &str) -> Result<AttachReport, LoraError> {
        let key = self.get(name)?.key;
        let index = self.named.iter().position(|named| named.key == key);
        let named = self.named.remove(index.unwrap_or_default());
        if self.selected.get() == Some(key) {
            self.selected.set(None);
        }
        self.rebuild();
        Ok(named.report)
    }

    /// Returns the names, in the order of addition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(|named| named.name.as_str())
    }

    /// Returns names and attach reports, in the order of addition.
    pub fn list(&self) -> impl Iterator<Item = (&str, &AttachReport)> {
        self.named
            .iter()
            .map(|named| (named.name.as_str(), &named.report))
    }

    /// Returns the attach report of an adapter.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn report(&self, name: &str) -> Result<&AttachReport, LoraError> {
        Ok(&self.get(name)?.report)
    }

    /// Activates an adapter in place of any other. This stores one number, whatever the size of the model.
    ///
    /// It applies to every clone of [`model`](Self::model).
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn activate(&self, name: &str) -> Result<(), LoraError> {
        self.selected.set(Some(self.get(name)?.key));
        Ok(())
    }

    /// Deactivates all adapters.
    pub fn disable(&self) {
        self.selected.set(None);
    }

    /// Returns the name of the active adapter.
    pub fn active(&self) -> Option<&str> {
        let key = self.selected.get()?;
        let named = self.named.iter().find(|named| named.key == key)?;
        Some(&named.name)
    }

    /// Returns the model with its adapters, which computes with the active one.
    ///
    /// A clone of it does not follow later additions and removals of adapters.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Returns the base without adapters. It shares its weights with [`model`](Self::model).
    pub fn base(&self) -> &M {
        &self.base
    }

    /// Returns the architecture of the model.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Returns the base with one of the adapters as [`attach`](crate::attach()) puts it there, for further training or
    /// saving. The base's weights are not copied.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn alone(&self, name: &str) -> Result<Adapted<M>, LoraError> {
        let mut report = AttachReport {
            switch: AdapterSwitch::on(),
            ..self.get(name)?.report.clone()
        };
        let stored = self.extract(name)?;
        let weights = stored.values(&self.base, &mut report, Path::new(name), Parts::All)?;
        report.apply(self.base.clone(), weights)
    }

    /// Returns one of the adapters in the form of files.
    ///
    /// # Errors
    /// [`LoraError::UnknownAdapter`].
    pub fn extract(&self, name: &str) -> Result<StoredAdapter, LoraError> {
        let named = self.get(name)?;
        file::stored(&self.base, &named.report, &named.options, &named.entries)
    }

    /// Replaces the base by an equivalent one, such as one whose tied output layer became a layer of its own. The adapters
    /// stay.
    ///
    /// # Errors
    /// The error of `change`; [`LoraError::NotAttached`] if the new base lacks a parameter that an adapter is on. The set is
    /// then unchanged.
    pub fn map_base<E: From<LoraError>>(
        &mut self,
        change: impl FnOnce(M) -> Result<M, E>,
    ) -> Result<(), E> {
        let base = change(self.base.clone())?;
        let all = parameters(&base, &self.architecture).all;
        let mut paths = self.named.iter().flat_map(|named| &named.entries);
        if let Some((path, _)) = paths.find(|(path, _)| !all.iter().any(|p| p.path == **path)) {
            return Err(LoraError::not_attached(path).into());
        }
        self.base = base;
        self.rebuild();
        Ok(())
    }

    pub(super) fn check_new(&self, name: &str) -> Result<(), LoraError> {
        check_name(name)?;
        if self.named.iter().any(|named| named.name == name) {
            return Err(LoraError::DuplicateAdapter { name: name.into() });
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Result<&NamedAdapter, LoraError> {
        let found = self.named.iter().find(|named| named.name == name);
        found.ok_or_else(|| LoraError::UnknownAdapter {
            name: name.into(),
            candidates: by_similarity(name, self.names().map(String::from).collect()),
        })
    }

    pub(super) fn named(&self) -> &[NamedAdapter] {
        &self.named
    }

    pub(super) fn selected(&self) -> &ActiveAdapter {
        &self.selected
    }

    /// Removes all adapters but the first `count`.
    pub(super) fn truncate(&mut self, count: usize) {
        self.named.truncate(count);
        self.rebuild();
    }

    fn put(
        &mut self,
        name: &str,
        report: AttachReport,
        mut weights: AdapterWeights,
        options: PeftOptions,
    ) -> Result<&AttachReport, LoraError> {
        report.complete(&self.base, &mut weights)?;
        let key = self.next;
        let named = Some((key, name));
        let entries = build_entries(&self.base, &report, weights, &mut BTreeMap::new(), named);
        let batch_wide = self.batch_wide(&entries);
        self.next += 1;
        self.named.push(NamedAdapter {
            name: name.into(),
            key,
            report,
            options,
            entries: entries.into_iter().collect(),
            batch_wide,
        });
        self.rebuild();
        let last = self.named.len() - 1;
        Ok(&self.named[last].report)
    }

    fn rebuild(&mut self) {
        let mut entries: BTreeMap<String, Vec<AdapterEntry>> = BTreeMap::new();
        for (path, entry) in self.named.iter().flat_map(|named| &named.entries) {
            entries.entry(path.clone()).or_default().push(entry.clone());
        }
        let (bare, mut packed) = take_packed(self.base.clone());
        // Burn puts one thing on a parameter: with adapters, the packed weight goes into their set.
        let sets = entries.into_iter().map(|(path, entries)| {
            let packed = packed.remove(&path);
            (
                path,
                AdapterSet::new(entries, packed, self.selected.clone()),
            )
        });
        let sets = sets.collect();
        self.model = put(put(bare, sets), packed);
    }

    /// Finds a parameter that cannot differ between the examples of a batch: layers of other crates read it, or an embedding
    /// is fully trained.
    fn batch_wide(&self, entries: &[(String, AdapterEntry)]) -> Option<(String, &'static str)> {
        let mut matrices = parameters(&self.base, &self.architecture).matrices;
        matrices.retain(|m| m.path == AdapterPath::Activation);
        entries.iter().find_map(|(path, entry)| {
            let mut matrices = matrices.iter();
            let matrix = matrices.find(|m| m.parameter == *path || m.bias.as_ref() == Some(path));
            let message = match matrix {
                None => "which has one value for the whole batch",
                Some(_) if entry.rows.is_some() => "whose rows of single tokens are trained",
                Some(matrix) if matrix.kind == LayerKind::Embedding && entry.full.is_some() => {
                    "a fully trained embedding"
                }
                Some(_) => return None,
            };
            Some((path.clone(), message))
        })
    }
}

/// The walk that initializes lazy parameters.
struct InitParameters;

impl Visit for InitParameters {
    fn float<const D: usize>(&mut self, _place: &Place, param: &Param<Tensor<D>>) {
        let _ = param.base();
    }
}
