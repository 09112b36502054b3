//! A checkpoint as the source of a model: every tensor is used, fresh, or passed over for a reason.

use super::source::{Wanted, Weights};
use super::transpose::transpose;
use crate::ModelError;
use crate::checkpoint::{Checkpoint, LoadReport, StrictReader};
use bytes::Bytes;
use lora_core::QuantizeConfig;
use std::collections::{HashMap, HashSet};

/// What a model expects of a checkpoint.
pub(crate) struct Expectation<'a> {
    /// All that the model asks for.
    pub wanted: Vec<Wanted>,
    /// What a model with a head puts before the names of the model without, such as `bert.`.
    pub prefix: &'a str,
    /// A tensor that every checkpoint of the family has, with the prefix: it tells whether the
    /// file has it.
    pub anchor: &'a str,
    /// Modules that may start afresh, each whole, where the checkpoint lacks them: a new head.
    pub may_be_fresh: &'a [&'a str],
    /// Starts them afresh even where the checkpoint has them.
    pub force_fresh: bool,
    /// Names and shapes of tensors that may be there, and are not read.
    pub optional: &'a [(String, Vec<usize>)],
    /// How the weights of linear layers are quantised as they are read. What starts afresh trains, and stays in floats.
    pub quantize: Option<&'a QuantizeConfig>,
    /// What a checkpoint may hold that the model does not need, and why.
    pub leftovers: &'a [Leftover],
}

/// Tensors that are passed over, by a test on their names in the file.
#[derive(Clone, Copy)]
pub(crate) struct Leftover {
    /// Why.
    pub reason: &'static str,
    /// Which.
    pub is: fn(&str) -> bool,
}

/// Reads a model.
///
/// Names and shapes are compared before anything is read; then each tensor is read, converted to
/// f32 and given to the device, one after another. Returns the modules that started afresh, from
/// `random`.
///
/// # Errors
/// [`ModelError::TensorMissing`], [`ModelError::TensorUnexpected`], [`ModelError::TensorShape`] or
/// [`ModelError::TensorDtype`] where the weights are not those of the model.
pub(crate) fn read_model<M>(
    checkpoint: &Checkpoint,
    expectation: &Expectation<'_>,
    random: &mut dyn Weights,
    build: impl FnOnce(&mut dyn Weights) -> Result<M, ModelError>,
) -> Result<(M, LoadReport, Vec<String>), ModelError> {
    let mut reader = StrictReader::new(checkpoint);
    let names = FileNames::new(&reader, expectation);
    let fresh = fresh_modules(expectation, &names);
    let is_fresh = |name: &str| fresh.iter().any(|module| is_in(name, module));

    let mut found = HashMap::new();
    let mut expected = Vec::new();
    for wanted in &expectation.wanted {
        if is_fresh(&wanted.name) {
            continue;
        }
        let name = names
            .of(&wanted.name)
            .unwrap_or_else(|| wanted.name.clone());
        expected.push((name.clone(), wanted.file_shape()));
        found.insert(wanted.path.clone(), name);
    }
    reader.check(&expected, expectation.optional)?;
    let known: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    for leftover in expectation.leftovers {
        reader.ignore(leftover.reason, |name| {
            !known.contains(name) && (leftover.is)(name)
        });
    }
    if expectation.force_fresh {
        let heads = expectation.may_be_fresh;
        reader.ignore("started afresh", |name| {
            heads.iter().any(|module| is_in(name, module))
        });
    }
    refuse_strangers(&reader, &known)?;

    let mut source = FromFile {
        reader: &mut reader,
        found,
        random,
        quantize: expectation.quantize,
    };
    let model = build(&mut source)?;
    Ok((model, reader.finish()?, fresh))
}

/// Whether a parameter belongs to a module.
fn is_in(name: &str, module: &str) -> bool {
    name.strip_prefix(module)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// How a file names things: with the prefix or without, in today's words or in TensorFlow's.
struct FileNames<'r, 'c> {
    reader: &'r StrictReader<'c>,
    /// What the names in the file lack.
    strip: &'r str,
}

impl<'r, 'c> FileNames<'r, 'c> {
    fn new(reader: &'r StrictReader<'c>, expectation: &'r Expectation<'_>) -> Self {
        // A file without the prefix lacks the anchor under its full name; a file that lacks both is
        // reported with the full names.
        let prefix = expectation.prefix;
        let names = Self {
            reader,
            strip: prefix,
        };
        let strip = match names.of(expectation.anchor).is_some() {
            true => prefix,
            false => "",
        };
        Self { reader, strip }
    }

    /// The name in the file, if the tensor is there.
    fn of(&self, name: &str) -> Option<String> {
        let name = name.strip_prefix(self.strip).unwrap_or(name);
        let mut names = vec![name.to_string()];
        // Converted from TensorFlow by an old library: `LayerNorm.gamma` and `LayerNorm.beta`.
        for (now, then) in [
            ("LayerNorm.weight", "LayerNorm.gamma"),
            ("LayerNorm.bias", "LayerNorm.beta"),
        ] {
            names.extend(name.strip_suffix(now).map(|head| format!("{head}{then}")));
        }
        names.into_iter().find(|name| self.reader.has(name))
    }
}

/// The modules that the checkpoint lacks altogether, of those that it may lack.
fn fresh_modules(expectation: &Expectation<'_>, names: &FileNames<'_, '_>) -> Vec<String> {
    let is_fresh = |module: &str| {
        let wanted = expectation.wanted.iter().map(|wanted| &wanted.name);
        let asked: Vec<&String> = wanted.filter(|name| is_in(name, module)).collect();
        let lacks_all = || asked.iter().all(|name| names.of(name).is_none());
        !asked.is_empty() && (expectation.force_fresh || lacks_all())
    };
    let modules = expectation.may_be_fresh.iter();
    let fresh = modules.filter(|module| is_fresh(module));
    fresh.map(|module| module.to_string()).collect()
}

/// Says what is left over before reading gigabytes, which [`StrictReader::finish`] does after.
fn refuse_strangers(reader: &StrictReader<'_>, known: &HashSet<&str>) -> Result<(), ModelError> {
    let mut names = reader.left_over();
    names.retain(|name| !known.contains(name.as_str()));
    match names.is_empty() {
        true => Ok(()),
        false => Err(ModelError::TensorUnexpected { names }),
    }
}

struct FromFile<'r, 'c, 'w> {
    quantize: Option<&'w QuantizeConfig>,
    reader: &'r mut StrictReader<'c>,
    /// Names in the file by path.
    found: HashMap<String, String>,
    random: &'w mut dyn Weights,
}

impl Weights for FromFile<'_, '_, '_> {
    fn quantize(&self, path: &str) -> Option<&QuantizeConfig> {
        self.quantize.filter(|_| self.found.contains_key(path))
    }

    fn mapped(&mut self, wanted: &Wanted) -> Result<Option<Bytes>, ModelError> {
        match (self.found.get(&wanted.path), wanted.transposed) {
            (Some(name), false) => self.reader.take_mapped(name, &wanted.shape),
            _ => Ok(None),
        }
    }

    fn values(&mut self, wanted: &Wanted) -> Result<Option<Vec<f32>>, ModelError> {
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
