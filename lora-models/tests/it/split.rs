//! Models whose token embedding is in parts, as on a device that cannot bind it in one buffer.

use crate::common::{Batch, TOLERANCE, fill_adapters, fixture, load, model_tensors};
use crate::encoders;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use lora_core::files::Overwrite;
use lora_core::ops::{CrossEntropy, with_max_buffer_bytes};
use lora_core::{BaseDType, BaseFloats, LoraConfig, TargetModules, merge, split_weights};
use lora_models::generate::{BeamSearch, GenerationConfig, Generator, Strategy};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{
    CausalInput, CausalLm, ExportOptions, LoadOptions, LoraModel, Pretrained, SaveAdapter,
};
use std::path::Path;
use test_support::compare::assert_near;
use test_support::fill::Fill;
use test_support::tensors::host;

/// Limit for parts of 128, 128 and 44 rows of GPT-2's fixture, `[300, 24]`.
const GPT2: u64 = 128 * 24 * 4;

/// Encoders `[32, 9]` with limits for parts of 11, 11 and 10 rows, or of two times 16.
const ENCODERS: [(&str, u64); 3] = [
    ("roberta_seq", 14 * 36),
    ("v3_seq", 14 * 36),
    ("deberta_seq", 27 * 36),
];

/// The same GPT-2 whole and in parts.
fn gpt2(device: &Device) -> [Gpt2LmHead; 2] {
    let whole = load("gpt2_tied", device).0;
    let split = with_max_buffer_bytes(GPT2, || load("gpt2_tied", device).0);
    assert_eq!(rows(&split, "transformer.wte.weight"), [128, 128, 44]);
    [whole, split]
}

/// The rows of each part of a weight.
fn rows<M: Module>(model: &M, path: &str) -> Vec<usize> {
    let parts = split_weights(model).remove(path).unwrap().parts();
    parts.iter().map(|part| part.dims()[0]).collect()
}

/// Gradients of all that trains.
fn gradients<M: Module>(model: &M, grads: &Gradients) -> Vec<f32> {
    struct All<'a>(&'a Gradients, Vec<f32>);
    impl ModuleVisitor for All<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1
                .extend(param.base().grad(self.0).map(host).unwrap_or_default());
        }
    }
    let mut all = All(grads, Vec::new());
    model.visit(&mut all);
    all.1
}

#[test]
fn logits_in_parts_are_those_of_transformers() {
    let device = Device::flex();
    let [_, model] = gpt2(&device);
    let expected = model_tensors("gpt2_tied");
    for side in ["right", "left"] {
        let batch = Batch::of(&expected, side, &device);
        let (values, _) = expected.floats(&format!("{side}.logits"));
        batch.assert_logits(&batch.logits(&model), &values, TOLERANCE, side);
    }
}

#[test]
fn the_loss_and_the_gradients_in_parts_are_those_of_the_whole() {
    let device = Device::flex().autodiff();
    let config = LoraConfig::new(3).with_targets(TargetModules::names(["c_attn", "c_fc"]));
    let options = CrossEntropy::new(0.1);
    let results = gpt2(&device).map(|model| {
        let model = fill_adapters(model.attach(&config).unwrap().into_module());
        let ids = Tensor::<2, Int>::from_ints([[0, 127, 128, 255], [256, 299, 5, 130]], &device);
        let hidden = model.hidden_states(&CausalInput::new(ids)).flatten(0, 1);
        let targets = Tensor::<1, Int>::from_ints([127, 128, 255, -1, 299, 0, 256, 44], &device);
        let found = model.loss(hidden, targets, &options);
        let grads = found.loss.backward();
        let best: Vec<f32> = found.best.into_data().iter::<f32>().collect();
        [
            host(found.loss),
            host(found.nll),
            best,
            gradients(&model, &grads),
        ]
    });
    let [whole, split] = results;
    assert!(whole[3].len() > 100);
    for (found, expected) in split.iter().zip(&whole) {
        // The same sums in another order.
        assert_near(found, expected, 1e-5, "loss and gradients");
    }
}

#[test]
fn texts_in_parts_are_those_of_the_whole() {
    let device = Device::flex();
    let models = gpt2(&device);
    let beams = Strategy::Beam(BeamSearch {
        beams: 3,
        ..BeamSearch::default()
    });
    let greedy = GenerationConfig::new(6);
    for config in [greedy.clone(), greedy.with_strategy(beams)] {
        let [whole, split] = models.clone().map(|model| {
            let prompts = [vec![4, 150, 299], vec![16]];
            let texts = Generator::new(&model, config.clone(), &device).generate(&prompts);
            let texts = texts.unwrap().into_iter();
            texts.map(|text| text.tokens).collect::<Vec<_>>()
        });
        assert_eq!(split, whole);
    }
}

/// A safetensors file: its header, whose metadata is in no order, and the values.
#[derive(PartialEq)]
struct File(serde_json::Value, Vec<u8>);

fn file(path: &Path) -> File {
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, values) = rest.split_at(u64::from_le_bytes(*length) as usize);
    File(serde_json::from_slice(header).unwrap(), values.into())
}

