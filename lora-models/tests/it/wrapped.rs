//! Weights whose names lie deeper in their file than in the model, or that are no numbers, or no weights at all.

use crate::common::{TOLERANCE, fixture, model_tensors};
use burn::tensor::{Bool, Device, Int, Tensor};
use lora_models::checkpoint::Checkpoint;
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{LoadOptions, ModelError, Pretrained};
use std::path::Path;
use tempfile::TempDir;
use test_support::compare::assert_near;
use test_support::tensors::host;

/// A model directory with a configuration of the fixtures and these weights.
fn model(config: &str, weights: &Path, name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let config = fixture(config).join("config.json");
    std::fs::copy(config, dir.path().join("config.json")).unwrap();
    std::fs::copy(weights, dir.path().join(name)).unwrap();
    dir
}

fn gpt2(dir: &Path) -> Result<(Gpt2LmHead, lora_models::checkpoint::LoadReport), ModelError> {
    Gpt2LmHead::load(dir, &LoadOptions::default(), &Device::flex())
}

#[test]
fn names_below_wrappers_and_dictionaries_are_those_of_the_model() {
    let expected = model_tensors("wrapped");
    let ids: Tensor<2, Int> = expected.ids("ids", &Device::flex());
    let (logits, _) = expected.floats("logits");
    for (form, root, of_training) in [
        ("ddp", "module.", 0),
        ("compiled", "", 0),
        ("block", "", 0),
        ("trainer", "model.", 1),
        ("lightning", "state_dict.model.", 1),
        ("inner", "net.", 0),
    ] {
        let weights = fixture("wrapped").join(format!("{form}.bin"));
        let dir = model("wrapped/gpt2", &weights, "pytorch_model.bin");
        let (model, report) = gpt2(dir.path()).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_near(
            &host(model.forward(ids.clone(), None)),
            &logits,
            TOLERANCE,
            form,
        );
        assert_eq!(report.root, root, "{form}");
        let training = report.ignored.iter();
        let training = training.filter(|ignored| ignored.reason == "state of the training");
        assert_eq!(training.count(), of_training, "{form}");
    }
    // A tensor that belongs to no part is still an error, which names the file.
    let weights = fixture("wrapped/value_head.bin");
    let dir = model("wrapped/gpt2", &weights, "pytorch_model.bin");
    let error = gpt2(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ModelError::TensorUnexpected { names, .. } if names == &["v_head.summary.weight"])
    );
    let path = dir.path().display().to_string();
    assert!(error.to_string().starts_with(&path), "{error}");
}

#[test]
fn one_of_two_tied_tensors_stands_for_both() {
    let expected = model_tensors("wrapped");
    let weights = fixture("wrapped/save_model.safetensors");
    let names = Checkpoint::open(&weights).unwrap();
    assert!(names.contains("lm_head.weight") && !names.contains("transformer.wte.weight"));
    let dir = model("wrapped/gpt2", &weights, "model.safetensors");
    let (model_, _) = gpt2(dir.path()).unwrap();
    let ids: Tensor<2, Int> = expected.ids("ids", &Device::flex());
    let (logits, _) = expected.floats("logits");
    assert_near(
        &host(model_.forward(ids.clone(), None)),
        &logits,
        TOLERANCE,
        "save_model",
    );

    // The encoder of a masked language model: RoBERTa's output layer comes first by name.
    let weights = fixture("wrapped/save_model_roberta.safetensors");
    let saved = model("wrapped/roberta", &weights, "model.safetensors");
    let [whole, saved] = [fixture("wrapped/roberta"), saved.path().into()].map(|dir| {
        let options = ClassifierOptions::default();
        let (model, _) = Classifier::load(dir, &options, &Device::flex()).unwrap();
        let mask = Tensor::<2, Bool>::full([1, 8], true, &Device::flex());
        host(model.forward(ids.clone(), &mask, None))
    });
    assert_eq!(whole, saved);

    // Another program may not note in the file what it dropped.
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    std::fs::write(&path, safetensors::serialize(tensors.iter(), None).unwrap()).unwrap();
    let (model_, _) = gpt2(dir.path()).unwrap();
    assert_near(
        &host(model_.forward(ids.clone(), None)),
        &logits,
        TOLERANCE,
        "no notes",
    );
    // Without the tie, the missing tensor is then an error.
    let config = std::fs::read_to_string(fixture("wrapped/gpt2/config.json")).unwrap();
    assert!(config.contains("\"tie_word_embeddings\": true"), "{config}");
    let config = config.replace(
        "\"tie_word_embeddings\": true",
        "\"tie_word_embeddings\": false",
    );
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    match gpt2(dir.path()) {
        Err(ModelError::TensorMissing { names, .. }) => {
            assert_eq!(names, ["transformer.wte.weight"])
        }
        other => panic!("{:?}", other.err()),
    }
}

