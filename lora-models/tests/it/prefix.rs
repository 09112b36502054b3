//! Prefixes of PEFT, alone and beside LoRA, give PEFT's logits, gradients and texts, and come back as PEFT wrote
//! them; files that are not a model's own are refused.

use crate::common::{self, Batch, TOLERANCE, fixture, load, model_tensors};
use crate::encoders;
use crate::encoders::gradients::file_gradients;
use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::AdapterDir;
use lora_core::files::Overwrite;
use lora_core::{Adapted, LoraConfig, TargetModules, detach, freeze, merge, trainable_summary};
use lora_models::generate::{
    BeamSearch, EarlyStopping, GenerationConfig, Generator, KvCache, Strategy,
};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::prefix::{PREFIX_DIR, PrefixConfig, beside};
use lora_models::{AddedModel, ExportOptions, LoraModel, LoraTargets, Pretrained, SaveAdapter};
use serde_json::Value;
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host, json};

/// Adapters, the models that they are on, and the number of virtual tokens.
const CASES: &[(&str, &str, usize)] = &[
    ("tied", "gpt2_tied", 3),
    ("untied", "gpt2_untied", 5),
    ("projected", "gpt2_tied", 4),
    ("lora", "gpt2_tied", 5),
    ("lora_untied", "gpt2_untied", 3),
];
const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";

fn adapter(name: &str) -> PathBuf {
    fixture("prefix").join(name)
}

fn adapted(name: &str, base: &str, device: &Device) -> Gpt2LmHead {
    load(base, device)
        .0
        .load_adapter(adapter(name))
        .unwrap()
        .into_module()
}

fn logits(model: &Gpt2LmHead, base: &str) -> Vec<f32> {
    let batch = Batch::of(&model_tensors(base), "right", &model.device());
    host(batch.logits(model))
}

#[test]
fn logits_loss_and_gradients_are_those_of_peft() {
    let device = Device::flex().autodiff();
    for &(name, base, tokens) in CASES {
        let (model, report) = load(base, &device)
            .0
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        assert_eq!(model.prefix().unwrap().tokens(), tokens, "{name}");
        let expected = Tensors::open(fixture("prefix").join(format!("{name}.safetensors")));
        for side in ["right", "left"] {
            let what = format!("{name}, {side}");
            let batch = Batch::of(&model_tensors(base), side, &device);
            let logits = batch.logits(&model);
            let (values, _) = expected.floats(&format!("{side}.logits"));
            batch.assert_logits(&logits, &values, TOLERANCE, &what);
            let loss = batch.loss(logits);
            let (values, _) = expected.floats(&format!("{side}.loss"));
            assert_near(&host(loss.clone()), &values, TOLERANCE, &what);

            let grads = loss.backward();
            let mut model = model.clone();
            let prefix = model.take_prefix().unwrap();
            // Of everything else that has one: LoRA's factors.
            let mut found = file_gradients(&model, &report, &grads);
            let gradient = prefix.embeddings.val().grad(&grads).expect(&what);
            let shape = gradient.dims().to_vec();
            found.insert("prompt_embeddings".into(), (host(gradient), shape));
            let start = format!("{side}.grad.");
            let names = expected.names().into_iter();
            let names: Vec<String> = names
                .filter_map(|name| Some(name.strip_prefix(&start)?.to_string()))
                .collect();
            assert_eq!(found.keys().cloned().collect::<Vec<_>>(), names, "{what}");
            for (tensor, (found, shape)) in found {
                let (values, file_shape) = expected.floats(&format!("{start}{tensor}"));
                assert_eq!(file_shape, shape, "{what}: {tensor}");
                assert_near(&found, &values, TOLERANCE, &format!("{what}: {tensor}"));
            }
        }
    }
}

