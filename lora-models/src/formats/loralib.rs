//! State dicts of loralib, the code of the LoRA paper (microsoft/LoRA).
//!
//! | in the file | here |
//! | --- | --- |
//! | `{module}.lora_A` `[r, d_in]`, `.lora_B` `[d_out, r]`, of a `Linear` | the same |
//! | the same of a `MergedLinear` with G enabled parts: `[G · r, d_in]`, `[G · d_out / parts, r]` | rank G · r, `B` in blocks |
//! | all other tensors, such as a trained classifier | `modules_to_save` |
//!
//! The file holds neither alpha nor the enabled slices of fused projections.

use super::{
    FAMILIES, Parts, Rename, back, module_to_save, only_factors, refs, renamed, require, stored,
};
use crate::ModelError;
use crate::checkpoint::{Checkpoint, ExportDType, write_pickle, write_safetensors};
use lora_core::file::PeftOptions;
use lora_core::file::{StoredAdapter, StoredFactors, StoredTensor};
use lora_core::files::Overwrite;
use lora_core::{
    BiasTraining, FusedLayout, LayerKind, LoraConfig, LoraError, LoraScaling, Slices, TargetModules,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Settings that a loralib file does not hold.
#[derive(Clone, Debug)]
pub struct LoralibOptions {
    /// Scaling numerator α of the training.
    pub alpha: f64,
    /// Slices of fused projections that have an adapter: `enable_lora`.
    pub slices: Option<Slices>,
    /// Replacements in names.
    pub rename: Rename,
    /// Settings of the PEFT directory.
    pub peft: PeftOptions,
}

/// Reads a loralib file.
///
/// # Errors
/// If the file cannot be read or is malformed, holds no factors or one without the other, holds base weights, or has a
/// fused projection whose slices are not given.
pub fn read(path: &Path, options: &LoralibOptions) -> Result<StoredAdapter, ModelError> {
    let file = Checkpoint::open_before(path, &FAMILIES)?;
    let tensor = |name: &str| stored(&file, name);
    let mut modules = BTreeMap::new();
    let mut saved = BTreeMap::new();
    let mut sliced = Vec::new();
    for name in file.names() {
        if let Some(module) = name.strip_suffix(".lora_A") {
            let (a, b) = (tensor(name)?, tensor(&format!("{module}.lora_B"))?);
            let (factors, is_sliced) = factors(path, module, a, b, options)?;
            let module = renamed(module, &options.rename);
            if is_sliced {
                sliced.push(module.clone());
            }
            modules.insert(module, factors);
        } else if let Some(module) = name.strip_suffix(".lora_B") {
            require(&file, &format!("{module}.lora_A"))?;
        } else {
            saved.insert(renamed(name, &options.rename), tensor(name)?);
        }
    }
    if modules.is_empty() {
        let message = "holds no `lora_A` and `lora_B`: not a loralib checkpoint";
        return Err(ModelError::malformed(path, message));
    }
    let has_weight = |module: &&String| saved.contains_key(&format!("{module}.weight"));
    if let Some(module) = modules.keys().find(has_weight) {
        let message = format!(
            "also holds the base weight of `{module}`: save it with `loralib.lora_state_dict(model)`, which omits \
             the base"
        );
        return Err(ModelError::malformed(path, message));
    }
    let (saved, bias) = biases(saved, &modules);
    let is_whole = |name: &&String| bias == BiasTraining::None || !is_bias_alone(name, &saved);
    let whole = saved.keys().filter(is_whole);
    let modules_to_save: BTreeSet<&str> = whole.map(|name| module_to_save(name)).collect();
    let mut adapter = StoredAdapter {
        config: LoraConfig {
            alpha: options.alpha,
            targets: TargetModules::names(modules.keys().cloned()),
            modules_to_save: modules_to_save.into_iter().map(String::from).collect(),
            bias,
            ..LoraConfig::default()
        },
        options: options.peft.clone(),
        modules,
        saved,
        metadata: BTreeMap::new(),
    };
    if let Some(of) = &options.slices {
        adapter.note_slices(sliced.into_iter().map(|module| (module, of.clone())));
    }
    let first = adapter.modules.values().next();
    adapter.config.rank = first.map_or(8, StoredFactors::rank);
    adapter.config.validate()?;
    Ok(adapter)
}

/// Takes the factors of one module; returns true with them for a `MergedLinear`.
fn factors(
    path: &Path,
    module: &str,
    a: StoredTensor,
    b: StoredTensor,
    options: &LoralibOptions,
) -> Result<(StoredFactors, bool), ModelError> {
    let malformed = |message: String| ModelError::malformed(path, format!("`{module}`: {message}"));
    let (&[a_rows, _], &[b_rows, rank]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Err(malformed("its factors are not matrices".into()));
    };
    if rank == 0 || a_rows == 0 || a_rows % rank != 0 {
        return Err(malformed(format!(
            "the shapes {:?} and {:?} of its factors do not match",
            a.shape, b.shape
        )));
    }
    let stored = |a: StoredTensor, b: StoredTensor| StoredFactors {
        kind: LayerKind::Linear,
        a,
        b,
        scale: LoraScaling::Standard.factor(options.alpha, rank),
        magnitude: None,
        bias: None,
    };
    let groups = a_rows / rank;
    let slices = options.slices.as_ref();
    if groups == 1 && slices.is_none_or(|slices| slices.adapted.len() != 1) {
        return Ok((stored(a, b), false));
    }
    let Some(slices) = slices else {
        return Err(malformed(format!(
            "it is a fused projection with {groups} adapted parts, which the file does not name; give their names, such \
             as q,v for the paper's GPT-2"
        )));
    };
    if slices.layout != FusedLayout::PartByPart {
        return Err(malformed(
            "loralib's fused projections have parts of one width, one after the other".into(),
        ));
    }
    if slices.adapted.len() != groups || b_rows % groups != 0 {
        return Err(malformed(format!(
            "it has {groups} adapted parts, not the {} given",
            slices.adapted.len()
        )));
    }
    let width = b_rows / groups;
    let shape = [width * slices.parts, groups * rank];
    let mut dense = vec![0.0; shape[0] * shape[1]];
    for (row, to) in b.values.chunks_exact(rank).zip(places(slices, width, rank)) {
        dense[to..to + rank].copy_from_slice(row);
    }
    let b = StoredTensor::new(shape, dense);
    Ok((stored(a, b), true))
}

/// Returns where each row of the blocks begins in the dense `B`.
fn places(slices: &Slices, width: usize, rank: usize) -> impl Iterator<Item = usize> {
    let total = slices.adapted.len() * rank;
    let groups = slices.adapted.iter().enumerate();
    groups.flat_map(move |(group, &part)| {
        (part * width..(part + 1) * width).map(move |row| row * total + group * rank)
    })
}

type Saved = BTreeMap<String, StoredTensor>;
type Modules = BTreeMap<String, StoredFactors>;

/// Separates the biases that `lora_state_dict(model, bias="lora_only")` and `"all"` keep: PEFT gives those of adapted
/// layers another name.
fn biases(saved: Saved, modules: &Modules) -> (Saved, BiasTraining) {
    let adapted = |name: &str| {
        let module = name.strip_suffix(".bias");
        module.is_some_and(|module| modules.contains_key(module))
    };
    if !saved.keys().any(|name| adapted(name)) {
        return (saved, BiasTraining::None);
    }
    // With "all", the biases of norms are saved too, without their weights.
    let alone = |name: &String| !adapted(name) && is_bias_alone(name, &saved);
    let bias = if saved.keys().any(alone) {
        BiasTraining::All
    } else {
        BiasTraining::LoraOnly
    };
    let named = saved.into_iter().map(|(name, tensor)| {
        let wrapped = name
            .strip_suffix(".bias")
            .filter(|module| modules.contains_key(*module));
        let wrapped = wrapped.map(|module| format!("{module}.base_layer.bias"));
        (wrapped.unwrap_or(name), tensor)
    });
    (named.collect(), bias)
}

/// True for a bias that was saved without the weight of its module.
fn is_bias_alone(name: &str, saved: &Saved) -> bool {
    let module = name.strip_suffix(".bias");
    module.is_some_and(|module| !saved.contains_key(&format!("{module}.weight")))
}

/// Writes an adapter as loralib's state dict. A name that ends in `.bin`, `.pt` or `.pth` makes a pickle, as the
/// paper's authors publish theirs, for `model.load_state_dict(torch.load(path), strict=False)`; `.safetensors` makes a
/// file for `load_file(path)` in place of `torch.load`.
///
/// # Errors
/// If the adapter has parts that the format lacks: DoRA, a bias on B, or embeddings. If the name has another ending,
/// or the file exists and must not be replaced.
pub fn write(
    adapter: &StoredAdapter,
    path: &Path,
    rename: &Rename,
    overwrite: Overwrite,
) -> Result<(), ModelError> {
    only_factors(adapter, path, "loralib", Parts::default())?;
    let pickled = is_pickled(path)?;
    if overwrite == Overwrite::Refuse && path.exists() {
        return Err(LoraError::AlreadyExists { path: path.into() }.into());
    }
    let rename = back(rename);
    let slices = adapter.slices()?;
    let mut tensors: Vec<(String, StoredTensor)> = Vec::new();
    for (module, factors) in &adapter.modules {
        let name = renamed(module, &rename);
        let b = match slices.get(module) {
            None => factors.b.clone(),
            Some(slices) => blocks(&factors.b, slices).ok_or_else(|| {
                let message = format!("the slices of `{module}` do not fit loralib's MergedLinear");
                ModelError::malformed(path, message)
            })?,
        };
        tensors.push((format!("{name}.lora_A"), factors.a.clone()));
        tensors.push((format!("{name}.lora_B"), b));
    }
    for (name, tensor) in &adapter.saved {
        let name = name.replace(".base_layer.bias", ".bias");
        tensors.push((renamed(&name, &rename), tensor.clone()));
    }
    if pickled {
        write_pickle(path, &refs(&tensors), overwrite)?
    } else {
        write_safetensors(path, &refs(&tensors), ExportDType::F32)?
    };
    Ok(())
}

/// True if the name of a file asks for a pickle.
fn is_pickled(path: &Path) -> Result<bool, ModelError> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending {
        Some("bin" | "pt" | "pth") => Ok(true),
        Some("safetensors") => Ok(false),
        _ => Err(ModelError::export(
            path,
            "the name of a loralib file must end in .bin, .pt or .pth (a pickle) or .safetensors",
        )),
    }
}

/// Rearranges a sliced `B` `[d_out, G · r]` into blocks `[G · width, r]`.
fn blocks(b: &StoredTensor, slices: &Slices) -> Option<StoredTensor> {
    let [d_out, total] = [b.shape[0], b.shape[1]];
    let groups = slices.adapted.len();
    if slices.layout != FusedLayout::PartByPart || total % groups != 0 || d_out % slices.parts != 0
    {
        return None;
    }
    let (width, rank) = (d_out / slices.parts, total / groups);
    let rows = places(slices, width, rank).map(|start| &b.values[start..start + rank]);
    let values = rows.collect::<Vec<_>>().concat();
    Some(StoredTensor::new([groups * width, rank], values))
}
