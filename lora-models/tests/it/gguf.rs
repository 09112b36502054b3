//! Adapters for llama.cpp are, byte for byte, what its own package writes.

use crate::common::fixture;
use burn::tensor::{Device, Int, Tensor};
use lora_core::LayerKind;
use lora_core::file::{StoredAdapter, StoredTensor};
use lora_core::files::Overwrite;
use lora_models::checkpoint::ExportDType;
use lora_models::decoder::DecoderLm;
use lora_models::formats::gguf::{self, ADAPTER_FILE, ElementType, MODEL_FILE, MODELFILE};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{ExportOptions, LoadOptions, ModelConfig, Pretrained};
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::host;

fn base(name: &str) -> ModelConfig {
    ModelConfig::from_dir(fixture(name)).unwrap()
}

fn adapter(name: &str) -> StoredAdapter {
    StoredAdapter::read(fixture(name)).unwrap()
}

#[test]
fn adapters_are_the_files_that_llama_cpp_s_package_writes() {
    let dir = tempfile::tempdir().unwrap();
    for (name, model, from) in [
        ("llama", "decoders/llama", "decoders/llama/all"),
        ("qwen3", "decoders/qwen3", "decoders/qwen3/all"),
        ("phi3", "decoders/phi3", "decoders/phi3/all"),
        ("gpt2", "gpt2_tied", "adapters/rslora"),
        ("gpt2_ends", "gpt2_untied", "adapters/head_embed"),
    ] {
        let output = dir.path().join(name);
        let (adapter, model) = (adapter(from), base(model));
        gguf::write(&adapter, &model, "a/base", &output, Overwrite::Refuse).unwrap();
        let found = std::fs::read(output.join(ADAPTER_FILE)).unwrap();
        let expected = std::fs::read(fixture("gguf").join(format!("{name}.gguf"))).unwrap();
        assert!(found == expected, "{name}");
        let modelfile = std::fs::read_to_string(output.join(MODELFILE)).unwrap();
        assert_eq!(modelfile, "FROM a/base\nADAPTER ./adapter.gguf\n");
    }
}

/// Copies files into a directory.
fn model_dir(base: &str, tokenizer: &str, dir: &Path) -> PathBuf {
    let copy = dir.join("base");
    std::fs::create_dir_all(&copy).unwrap();
    for (from, name) in [
        (base, "config.json"),
        (base, "model.safetensors"),
        (tokenizer, "tokenizer.json"),
    ] {
        std::fs::copy(fixture(from).join(name), copy.join(name)).unwrap();
    }
    copy
}

/// Exports a model, compares the file with that of llama.cpp's package, and reads it back.
fn exported<M: Pretrained<Options = LoadOptions>>(
    base: &Path,
    dtype: ElementType,
    expected: &str,
) -> (M, M) {
    let device = Device::flex();
    let (model, _) = M::load(base, &LoadOptions::default(), &device).unwrap();
    let output = base.with_file_name(expected);
    let options = ExportOptions {
        base_dir: Some(base.into()),
        ..ExportOptions::default()
    };
    let written = gguf::export_model(&model, &output, dtype, &options, Overwrite::Refuse);
    let (report, config) = written.unwrap();
    let found = std::fs::read(output.join(MODEL_FILE)).unwrap();
    let expected_file = fixture("gguf").join(format!("{expected}.gguf"));
    let expected_bytes = std::fs::read(expected_file).unwrap();
    let differs = found.iter().zip(&expected_bytes).position(|(f, e)| f != e);
    assert_eq!(
        (found.len(), differs),
        (expected_bytes.len(), None),
        "{expected}"
    );
    assert_eq!(report.file_bytes, found.len() as u64);
    let modelfile = std::fs::read_to_string(output.join(MODELFILE)).unwrap();
    assert_eq!(modelfile, "FROM ./model.gguf\n");
    let path = output.join(MODEL_FILE);
    let again = gguf::read_model(&path, &config, &LoadOptions::default(), &device).unwrap();
    (model, again)
}

