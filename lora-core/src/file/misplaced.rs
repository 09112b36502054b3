//! Paths that are given in the place of an adapter directory, and what to give instead.

use super::config::CONFIG_FILE;
use super::tensors::{PICKLED_FILE, WEIGHTS_FILE};
use crate::error::LoraError;
use crate::files::{Directory, directories_with, listed};

/// Returns the error for a path without `adapter_config.json`, which says what is there.
pub(super) fn not_an_adapter(dir: &Directory) -> LoraError {
    let message = if !dir.exists() {
        "there is no such directory".into()
    } else if !dir.is_directory() {
        "this is a file; give the directory with the adapter, and convert a file of loralib with `lora convert`".into()
    } else {
        in_directory(dir)
    };
    LoraError::NotAnAdapter {
        path: dir.path().into(),
        message,
    }
}

fn in_directory(dir: &Directory) -> String {
    let below = |name| {
        if dir.is_in_memory() {
            return Vec::new();
        }
        directories_with(dir.path(), name)
    };
    let adapters = below(CONFIG_FILE);
    if !adapters.is_empty() {
        return format!("it has no {CONFIG_FILE} itself; give {}", listed(&adapters));
    }
    if dir.file("config.json").is_file() {
        return "this is a model; give it as the model (`--model`), and the directory of an adapter as the adapter"
            .into();
    }
    let models = below("config.json");
    if !models.is_empty() {
        let models = listed(&models);
        return format!("it holds a model; give {models} as the model (`--model`)");
    }
    let weights = [WEIGHTS_FILE, PICKLED_FILE];
    match weights.iter().find(|name| dir.file(name).is_file()) {
        Some(weights) => format!(
            "it has {weights}, but no {CONFIG_FILE}, which PEFT writes beside it; copy that file too"
        ),
        None => format!("it has no {CONFIG_FILE}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn message(files: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        not_an_adapter(&dir.path().into()).to_string()
    }

    #[test]
    fn the_error_says_where_the_adapter_is_or_what_is_there_instead() {
        for (files, expected) in [
            (
                &["adapter/adapter_config.json", "state.json"][..],
                "adapter",
            ),
            (
                &["checkpoints/step-1/adapter_config.json"],
                "checkpoints/step-1",
            ),
            (
                &["config.json", "model.safetensors"],
                "give it as the model",
            ),
            (&["model/config.json"], "model as the model (`--model`)"),
            (
                &["adapter_model.bin"],
                "it has adapter_model.bin, but no adapter_config.json",
            ),
            (&["notes.txt"], "it has no adapter_config.json"),
            (&[], "it has no adapter_config.json"),
        ] {
            let message = message(files);
            assert!(message.contains(expected), "{files:?}: {message}");
        }
        let many: Vec<String> = (0..6)
            .map(|i| format!("a{i}/adapter_config.json"))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message = message(&many);
        assert!(message.ends_with("a3 or one of 2 more"), "{message}");
    }

    #[test]
    fn a_path_to_nothing_or_to_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lora.bin");
        let message = not_an_adapter(&path.as_path().into()).to_string();
        assert!(message.contains("no such directory"), "{message}");
        fs::write(&path, "").unwrap();
        let message = not_an_adapter(&path.as_path().into()).to_string();
        assert!(message.contains("lora convert"), "{message}");
    }
}
