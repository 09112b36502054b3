//! Checkpoint as the source of a model: each tensor is read, newly initialized, or ignored for a reason.

use super::source::{ParamSpec, Weights};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, HostTensor, LoadReport, StrictReader, is_float};
use bytes::Bytes;
use lora_core::file::transpose;
use lora_core::files::Directory;
use lora_core::{BaseFloats, HalfFloat, LayerKind, Quantization, QuantizeConfig};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Requirements of a model on a checkpoint.
pub(crate) struct Expectation<'a> {
    /// All parameters of the model.
    pub wanted: Vec<ParamSpec>,
    /// Prefix of the encoder's or decoder's names in a model with a head, such as `bert.`.
    pub prefix: &'a str,
    /// Name, with the prefix, of a tensor that every checkpoint of the family has, and is tied to no other: it tells where the
    /// names of the model begin in a file, and whether the file uses the prefix.
    pub anchor: &'a str,
    /// Modules that may be newly initialized if the checkpoint lacks all of their parameters: a new head.
    pub may_be_fresh: &'a [&'a str],
    /// Initializes these modules newly even if the checkpoint has them.
    pub force_fresh: bool,
    /// Names of parameters that an adapter brings: those of the checkpoint, which may have other shapes, are not read.
    pub brought: &'a [String],
    /// Names and shapes of tensors that may exist and are not read.
    pub optional: &'a [(String, Vec<usize>)],
    /// Quantization of the weights of linear layers as they are read. Fresh modules are trained, and are not
    /// quantized.
    pub quantize: Option<&'a QuantizeConfig>,
    /// Float type of the other weights of linear layers and embeddings.
    pub floats: &'a BaseFloats,
    /// Tensors of a checkpoint that the model does not need.
    pub leftovers: &'a [Leftover],
    /// Tensors that stand for another that the checkpoint lacks: the wanted name, and the one that is tied to it. Programs that
    /// drop one of two tied tensors may keep either.
    pub tied: &'a [(&'a str, &'a str)],
}

/// Tensors to ignore, selected by their names in the file.
#[derive(Clone, Copy)]
pub(crate) struct Leftover {
    /// Reason, for the report.
    pub reason: &'static str,
    /// Predicate on the name.
    pub is: fn(&str) -> bool,
    /// Predicate on the values, where the name says what they are: the model computes them itself.
    pub holds: Option<fn(&HostTensor) -> bool>,
}