/// Copies the weights of a fixture and puts bytes at the end of a tensor's values.
fn broken(from: &str, tensor: &str, bytes: &[u8]) -> TempDir {
    let path = fixture(from).join("model.safetensors");
    let dir = model(from, &path, "model.safetensors");
    let mut content = std::fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(content[..8].try_into().unwrap()) as usize;
    let tensors = safetensors::SafeTensors::deserialize(&content).unwrap();
    let data = tensors.tensor(tensor).unwrap();
    let end = data.data().as_ptr() as usize + data.data().len() - content.as_ptr() as usize;
    assert!(end > start);
    content[end - bytes.len()..end].copy_from_slice(bytes);
    std::fs::write(dir.path().join("model.safetensors"), content).unwrap();
    dir
}

#[test]
fn values_that_are_not_finite_are_refused_however_they_are_read() {
    let nan = f32::NAN.to_le_bytes();
    let infinite = f32::NEG_INFINITY.to_le_bytes();
    let refused = |error: ModelError, tensor: &str| match error {
        ModelError::NotFinite { path, name, .. } => {
            assert_eq!(name, tensor);
            assert!(path.ends_with("model.safetensors"), "{}", path.display());
        }
        other => panic!("{tensor}: {other}"),
    };
    // In the pages of the file, as f32 and in 16 bits, and converted.
    let c_fc = "transformer.h.0.mlp.c_fc.weight";
    refused(
        gpt2(broken("gpt2_tied", c_fc, &nan).path()).unwrap_err(),
        c_fc,
    );
    let bias = "transformer.ln_f.bias";
    refused(
        gpt2(broken("gpt2_tied", bias, &infinite).path()).unwrap_err(),
        bias,
    );
    for (from, bits) in [
        ("gpt2_tied_f16", [0x00, 0x7e]),
        ("gpt2_tied_bf16", [0xc0, 0x7f]),
    ] {
        let dir = broken(from, c_fc, &bits);
        refused(gpt2(dir.path()).unwrap_err(), c_fc);
        let floats = lora_core::BaseFloats::new(lora_core::BaseDType::Auto);
        let options = LoadOptions::default().with_floats(floats);
        let error = Gpt2LmHead::load(dir.path(), &options, &Device::flex());
        refused(error.unwrap_err(), c_fc);
    }
    // Transposed: PyTorch's linear layers.
    let dense = "roberta.encoder.layer.0.output.dense.weight";
    let dir = broken("wrapped/roberta", dense, &nan);
    let error = Classifier::load(dir.path(), &ClassifierOptions::default(), &Device::flex());
    refused(error.unwrap_err(), dense);
}

#[test]
fn a_git_lfs_pointer_is_named_wherever_a_file_should_be() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 548105171\n";
    for name in ["model.safetensors", "pytorch_model.bin", "config.json"] {
        let dir = tempfile::tempdir().unwrap();
        let config = fixture("wrapped/gpt2/config.json");
        std::fs::copy(config, dir.path().join("config.json")).unwrap();
        std::fs::write(dir.path().join(name), pointer).unwrap();
        let error = gpt2(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("Git LFS pointer") && error.contains(name),
            "{error}"
        );
    }
    // Three lines would be a vocabulary of three words.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    std::fs::write(dir.path().join("vocab.txt"), pointer).unwrap();
    let error = lora_models::tokenizer::Tokenizer::from_dir(dir.path());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("Git LFS pointer"), "{error}");
}