#[test]
fn models_are_the_files_that_llama_cpp_s_package_writes_and_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let ids = || Tensor::<2, Int>::from_ints([[5, 17, 20, 3, 42, 9, 33]], &Device::flex());

    let base = model_dir("gpt2_tied", "gpt2_tied", dir.path());
    let (model, again) = exported::<Gpt2LmHead>(&base, ExportDType::F32.into(), "gpt2_model");
    let [found, expected] = [again, model].map(|model| host(model.forward(ids(), None)));
    assert_eq!(found, expected);

    let base = model_dir("decoders/llama", "gguf", dir.path());
    let (model, again) = exported::<DecoderLm>(&base, ExportDType::F16.into(), "llama_model");
    let [found, expected] = [again, model].map(|model| host(model.forward(ids(), None)));
    assert_near(&found, &expected, 5e-3, "f16");
    assert!(found != expected);
}

#[test]
fn a_tokenizer_or_model_without_a_known_form_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let refused = |base: &Path, words: &[&str]| {
        let (model, _) = DecoderLm::load(base, &LoadOptions::default(), &device).unwrap();
        let options = ExportOptions {
            base_dir: Some(base.into()),
            ..ExportOptions::default()
        };
        let output = base.with_file_name("out");
        let found = gguf::export_model(
            &model,
            &output,
            ElementType::Q8_0,
            &options,
            Overwrite::Refuse,
        );
        let message = found.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert!(!output.exists());
    };
    let base = model_dir("decoders/gemma2", "gguf", dir.path());
    refused(&base, &["`gemma2`", "llama.cpp"]);
    let base = model_dir("decoders/mistral", "gguf", dir.path());
    refused(&base, &["sliding window"]);
    // 300 tokens for 61 rows.
    let base = model_dir("decoders/llama", "gpt2_tied", dir.path());
    refused(&base, &["no row in an embedding of 61"]);
    let base = model_dir("decoders/llama", "gguf", dir.path());
    let path = base.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace(
            "\"individual_digits\": true",
            "\"individual_digits\": false",
        ),
    )
    .unwrap();
    refused(&base, &["splits texts", "llama.cpp"]);
    let other = text.replace("\"add_prefix_space\": false", "\"add_prefix_space\": true");
    std::fs::write(&path, other).unwrap();
    refused(&base, &["splits texts", "llama.cpp"]);
    let other = text.replace(
        "\"normalizer\": null",
        "\"normalizer\": {\"type\": \"Lowercase\"}",
    );
    std::fs::write(&path, other).unwrap();
    refused(&base, &["changes texts", "llama.cpp"]);
    assert!(gguf::check_model(&base).is_err());
    std::fs::write(&path, text).unwrap();
    gguf::check_model(&base).unwrap();
}

#[test]
fn parts_that_llama_cpp_lacks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |adapter: &StoredAdapter, model: &str, words: &[&str]| {
        let output = dir.path().join("out");
        let found = gguf::write(adapter, &base(model), "base", &output, Overwrite::Refuse);
        let message = found.unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert!(!output.exists());
    };
    let llama = adapter("decoders/llama/all");
    let query = "model.layers.0.self_attn.q_proj";

    let mut dora = llama.clone();
    let rows = dora.modules[query].shape()[0];
    let magnitude = StoredTensor::new(vec![rows], vec![1.0; rows]);
    dora.modules.get_mut(query).unwrap().magnitude = Some(magnitude);
    refused(&dora, "decoders/llama", &[query, "DoRA", "llama.cpp"]);

    let mut saved = llama.clone();
    let weight = StoredTensor::new(vec![1], vec![1.0]);
    saved.saved.insert("lm_head.weight".into(), weight);
    refused(
        &saved,
        "decoders/llama",
        &["`lm_head.weight`", "merge the adapter"],
    );

    let mut embedding = llama.clone();
    embedding.modules.get_mut(query).unwrap().kind = LayerKind::Embedding;
    refused(
        &embedding,
        "decoders/llama",
        &[query, "another kind of layer"],
    );

    let head = adapter("adapters/head_embed");
    refused(
        &head,
        "gpt2_tied",
        &["`lm_head`", "is the token embedding in this base"],
    );
    // The base of another adapter.
    refused(&llama, "gpt2_tied", &["`model.layers.0", "gpt2"]);
    refused(
        &llama,
        "encoders/roberta_seq",
        &["`roberta`", "`gpt2` and `bert`"],
    );

    let mut odd = llama;
    let factors = odd.modules.get_mut(query).unwrap();
    let rank = factors.rank();
    factors.b = StoredTensor::new(vec![7, rank], vec![1.0; 7 * rank]);
    refused(&odd, "decoders/llama", &[query, "7 features"]);
}