impl Leftover {
    /// Compares the values of the ignored tensors with what their names say. transformers computes such tensors itself, whatever a
    /// file has, and so does this crate; a note names those that differ. Integers are not read.
    fn notes(
        &self,
        checkpoint: &Checkpoint,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, ModelError> {
        let Some(holds) = self.holds else {
            return Ok(Vec::new());
        };
        let mut notes = Vec::new();
        for name in checkpoint.names().filter(|name| ignored(name)) {
            if checkpoint.dtype(name).is_some_and(is_float) && !holds(&checkpoint.read_f32(name)?) {
                notes.push(format!(
                    "`{name}` is no {}: it was ignored all the same, as in transformers",
                    self.reason
                ));
            }
        }
        Ok(notes)
    }
}

/// Opens the checkpoint of a model whose names begin with `prefix`. The anchor is a tensor that each file of the model has.
///
/// # Errors
/// As [`Checkpoint::open`].
pub(crate) fn open_model(
    dir: &Directory,
    anchor: &str,
    prefix: &str,
) -> Result<Checkpoint, ModelError> {
    Checkpoint::open_model(dir, &names_in_files(anchor, prefix))
}

/// Reads a model from the weights in a directory.
///
/// Names and shapes are compared before anything is read; then the tensors are read, converted and moved to the
/// device one after another. Returns the modules that were newly initialized, with values of `random`.
///
/// # Errors
/// [`ModelError::TensorMissing`], [`ModelError::TensorUnexpected`], [`ModelError::TensorShape`] or
/// [`ModelError::TensorDtype`] if the weights do not belong to the model, [`ModelError::NotFinite`] if they are no numbers.
pub(crate) fn read_model<M>(
    checkpoint: &Checkpoint,
    expectation: &Expectation<'_>,
    random: &mut dyn Weights,
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<(M, LoadReport, Vec<String>), ModelError> {
    let mut reader = StrictReader::new(checkpoint);
    let dropped = checkpoint.metadata();
    let names = FileNames::new(&reader, expectation, &dropped);
    let fresh = fresh_modules(expectation, &names);
    let is_brought = |name: &str| expectation.brought.iter().any(|brought| brought == name);
    let is_fresh = |name: &str| is_brought(name) || fresh.iter().any(|module| is_in(name, module));

    let mut found = HashMap::new();
    let mut expected = Vec::new();
    for wanted in &expectation.wanted {
        if is_fresh(&wanted.name) {
            continue;
        }
        let name = names.find(&wanted.name);
        let name = name.unwrap_or_else(|| wanted.name.clone());
        expected.push((name.clone(), wanted.file_shape()));
        found.insert(wanted.path.clone(), name);
    }
    reader.check(&expected, expectation.optional)?;
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let mut notes = Vec::new();
    for leftover in expectation.leftovers {
        let is_ignored = |name: &str| !known.contains(name) && (leftover.is)(name);
        reader.ignore(leftover.reason, is_ignored);
        notes.extend(leftover.notes(checkpoint, is_ignored)?);
    }
    if expectation.force_fresh {
        let heads = expectation.may_be_fresh;
        reader.ignore("newly initialized", |name| {
            heads.iter().any(|module| is_in(name, module))
        });
    }
    let replaced: Vec<&&str> = expectation
        .may_be_fresh
        .iter()
        .filter(|module| expectation.brought.iter().any(|name| is_in(name, module)))
        .collect();
    reader.ignore("replaced by the adapter", |name| {
        !known.contains(name) && replaced.iter().any(|module| is_in(name, module))
    });
    // `StrictReader::finish` would refuse left-over tensors only after gigabytes are read.
    let mut names = reader.left_over();
    names.retain(|name| !known.contains(name.as_str()));
    if !names.is_empty() {
        let path = checkpoint.path().into();
        return Err(ModelError::TensorUnexpected { path, names });
    }

    let mut source = FromFile {
        reader: &mut reader,
        found,
        random,
        quantize: expectation.quantize,
        floats: expectation.floats,
    };
    let model = build(&mut source)?;
    let mut report = reader.finish()?;
    report.notes = notes;
    Ok((model, report, fresh))
}

/// True if a parameter belongs to a module.
fn is_in(name: &str, module: &str) -> bool {
    let rest = name.strip_prefix(module);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// Naming scheme of a file: with or without the prefix, with PyTorch's or TensorFlow's names for layer norms.
struct FileNames<'r, 'c> {
    reader: &'r StrictReader<'c>,
    /// Prefix that the names in the file lack.
    strip: &'r str,
    tied: &'r [(&'r str, &'r str)],
    /// Metadata of the file, in which `safetensors.torch.save_model` notes the tensors that it dropped, each with the equal one
    /// that it kept.
    dropped: &'r BTreeMap<String, String>,
}

/// Returns the names of a tensor in the files of a family: with and without its prefix, with PyTorch's and TensorFlow's names for
/// layer norms.
fn names_in_files(name: &str, prefix: &str) -> Vec<String> {
    let bare = name.strip_prefix(prefix).unwrap_or(name);
    let names = [name, bare].into_iter().flat_map(spellings);
    names.collect()
}

/// Returns a name, and the one that old conversions from TensorFlow have: `LayerNorm.gamma` and `LayerNorm.beta`.
fn spellings(name: &str) -> Vec<String> {
    let mut names = vec![name.to_string()];
    for (now, then) in [
        ("LayerNorm.weight", "LayerNorm.gamma"),
        ("LayerNorm.bias", "LayerNorm.beta"),
    ] {
        names.extend(name.strip_suffix(now).map(|head| format!("{head}{then}")));
    }
    names
}

impl<'r, 'c> FileNames<'r, 'c> {
    fn new(
        reader: &'r StrictReader<'c>,
        expectation: &'r Expectation<'_>,
        dropped: &'r BTreeMap<String, String>,
    ) -> Self {
        // A file without the prefix lacks the anchor's full name; errors about a file that lacks both use full names.
        let strip = expectation.prefix;
        let tied = expectation.tied;
        let mut names = Self {
            reader,
            strip,
            tied,
            dropped,
        };
        if names.find(expectation.anchor).is_none() {
            names.strip = "";
        }
        names
    }

    /// Returns the name in the file, if the tensor exists.
    fn find(&self, name: &str) -> Option<String> {
        let tied = self.tied.iter().filter(|(wanted, _)| *wanted == name);
        let name = name.strip_prefix(self.strip).unwrap_or(name);
        let mut names = spellings(name);
        names.extend(self.dropped.get(name).cloned());
        names.extend(tied.map(|(_, other)| other.to_string()));
        names.into_iter().find(|name| self.reader.has(name))
    }
}

/// Returns the modules of `may_be_fresh` that the checkpoint lacks completely.
fn fresh_modules(expectation: &Expectation<'_>, names: &FileNames<'_, '_>) -> Vec<String> {
    let is_fresh = |module: &str| {
        let wanted = expectation.wanted.iter().map(|wanted| &wanted.name);
        let asked: Vec<&String> = wanted.filter(|name| is_in(name, module)).collect();
        let is_brought = |name: &&String| expectation.brought.contains(name);
        let lacks_all = || {
            let mut asked = asked.iter();
            asked.all(|name| is_brought(name) || names.find(name).is_none())
        };
        !asked.is_empty() && (expectation.force_fresh || lacks_all())
    };
    let fresh = expectation
        .may_be_fresh
        .iter()
        .filter(|module| is_fresh(module));
    fresh.map(|module| module.to_string()).collect()
}

struct FromFile<'r, 'c, 'w> {
    quantize: Option<&'w QuantizeConfig>,
    floats: &'w BaseFloats,
    reader: &'r mut StrictReader<'c>,
    /// Names in the file by path.
    found: HashMap<String, String>,
    random: &'w mut dyn Weights,
}

impl Weights for FromFile<'_, '_, '_> {
    fn quantize(&self, path: &str) -> Option<&QuantizeConfig> {
        self.quantize.filter(|_| self.found.contains_key(path))
    }

    fn half(&self, module: &str, kind: LayerKind, path: &str) -> Option<HalfFloat> {
        let name = self.found.get(path)?;
        self.floats.half(module, kind, self.reader.half_of(name))
    }

    fn of_end(&self, module: &str, path: &str) -> Option<Quantization> {
        self.found.get(path)?;
        self.floats.of_end(module)
    }

    fn mapped_half(
        &mut self,
        wanted: &ParamSpec,
        half: HalfFloat,
    ) -> Result<Option<Bytes>, ModelError> {
        match self.found.get(&wanted.path) {
            Some(name) if self.reader.half_of(name) == Some(half) => {
                self.reader.take_mapped_half(name, &wanted.shape, half)
            }
            _ => Ok(None),
        }
    }

    fn mapped(&mut self, wanted: &ParamSpec) -> Result<Option<Bytes>, ModelError> {
        match (self.found.get(&wanted.path), wanted.transposed) {
            (Some(name), false) => self.reader.take_mapped(name, &wanted.shape),
            _ => Ok(None),
        }
    }

    fn values(&mut self, wanted: &ParamSpec) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(name) = self.found.get(&wanted.path) else {
            return self.random.values(wanted);
        };
        let shape = wanted.file_shape();
        let (true, &[d_out, d_in]) = (wanted.transposed, shape.as_slice()) else {
            return Ok(Some(self.reader.take(name, &shape)?.values));
        };
        Ok(Some(match self.reader.take_mapped(name, &shape)? {
            Some(elements) => transpose(bytemuck::cast_slice(&elements), [d_out, d_in]),
            None => transpose(&self.reader.take(name, &shape)?.values, [d_out, d_in]),
        }))
    }
}
