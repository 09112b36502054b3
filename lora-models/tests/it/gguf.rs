//! Adapters for llama.cpp are, byte for byte, what its own package writes.

use crate::common::fixture;
use lora_core::LayerKind;
use lora_core::file::{StoredAdapter, StoredTensor};
use lora_core::files::Overwrite;
use lora_models::ModelConfig;
use lora_models::formats::gguf::{self, ADAPTER_FILE, MODELFILE};

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