/// Exports the base and the merged model, and saves the adapter.
fn files<M: Pretrained>(model: M, targets: &[&str]) -> [File; 3] {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let export = |model: &M, name: &str| {
        let options = ExportOptions::default();
        model
            .export(path(name), &options, Overwrite::Refuse)
            .unwrap();
        file(&path(name).join("model.safetensors"))
    };
    let base = export(&model, "base");
    let config = LoraConfig::new(2).with_targets(TargetModules::names(targets.to_vec()));
    let (model, report) = model.attach(&config).unwrap().into_parts();
    let model = Fill::adapters().map(model);
    let adapted = lora_core::Adapted::from_parts(model.clone(), report);
    adapted
        .save_adapter(path("adapter"), None, Overwrite::Refuse)
        .unwrap();
    let merged = export(&merge(model).into_module(), "merged");
    [
        base,
        file(&path("adapter").join("adapter_model.safetensors")),
        merged,
    ]
}

fn assert_same(whole: &[File; 3], split: &[File; 3], what: &str) {
    for (kind, (whole, split)) in ["base", "adapter", "merged"]
        .iter()
        .zip(whole.iter().zip(split))
    {
        assert!(whole == split, "{what}: {kind}");
    }
}

/// The adapter's file has the base's fingerprint, of which the embedding is a part.
#[test]
fn files_of_a_split_model_are_those_of_the_whole() {
    let device = Device::flex();
    let [whole, split] = gpt2(&device).map(|model| files(model, &["c_attn"]));
    assert_same(&whole, &split, "gpt2");
    for (name, limit) in ENCODERS {
        let whole = encoders::model(name, &device);
        let split = with_max_buffer_bytes(limit, || encoders::model(name, &device));
        let target = if name == "roberta_seq" {
            "query"
        } else {
            "dense"
        };
        let [whole, split] = [whole, split].map(|model| files(model, &[target]));
        assert_same(&whole, &split, name);
    }
}

#[test]
fn encoders_in_parts_are_the_whole_ones_bit_for_bit() {
    let device = Device::flex().autodiff();
    for (name, limit) in ENCODERS {
        let whole = encoders::model(name, &device);
        let split = with_max_buffer_bytes(limit, || encoders::model(name, &device));
        let parts: &[usize] = if name == "deberta_seq" {
            &[16, 16]
        } else {
            &[11, 11, 10]
        };
        let family = name.split('_').next().unwrap().replace("v3", "deberta");
        let path = format!("{family}.embeddings.word_embeddings.weight");
        let path = split_weights(&split).into_keys().next().unwrap_or(path);
        assert_eq!(rows(&split, &path), parts, "{name}");
        let batch = encoders::Batch::of_model(name, &device);
        let config = LoraConfig::new(2).with_targets(TargetModules::names(["dense"]));
        let [whole, split] = [whole, split].map(|model| {
            let model = fill_adapters(model.attach(&config).unwrap().into_module());
            let logits = batch.logits(&model);
            let grads = logits.clone().square().sum().backward();
            (host(logits), gradients(&model, &grads))
        });
        assert!(whole.1.len() > 50);
        assert_eq!(split, whole, "{name}");
    }
}

#[test]
fn a_head_apart_cannot_be_in_parts() {
    let device = Device::flex();
    let [_, split] = gpt2(&device);
    let config = LoraConfig::new(2).with_targets(TargetModules::names(["wte"]));
    let untied = with_max_buffer_bytes(GPT2, || {
        Gpt2LmHead::load(fixture("gpt2_untied"), &LoadOptions::default(), &device)
    });
    let attached = with_max_buffer_bytes(GPT2, || split.attach(&config));
    for error in [untied.err().unwrap(), attached.err().unwrap()] {
        let error = error.to_string();
        assert!(
            error.contains("lm_head.weight") && error.contains("one buffer"),
            "{error}"
        );
    }
}

/// In 16 bits the embedding fits as a whole; merged and exported, it is in f32 again, and in parts.
#[test]
fn an_embedding_in_16_bits_needs_no_parts_until_it_is_merged() {
    let device = Device::flex();
    let half = 300 * 24 * 2;
    let load = |limit| {
        let options = LoadOptions::default().with_floats(BaseFloats::new(BaseDType::Bf16));
        let load = || Gpt2LmHead::load(fixture("gpt2_tied_bf16"), &options, &device);
        with_max_buffer_bytes(limit, load)
    };
    let model = load(half).unwrap().0;
    assert!(model.transformer.wte.packed().is_some() && split_weights(&model).is_empty());
    let whole = files(load(u64::MAX).unwrap().0, &["c_attn"]);
    let found = with_max_buffer_bytes(half, || files(model.clone(), &["c_attn"]));
    assert_same(&whole, &found, "16 bits");
    let merged = with_max_buffer_bytes(half, || merge(model.clone()).into_module());
    assert_eq!(rows(&merged, "transformer.wte.weight"), [150, 150]);

    let config = LoraConfig::new(2).with_targets(TargetModules::names(["wte"]));
    let adapted = with_max_buffer_bytes(half, || model.clone().attach(&config));
    let untied = with_max_buffer_bytes(half, || model.untie_head());
    for (error, words) in [
        (
            adapted.err().unwrap().to_string(),
            ["lm_head", "one buffer"],
        ),
        (untied.err().unwrap().to_string(), ["lm_head", "one buffer"]),
        (
            load(half - 1).err().unwrap().to_string(),
            ["transformer.wte.weight", "--base-dtype"],
        ),
    ] {
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}
