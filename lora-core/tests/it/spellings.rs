//! Adapters whose files are not as `save_pretrained` writes them today compute the same, and none is read as nothing.

use crate::common::{assert_close, fixture, fixtures};
use crate::peft::{copy, edit_config, edit_weights, load};
use burn::tensor::Device;
use lora_core::LoraError;
use lora_core::file::{AdapterDir, PICKLED_FILE, StoredAdapter, WEIGHTS_FILE};
use std::path::Path;

/// A directory with the configuration of the fixture and a pickle in the place of its tensors.
fn pickled(form: &str) -> tempfile::TempDir {
    let dir = copy();
    std::fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
    let pickle = fixtures().join("spellings").join(format!("{form}.bin"));
    std::fs::copy(pickle, dir.path().join(PICKLED_FILE)).unwrap();
    dir
}

fn assert_computes(dir: &Path, expected: &[f32], what: &str) {
    let (net, _) = load(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let x = fixture("peft_linear.safetensors").tensor::<2>("x", &Device::flex());
    let output = net.v.forward(net.q.forward(x));
    // Float32 sums of a dozen products of values around one.
    assert_close(output, expected, 1e-5, what);
}

fn remarks(dir: &Path) -> Vec<String> {
    let adapter = AdapterDir::open(dir).unwrap();
    adapter.tensors().unwrap().remarks().to_vec()
}

#[test]
fn pickles_of_every_spelling_compute_what_peft_computes() {
    let expected = fixture("peft_linear.safetensors").values("output");
    for form in ["saved", "state_dict", "compiled", "nested"] {
        let dir = pickled(form);
        assert_computes(dir.path(), &expected, form);
        assert_eq!(remarks(dir.path()).is_empty(), form == "saved", "{form}");
        // What is written from it has PEFT's names.
        let written = tempfile::tempdir().unwrap();
        let written = written.path().join("adapter");
        let stored = StoredAdapter::read(dir.path()).unwrap();
        stored.save(&written, false.into()).unwrap();
        assert_computes(&written, &expected, form);
        assert!(remarks(&written).is_empty(), "{form}");
    }
    // Safetensors come first, as in PEFT.
    let dir = copy();
    std::fs::write(dir.path().join(PICKLED_FILE), "no pickle").unwrap();
    assert_computes(dir.path(), &expected, "both");
}

#[test]
fn the_prefix_may_be_missing_or_there_twice() {
    let expected = fixture("peft_linear.safetensors").values("output");
    for prefix in [
        "",
        "base_model.model.base_model.model.",
        "module.base_model.model.",
    ] {
        let dir = copy();
        edit_weights(dir.path(), |tensors| {
            for (name, ..) in tensors {
                *name = name.replace("base_model.model.", prefix);
            }
        });
        assert_computes(dir.path(), &expected, prefix);
        assert_eq!(remarks(dir.path()).len(), 1, "{prefix}");
    }
    // Of one file, some names with it and some without are two things.
    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        tensors[0].0 = tensors[0].0.replace("base_model.model.", "");
    });
    let error = StoredAdapter::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("without PEFT's prefix"), "{error}");
}

#[test]
fn methods_that_change_the_training_alone_are_plain_lora() {
    let expected = fixture("spellings/expected.safetensors");
    for method in ["velora", "monteclora"] {
        let dir = fixtures().join("spellings").join(method);
        assert_computes(&dir, &expected.values(method), method);
        assert_eq!(
            StoredAdapter::read(&dir).unwrap().saved.len(),
            0,
            "{method}"
        );
    }
}

#[test]
fn a_file_without_an_adapter_is_an_error_and_not_an_adapter_of_nothing() {
    let dir = pickled("empty");
    let error = StoredAdapter::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("holds no tensors"), "{error}");
    assert!(matches!(
        load(dir.path()),
        Err(LoraError::MissingTensors { .. })
    ));

    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        for (name, ..) in tensors {
            *name = name.replace("lora_A.weight", "lora_a.weight");
        }
    });
    let error = StoredAdapter::read(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("no name of a tensor of PEFT's LoRA"),
        "{error}"
    );

    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        tensors[0].0 = tensors[0].0.replace(".weight", ".de.weight");
        tensors[1].0 = tensors[1].0.replace(".weight", ".fr.weight");
    });
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("several adapters, `de`, `fr`"), "{error}");
}

#[test]
fn shards_that_were_not_gathered_are_named() {
    let dir = copy();
    edit_weights(dir.path(), |tensors| {
        for (_, shape, data) in tensors {
            (*shape, *data) = (vec![0], Vec::new());
        }
    });
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("ZeRO-3"), "{error}");
}

#[test]
fn what_stands_in_the_place_of_the_tensors_is_named() {
    for (name, content, reason) in [
        (
            WEIGHTS_FILE,
            "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 4\n",
            "Git LFS",
        ),
        (
            PICKLED_FILE,
            "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 4\n",
            "Git LFS",
        ),
        (
            PICKLED_FILE,
            "cposix\nsystem\n(Vtrue\ntR.",
            "not a file of torch.save",
        ),
    ] {
        let dir = copy();
        std::fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
        std::fs::write(dir.path().join(name), content).unwrap();
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
    // An option that does change the arithmetic is still refused.
    let dir = copy();
    edit_config(dir.path(), |config| {
        config["kasa_config"] = serde_json::json!({"x": 1})
    });
    assert!(matches!(
        load(dir.path()),
        Err(LoraError::UnsupportedKey { .. })
    ));
}
