//! Directories that are given in the place of a model, and what to give instead.

use crate::error::ModelError;
use lora_core::file::{CONFIG_FILE as ADAPTER_CONFIG, ConfigFile};
use lora_core::files::{Directory, directories_with, listed};
use std::path::{Path, PathBuf};

/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 1024;

/// Endings of weights in formats that are not read, with the programs that write them.
const OTHER_FORMATS: [(&str, &str); 6] = [
    (".h5", "TensorFlow"),
    (".msgpack", "Flax"),
    (".ot", "rust-bert"),
    (".gguf", "llama.cpp"),
    (".onnx", "ONNX"),
    (".pth", "PyTorch"),
];

/// Returns the error for a directory without `config.json`, if it tells what to give instead.
pub(crate) fn without_config(dir: &Directory) -> Option<ModelError> {
    if !dir.is_directory() {
        return None;
    }
    if let Some(error) = adapter(dir) {
        return Some(error);
    }
    elsewhere(dir).or_else(|| {
        let message = "it has no config.json, which tells the kind and sizes of a model";
        Some(error(dir.path(), message.into()))
    })
}

/// Returns the error for a directory whose subdirectories have what it lacks itself.
fn elsewhere(dir: &Directory) -> Option<ModelError> {
    if dir.is_in_memory() {
        return None;
    }
    let dir = dir.path();
    let is_adapter = |dir: &PathBuf| dir.join(ADAPTER_CONFIG).is_file();
    let mut models = directories_with(dir, "config.json");
    models.retain(|dir| !is_adapter(dir));
    if !models.is_empty() {
        let message = format!("it has no config.json itself; give {}", listed(&models));
        return Some(error(dir, message));
    }
    let adapters = directories_with(dir, ADAPTER_CONFIG);
    if !adapters.is_empty() {
        let message = format!(
            "it holds adapters; give their base as the model, and {} as the adapter (`--adapter`)",
            listed(&adapters)
        );
        return Some(error(dir, message));
    }
    None
}

/// Returns the error for a directory without weights, if it tells what to give instead.
pub(crate) fn without_weights(dir: &Directory) -> Option<ModelError> {
    if let Some(error) = adapter(dir) {
        return Some(error);
    }
    let names = dir.names(MAX_ENTRIES);
    let (name, program) = names.iter().find_map(|name| {
        let mut formats = OTHER_FORMATS.iter();
        let (_, program) = formats.find(|(ending, _)| name.ends_with(ending))?;
        Some((name, program))
    })?;
    let message = format!(
        "its weights are in {name}, a format of {program} that is not read; save the model with `save_pretrained` of transformers, \
         as model.safetensors"
    );
    Some(error(dir.path(), message))
}

/// Returns the error for the directory of an adapter; `None` for any other.
fn adapter(dir: &Directory) -> Option<ModelError> {
    if !dir.file(ADAPTER_CONFIG).is_file() {
        return None;
    }
    let config = ConfigFile::read(dir).ok();
    let base = config.as_ref().and_then(|config| {
        let base = config.keys().get("base_model_name_or_path")?.as_str()?;
        Some(format!(", {base},"))
    });
    let message = format!(
        "this is an adapter; give its base{} as the model, and this directory as the adapter (`--adapter`)",
        base.unwrap_or_default()
    );
    Some(error(dir.path(), message))
}

fn error(dir: &Path, message: String) -> ModelError {
    ModelError::NotAModel {
        path: dir.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn the_error_says_where_the_model_is_or_what_is_there_instead() {
        for (files, expected) in [
            (&[("snapshots/abc/config.json", "{}")][..], "snapshots/abc"),
            (
                &[(
                    "adapter_config.json",
                    r#"{"base_model_name_or_path": "gpt2"}"#,
                )],
                "give its base, gpt2, as the model",
            ),
            (
                &[
                    ("adapter/adapter_config.json", "{}"),
                    ("adapter/config.json", "{}"),
                ],
                "it holds adapters; give their base as the model, and ",
            ),
            (&[("model.safetensors", "")], "it has no config.json, which"),
        ] {
            let dir = directory(files);
            let message = without_config(&dir.path().into()).unwrap().to_string();
            assert!(message.contains(expected), "{files:?}: {message}");
        }
        assert!(without_config(&"no/such/directory".into()).is_none());
    }

    #[test]
    fn weights_of_other_programs_are_named() {
        let dir = directory(&[("config.json", "{}"), ("tf_model.h5", "x")]);
        let message = without_weights(&dir.path().into()).unwrap().to_string();
        assert!(
            message.contains("tf_model.h5, a format of TensorFlow"),
            "{message}"
        );
        let dir = directory(&[("config.json", "{}"), ("adapter_config.json", "{}")]);
        let message = without_weights(&dir.path().into()).unwrap().to_string();
        assert!(
            message.contains("this is an adapter; give its base as"),
            "{message}"
        );
        assert!(without_weights(&directory(&[("config.json", "{}")]).path().into()).is_none());
    }
}
