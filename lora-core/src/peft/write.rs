//! Writing adapters as a PEFT directory.

use super::config::CONFIG_FILE;
use super::json::{PeftOptions, to_json};
use super::tensors::{
    SLICES_KEY, SavedSlices, SlicesByModule, WEIGHTS_FILE, file_shapes, names, transpose,
};
use crate::files::{Overwrite, write_dir, write_file};
use crate::modules::{Factor, factors};
use crate::{AdaptedModule, AttachReport, LoraError};
use burn::module::Module;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::HashMap;
use std::path::Path;

/// Writes the adapters of a module as a PEFT directory, atomically.
///
/// # Errors
/// [`LoraError::AlreadyExists`] if the directory is there and may not be replaced,
/// [`LoraError::NotAttached`] if the report is not this module's, or [`LoraError::Io`].
pub fn save<M: Module>(
    module: &M,
    report: &AttachReport,
    dir: &Path,
    options: &PeftOptions,
    overwrite: Overwrite,
) -> Result<(), LoraError> {
    let tensors = file_tensors(module, report)?;
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes);
        view.map(|view| (name.as_str(), view))
    });
    let malformed = |error: safetensors::SafeTensorError| LoraError::Malformed {
        path: dir.join(WEIGHTS_FILE),
        message: error.to_string(),
    };
    let views = views.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
    let weights = safetensors::serialize(views, Some(metadata(report))).map_err(malformed)?;
    let config = format!("{:#}\n", to_json(report, options));
    write_dir(dir, overwrite, |dir| {
        let file = |name: &str, bytes: &[u8]| {
            write_file(&dir.join(name), Overwrite::Refuse, |w| w.write_all(bytes))
        };
        file(CONFIG_FILE, config.as_bytes())?;
        file(WEIGHTS_FILE, &weights)
    })
}

fn metadata(report: &AttachReport) -> HashMap<String, String> {
    let mut metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let slices: SlicesByModule = report
        .modules
        .iter()
        .filter_map(|module| {
            let slices = module.slices.as_ref()?;
            let saved = SavedSlices {
                parts: slices.parts,
                adapted: slices.adapted.clone(),
            };
            Some((module.module.clone(), saved))
        })
        .collect();
    if !slices.is_empty() {
        // A map of strings and numbers always has a JSON form.
        let text = serde_json::to_string(&slices).unwrap_or_default();
        metadata.insert(SLICES_KEY.into(), text);
    }
    metadata
}

type FileTensor = (String, [usize; 2], Vec<u8>);

fn file_tensors<M: Module>(
    module: &M,
    report: &AttachReport,
) -> Result<Vec<FileTensor>, LoraError> {
    let attached = factors(module);
    let mut tensors = Vec::with_capacity(2 * report.modules.len());
    for adapted in &report.modules {
        let not_attached = || LoraError::NotAttached {
            module: adapted.module.clone(),
        };
        let factor = |name: &str| {
            let mut all = attached.iter();
            all.find(|f| f.module == adapted.module && f.name == name)
                .and_then(to_host)
                .ok_or_else(not_attached)
        };
        let [shape_a, shape_b] = adapted.factor_shapes();
        let (a, b) = (factor("a")?, factor("b")?);
        if a.len() != shape_a[0] * shape_a[1] || b.len() != shape_b[0] * shape_b[1] {
            return Err(not_attached());
        }
        let b = to_dense(adapted, b);
        let rank = adapted.total_rank();
        let a = transpose(&a, shape_a);
        let b = transpose(&b, [rank, adapted.shape[1]]);
        let values = [a, b].into_iter();
        for ((name, shape), values) in names(adapted)
            .into_iter()
            .zip(file_shapes(adapted))
            .zip(values)
        {
            let bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
            tensors.push((name, shape, bytes));
        }
    }
    Ok(tensors)
}

fn to_host(factor: &Factor) -> Option<Vec<f32>> {
    let data = factor.value.clone().into_data().convert::<f32>();
    data.try_to_vec::<f32>().ok()
}

/// The blocks of a sliced `B` at their places in `[G · r, d_out]`.
fn to_dense(adapted: &AdaptedModule, b: Vec<f32>) -> Vec<f32> {
    let Some(slices) = &adapted.slices else {
        return b;
    };
    let d_out = adapted.shape[1];
    let width = d_out / slices.parts;
    let mut dense = vec![0.0; adapted.total_rank() * d_out];
    for (row, values) in b.chunks_exact(width).enumerate() {
        let start = row * d_out + slices.adapted[row / adapted.rank] * width;
        dense[start..start + width].copy_from_slice(values);
    }
    dense
}
