//! Writing adapters as a PEFT directory.

use super::config::CONFIG_FILE;
use super::json::{PeftOptions, to_json};
use super::tensors::{
    PREFIX, SLICES_KEY, SavedSlices, SlicesByModule, WEIGHTS_FILE, expand, file_shapes, names,
    transpose,
};
use crate::files::{Overwrite, write_dir, write_file};
use crate::modules::{Factor, base_value, factors};
use crate::{AttachReport, LoraError};
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
        for (name, bytes) in &options.companions {
            file(name, bytes)?;
        }
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
            Some((module.module.clone(), SavedSlices::from(slices)))
        })
        .collect();
    if !slices.is_empty() {
        // A map of strings and numbers always has a JSON form.
        let text = serde_json::to_string(&slices).unwrap_or_default();
        metadata.insert(SLICES_KEY.into(), text);
    }
    metadata
}

type FileTensor = (String, Vec<usize>, Vec<u8>);

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
            all.find(|f| f.parameter == adapted.parameter && f.name == name)
                .and_then(to_host)
                .ok_or_else(not_attached)
        };
        let [shape_a, shape_b] = adapted.factor_shapes();
        let (a, b) = (factor("a")?, factor("b")?);
        if a.len() != shape_a[0] * shape_a[1] || b.len() != shape_b[0] * shape_b[1] {
            return Err(not_attached());
        }
        let b = match &adapted.slices {
            None => b,
            Some(slices) => expand(&b, adapted.rank, adapted.shape[1], slices),
        };
        let rank = adapted.total_rank();
        let a = transpose(&a, shape_a);
        let b = transpose(&b, [rank, adapted.shape[1]]);
        let values = [a, b].into_iter();
        for ((name, shape), values) in names(adapted)
            .into_iter()
            .zip(file_shapes(adapted))
            .zip(values)
        {
            tensors.push((name, shape.to_vec(), to_bytes(&values)));
        }
    }
    for saved in &report.saved {
        let values = base_value(module, &saved.parameter);
        let values = values.filter(|values| values.len() == saved.elements());
        let mut values = values.ok_or_else(|| LoraError::NotAttached {
            module: saved.name.clone(),
        })?;
        if let (true, &[rows, columns]) = (saved.transposed, saved.shape.as_slice()) {
            values = transpose(&values, [rows, columns]);
        }
        let name = format!("{PREFIX}{}", saved.name);
        tensors.push((name, saved.file_shape(), to_bytes(&values)));
    }
    Ok(tensors)
}

fn to_bytes(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.collect()
}

fn to_host(factor: &Factor) -> Option<Vec<f32>> {
    let data = factor.value.clone().into_data().convert::<f32>();
    data.try_to_vec::<f32>().ok()
}