#[test]
fn adapters_are_saved_as_peft_wrote_them_and_loaded_again() {
    let device = Device::flex();
    for &(name, base, _) in CASES {
        let (model, report) = load(base, &device)
            .0
            .load_adapter(adapter(name))
            .unwrap()
            .into_parts();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter");
        Adapted::from_parts(model.clone(), report.clone())
            .save_adapter(&path, Some(base), Overwrite::Refuse)
            .unwrap();
        let (again, _) = load(base, &device)
            .0
            .load_adapter(&path)
            .unwrap()
            .into_parts();
        assert_eq!(logits(&again, base), logits(&model, base), "{name}");

        let parts: &[&str] = if report.is_empty() {
            &[""]
        } else {
            &["", PREFIX_DIR]
        };
        for part in parts {
            let (ours, theirs) = (path.join(part), adapter(name).join(part));
            let (o, t) = (
                Tensors::open(ours.join(WEIGHTS)),
                Tensors::open(theirs.join(WEIGHTS)),
            );
            assert_eq!(o.names(), t.names(), "{name}/{part}");
            for tensor in t.names() {
                assert_eq!(o.floats(&tensor), t.floats(&tensor), "{name}: {tensor}");
            }
            if !AdapterDir::open(&ours).unwrap().is_prefix() {
                continue;
            }
            let (o, mut t) = (json(&ours.join(CONFIG)), json(&theirs.join(CONFIG)));
            // What the projection gave is in the file; it is gone on with without one.
            t["prefix_projection"] = false.into();
            t["encoder_hidden_size"] = o["encoder_hidden_size"].clone();
            t.as_object_mut().unwrap().remove("peft_version");
            assert_eq!(o, t, "{name}/{part}");
        }
        assert_eq!(beside(&path).unwrap().is_some(), !report.is_empty());
    }
}

fn search(case: &Value) -> GenerationConfig {
    let parameters = &case["parameters"];
    let number = |key: &str| parameters[key].as_u64().unwrap() as usize;
    let config = GenerationConfig::new(number("max_new_tokens"))
        .with_no_repeat_ngram_size(number("no_repeat_ngram_size"))
        .with_stop_tokens([number("eos_token_id") as u32])
        .with_pad_id(number("pad_token_id") as u32);
    match number("num_beams") {
        1 => config,
        beams => config.with_strategy(Strategy::Beam(BeamSearch {
            beams,
            length_penalty: parameters["length_penalty"].as_f64().unwrap(),
            early_stopping: EarlyStopping::WhenUnlikely,
        })),
    }
}

