//! Writing a model as a directory that transformers loads.

use super::build::on_host;
use super::config::CONFIG_FILE;
use super::keys::{EMBEDDING, HEAD, file_name, transpose};
use super::{Gpt2Config, Gpt2LmHead};
use crate::ModelError;
use crate::checkpoint::{ExportDType, ExportReport, SafetensorsExport};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use lora_core::LoraError;
use lora_core::files::{Overwrite, write_dir, write_file};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files of a model directory that an export takes over unchanged: the tokenizer's, and how to
/// generate.
const COMPANIONS: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// How a model is exported.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// Element type of the weights. Default f32.
    pub dtype: ExportDType,
    /// The directory that the model was loaded from: its tokenizer files and its
    /// `generation_config.json` are copied. Default none.
    pub base_dir: Option<PathBuf>,
}

impl Gpt2LmHead {
    /// Writes the model as a directory that `AutoModelForCausalLM.from_pretrained` loads:
    /// `model.safetensors` (in shards above 5 GB), `config.json`, and the files of the base model
    /// beside them. The directory appears whole or not at all.
    ///
    /// A head that is the token embedding is not written, and the configuration says that it is
    /// tied; a head that has become another is written, and the configuration says that it is not.
    ///
    /// # Errors
    /// [`ModelError::Export`] where the model has adapters: merge or detach them first.
    /// [`ModelError::TensorOverflow`] where a weight does not fit in the element type,
    /// [`LoraError::AlreadyExists`] and [`LoraError::Io`] inside [`ModelError::Lora`].
    pub fn export(
        &self,
        config: &Gpt2Config,
        dir: impl AsRef<Path>,
        options: &ExportOptions,
        overwrite: Overwrite,
    ) -> Result<ExportReport, ModelError> {
        let dir = dir.as_ref();
        let mut parameters = Parameters::of(self, dir)?;
        let tied = match parameters.tensors.contains_key(HEAD) {
            false => true,
            true => config.tie_word_embeddings && parameters.head_is_embedding()?,
        };
        if tied {
            parameters.tensors.remove(HEAD);
        }
        let plan: Vec<_> = parameters
            .tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone()))
            .collect();
        let text = format!(
            "{:#}\n",
            Value::Object(config_json(config, tied, options.dtype))
        );

        let mut report = None;
        write_dir(dir, overwrite, |fresh| {
            let written = SafetensorsExport::new(fresh)
                .with_dtype(options.dtype)
                .write(&plan, |name| parameters.values(name))?;
            write_file(&fresh.join(CONFIG_FILE), Overwrite::Refuse, |writer| {
                writer.write_all(text.as_bytes())
            })?;
            copy_companions(options.base_dir.as_deref(), fresh)?;
            report = Some(written);
            Ok::<(), ModelError>(())
        })?;
        let mut report = report.ok_or_else(|| export_error(dir, "nothing was written".into()))?;
        for file in &mut report.files {
            // It was written under a temporary name.
            if let Some(name) = file.file_name() {
                *file = dir.join(name);
            }
        }
        Ok(report)
    }
}

fn export_error(dir: &Path, message: String) -> ModelError {
    ModelError::Export {
        path: dir.to_path_buf(),
        message,
    }
}

/// `config.json` of the exported model.
fn config_json(config: &Gpt2Config, tied: bool, dtype: ExportDType) -> Map<String, Value> {
    let mut object = config.to_json();
    // Where it lay is nobody's concern, and transformers 5 writes `dtype` for `torch_dtype`.
    object.shift_remove("_name_or_path");
    object.shift_remove("torch_dtype");
    object.insert("architectures".into(), json!(["GPT2LMHeadModel"]));
    object.insert("dtype".into(), json!(dtype.torch_name()));
    object.insert("tie_word_embeddings".into(), json!(tied));
    object
}

fn copy_companions(base: Option<&Path>, fresh: &Path) -> Result<(), ModelError> {
    let Some(base) = base else {
        return Ok(());
    };
    for name in COMPANIONS {
        let from = base.join(name);
        if from.is_file() {
            let bytes = std::fs::read(&from).map_err(LoraError::io(&from))?;
            write_file(&fresh.join(name), Overwrite::Refuse, |writer| {
                writer.write_all(&bytes)
            })?;
        }
    }
    Ok(())
}

/// The parameters of a model under their names in a file. Values stay on the device until they are
/// asked for.
#[derive(Default)]
struct Parameters {
    tensors: BTreeMap<String, FileTensor>,
    path: Vec<String>,
    /// The first parameter that has an adapter.
    adapted: Option<String>,
}

struct FileTensor {
    /// As in the file.
    shape: Vec<usize>,
    /// All values in a row, in this crate's layout.
    values: Tensor<1>,
}

impl Parameters {
    fn of(model: &Gpt2LmHead, dir: &Path) -> Result<Self, ModelError> {
        let mut parameters = Self::default();
        model.visit(&mut parameters);
        match parameters.adapted {
            None => Ok(parameters),
            Some(path) => Err(export_error(
                dir,
                format!(
                    "`{path}` has an adapter; merge the adapters into the weights, or detach them, first"
                ),
            )),
        }
    }

    /// The values of a tensor as in the file.
    fn values(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let missing = || ModelError::TensorMissing {
            names: vec![name.into()],
        };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let values = on_host(name, tensor.values.clone())?;
        Ok(match (name, tensor.shape.as_slice()) {
            (HEAD, &[vocab, d_model]) => transpose(&values, [d_model, vocab]),
            _ => values,
        })
    }

    /// Whether the head holds the values of the token embedding.
    fn head_is_embedding(&self) -> Result<bool, ModelError> {
        Ok(self.values(HEAD)? == self.values(EMBEDDING)?)
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, container: &str) {
        if container == "Reparameterization" && self.adapted.is_none() {
            self.adapted = Some(self.path.join("."));
        }
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let value = param.base();
        let mut shape = value.dims().to_vec();
        if path == HEAD {
            shape.reverse(); // [d_model, vocab] -> [vocab, d_model]
        }
        let count: usize = shape.iter().product();
        let tensor = FileTensor {
            shape,
            values: value.reshape([count]),
        };
        self.tensors.insert(file_name(&path), tensor);
    }
}