#[test]
fn texts_are_those_of_peft_alone_and_in_a_batch() {
    let device = Device::flex();
    let cases = json(&fixture("prefix/generation.json"));
    let mut count = 0;
    for (name, cases) in cases.as_object().unwrap() {
        let (_, base, _) = CASES
            .iter()
            .find(|(case, ..)| *case == name.as_str())
            .unwrap();
        let model = adapted(name, base, &device);
        for case in cases.as_array().unwrap() {
            let rows =
                |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(case[key].clone()).unwrap() };
            let (prompts, expected) = (rows("prompts"), rows("new_tokens"));
            let config = search(case);
            let what = format!("{name}, {}", case["name"]);
            for order in [vec![0, 1, 2], vec![2, 0, 1], vec![0], vec![1], vec![2]] {
                let prompts: Vec<Vec<u32>> =
                    order.iter().map(|&row| prompts[row].clone()).collect();
                let found = Generator::new(&model, config.clone(), &device)
                    .generate(&prompts)
                    .unwrap();
                for (found, row) in found.iter().zip(order) {
                    assert_eq!(found.tokens, expected[row], "{what}, prompt {row}");
                    if let Some(scores) = case["sequences_scores"].as_array() {
                        let difference = found.score.unwrap() - scores[row].as_f64().unwrap();
                        assert!(difference.abs() < 1e-4, "{what}: off by {difference}");
                    }
                }
            }
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn steps_with_a_cache_give_the_logits_of_the_whole() {
    let device = Device::flex();
    let model = adapted("untied", "gpt2_untied", &device);
    let ids = Tensor::<2, Int>::from_ints([[5, 17, 200, 3, 42, 9], [1, 2, 3, 4, 5, 6]], &device);
    let whole = model.transformer.forward(ids.clone(), None, None, None);
    let mut cache = KvCache::new(model.config().n_layer, 2);
    let mut pieces = Vec::new();
    for (start, length) in [(0, 3), (3, 1), (4, 2)] {
        let piece = ids.clone().narrow(1, start, length);
        pieces.push(
            model
                .transformer
                .forward(piece, None, None, Some(&mut cache)),
        );
    }
    // The prefix is before what the cache has, and is not in it.
    assert_eq!(cache.len(), 6);
    assert_near(
        &host(Tensor::cat(pieces, 1)),
        &host(whole),
        1e-5,
        "hidden states",
    );
}

#[test]
fn virtual_tokens_take_their_positions() {
    let device = Device::flex();
    let model = adapted("untied", "gpt2_untied", &device);
    let config = GenerationConfig::new(8);
    // 48 positions, 5 of them the prefix's.
    let longest = Generator::new(&model, config.clone(), &device)
        .generate(&[vec![1; 35]])
        .unwrap();
    assert_eq!(longest[0].tokens.len(), 8);
    let error = Generator::new(&model, config.clone(), &device)
        .generate(&[vec![1; 36]])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("43 positions") && error.contains("5 virtual tokens"),
        "{error}"
    );
    let ids = Tensor::<2, Int>::ones([1, 43], &device);
    assert_eq!(model.forward(ids, None).dims(), [1, 43, 300]);
}

#[test]
#[should_panic(
    expected = "5 virtual tokens, 0 in the cache and 44 new are more than the 48 positions"
)]
fn more_tokens_than_the_prefix_leaves_positions_for_panic() {
    let device = Device::flex();
    let model = adapted("untied", "gpt2_untied", &device);
    model.forward(Tensor::<2, Int>::ones([1, 44], &device), None);
}

#[test]
fn a_fresh_prefix_trains_alone_and_its_base_is_frozen() {
    let device = Device::flex().autodiff();
    let (model, report) = freeze(load("gpt2_tied", &device).0).into_parts();
    assert!(report.is_empty());
    let model = model.with_prefix(&PrefixConfig::new(2)).unwrap();
    assert_eq!(trainable_summary(&model).trainable, 2 * 2 * 2 * 24);
    // From one device to another and back it is still what trains.
    let model = model.valid().train();
    assert_eq!(trainable_summary(&model).trainable, 2 * 2 * 2 * 24);
}

#[test]
fn lora_is_attached_merged_and_taken_off_beside_a_prefix() {
    let device = Device::flex();
    let base = "gpt2_tied";
    let with_prefix = adapted("tied", base, &device);
    let alone = logits(&with_prefix, base);
    // A pattern of every path does not mean the prefix.
    let config = LoraConfig::new(2).with_targets(TargetModules::regex(".*(c_attn|embeddings)"));
    let (model, report) = with_prefix.clone().attach(&config).unwrap().into_parts();
    assert_eq!(report.modules.len(), 2);
    assert_near(&logits(&model, base), &alone, 1e-6, "B starts at zero");
    let filled = common::fill_adapters(model);
    let both = logits(&filled, base);
    assert_ne!(both, alone);
    assert_near(
        &logits(&merge(filled.clone()).into_module(), base),
        &both,
        5e-5,
        "merged",
    );
    assert_eq!(logits(&detach(filled), base), alone);

    // A file without a prefix leaves the model's own where it is.
    let lora = fixture("adapters/c_attn");
    let (model, _) = with_prefix.load_adapter(&lora).unwrap().into_parts();
    assert_eq!(model.prefix().unwrap().tokens(), 3);
}

#[test]
fn an_export_does_not_lose_a_prefix() {
    let device = Device::flex();
    let mut model = adapted("tied", "gpt2_tied", &device);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let options = ExportOptions::default();
    let error = model
        .export(&path, &options, Overwrite::Refuse)
        .unwrap_err()
        .to_string();
    assert!(error.contains("prefix"), "{error}");
    assert!(!path.exists());
    model.take_prefix();
    model.export(&path, &options, Overwrite::Refuse).unwrap();
}

/// A copy of an adapter of the fixture, changed.
fn changed(name: &str, change: impl Fn(&mut Value, &mut Vec<u8>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json(&adapter(name).join(CONFIG));
    let mut weights = std::fs::read(adapter(name).join(WEIGHTS)).unwrap();
    change(&mut config, &mut weights);
    std::fs::write(dir.path().join(CONFIG), config.to_string()).unwrap();
    std::fs::write(dir.path().join(WEIGHTS), weights).unwrap();
    dir
}

#[test]
fn files_that_are_not_the_models_own_are_refused_by_name() {
    let device = Device::flex();
    let base = load("gpt2_tied", &device).0;
    let refused = |dir: &Path, words: &[&str]| {
        let error = base
            .clone()
            .load_adapter(dir)
            .expect_err("refused")
            .to_string();
        for word in words {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    };
    refused(&adapter("untied"), &["num_layers", "is 3", "has 2"]);
    let with = |key: &'static str, value: Value, words: &[&str]| {
        let dir = changed("tied", |config, _| config[key] = value.clone());
        refused(dir.path(), words);
    };
    with("token_dim", 48.into(), &["token_dim", "is 48", "has 24"]);
    with("num_attention_heads", 2.into(), &["num_attention_heads"]);
    with(
        "num_virtual_tokens",
        4.into(),
        &["prompt_embeddings", "[3, 96]", "[4, 96]"],
    );
    with(
        "num_virtual_tokens",
        64.into(),
        &["num_virtual_tokens", "64", "1 to 63"],
    );
    with("num_virtual_tokens", 0.into(), &["num_virtual_tokens"]);
    with(
        "num_virtual_tokens",
        u64::MAX.into(),
        &["num_virtual_tokens"],
    );
    with(
        "num_virtual_tokens",
        "3".into(),
        &["num_virtual_tokens", "whole number"],
    );
    with("num_virtual_tokens", Value::Null, &["num_virtual_tokens"]);
    with(
        "num_transformer_submodules",
        2.into(),
        &["num_transformer_submodules"],
    );
    with(
        "modules_to_save",
        serde_json::json!(["lm_head"]),
        &["modules_to_save"],
    );
    with("virtual_kv", 3.into(), &["virtual_kv"]);
    for kind in ["P_TUNING", "IA3", "CARTRIDGE"] {
        with(
            "peft_type",
            kind.into(),
            &["peft_type", kind, "LORA", "PREFIX_TUNING"],
        );
    }
    let not_finite = changed("tied", |_, weights| {
        let end = weights.len();
        weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(not_finite.path(), &["prompt_embeddings", "NaN"]);
    let cut = changed("tied", |_, weights| weights.truncate(weights.len() - 4));
    refused(cut.path(), &[WEIGHTS]);
    let renamed = changed("tied", |_, weights| {
        let at = weights.windows(6).position(|w| w == b"prompt").unwrap();
        weights[at..at + 6].copy_from_slice(b"prefix");
    });
    refused(renamed.path(), &["prefix_embeddings", "prompt_embeddings"]);
    // LoRA's file under a prefix's configuration.
    let lora = changed("tied", |_, weights| {
        *weights = std::fs::read(fixture("adapters/c_attn").join(WEIGHTS)).unwrap();
    });
    refused(lora.path(), &["lora_A", "prompt_embeddings"]);
    let empty = tempfile::tempdir().unwrap();
    refused(empty.path(), &[CONFIG]);
}

#[test]
fn an_encoder_refuses_the_prefix_of_another_model() {
    let model = encoders::model("bert_seq", &Device::flex());
    let error = model.load_adapter(adapter("tied")).err().unwrap();
    let error = error.to_string();
    assert!(error.contains("another model"), "{error}");
}
