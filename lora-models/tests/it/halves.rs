//! Checkpoints in 16 bits whose weights stay in 16 bits: models compute what they compute in f32.

use crate::common::{Batch, fixture, load, model_tensors};
use crate::encoders::{self, options};
use burn::module::Param;
use burn::tensor::{DType, Device, Int, Tensor};
use lora_core::files::Overwrite;
use lora_core::ops::CrossEntropy;
use lora_core::{
    BaseDType, BaseFloats, LoraConfig, LoraInit, Quantization, QuantizeConfig, TargetModules,
};
use lora_models::checkpoint::{Checkpoint, ExportDType};
use lora_models::classifier::{Classifier, ClassifierOptions};
use lora_models::decoder::{DecoderConfig, DecoderLm};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{
    CausalInput, CausalLm, ExportOptions, FamilyConfig, LoadOptions, LoraModel, LoraTargets,
    Pretrained,
};
use std::path::{Path, PathBuf};
use test_support::compare::assert_near;
use test_support::tensors::host;

const AUTO: BaseDType = BaseDType::Auto;

fn gpt2(dir: &Path, dtype: BaseDType, device: &Device) -> Gpt2LmHead {
    let options = LoadOptions::default().with_floats(BaseFloats::new(dtype));
    Gpt2LmHead::load(dir, &options, device).unwrap().0
}

/// Hidden states, and losses of the next tokens.
fn outputs(model: &Gpt2LmHead, device: &Device) -> [Vec<f32>; 3] {
    let ids = Tensor::<1, Int>::arange(0..22, device) * 13 + 5;
    let targets = ids.clone().narrow(0, 1, 21);
    let hidden = model.hidden_states(&CausalInput::new(ids.reshape([1, 22])));
    let hidden = hidden.narrow(1, 0, 21).reshape([21, model.config().n_embd]);
    let loss = model.loss(hidden.clone(), targets, &CrossEntropy::new(0.1));
    [host(hidden), host(loss.loss), host(loss.nll)]
}

/// A model of the fixtures, written anew in a type.
fn rewritten(name: &str, dtype: ExportDType, dir: &Path) -> PathBuf {
    let (model, _) = load(name, &Device::flex());
    let path = dir.join(format!("{name}-{dtype:?}"));
    let options = ExportOptions {
        dtype,
        ..ExportOptions::default()
    };
    model.export(&path, &options, Overwrite::Refuse).unwrap();
    path
}

#[test]
fn hidden_states_and_losses_are_bit_for_bit_those_of_the_checkpoint_in_f32() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let untied = rewritten("gpt2_untied", ExportDType::F16, dir.path());
    for (path, dtype) in [
        (fixture("gpt2_tied_bf16"), BaseDType::Bf16),
        (fixture("gpt2_tied_f16"), BaseDType::F16),
        (untied, BaseDType::F16),
    ] {
        let what = path.display();
        let wide = gpt2(&path, BaseDType::F32, &device);
        assert!(wide.transformer.wte.packed().is_none());
        let expected = outputs(&wide, &device);
        for dtype in [AUTO, dtype] {
            let model = gpt2(&path, dtype, &device);
            let block = &model.transformer.h[1];
            for layer in [&block.attn.c_attn, &block.attn.c_proj, &block.mlp.c_fc] {
                let packed = layer.packed().unwrap();
                assert!(!packed.is_rounded());
            }
            assert!(model.transformer.wte.packed().is_some());
            assert!(
                model
                    .lm_head
                    .as_ref()
                    .is_none_or(|head| head.packed().is_some())
            );
            assert_eq!(outputs(&model, &device), expected, "{what} {dtype}");
            let tensors = model_tensors("gpt2_tied");
            let logits = |model| host(Batch::of(&tensors, "left", &device).logits(model));
            if !what.to_string().contains("untied") {
                assert_eq!(logits(&model), logits(&wide), "{what} {dtype}");
            }
        }
    }
}

#[test]
fn encoders_compute_what_their_checkpoint_in_f32_does() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert_seq", "roberta_tok", "deberta_seq", "v3_seq", "xl_seq"] {
        let (model, _) = encoders::load(name, &device);
        let path = dir.path().join(name);
        let export = ExportOptions {
            dtype: ExportDType::BF16,
            ..ExportOptions::default()
        };
        model.export(&path, &export, Overwrite::Refuse).unwrap();
        let load = |dtype| {
            let options = ClassifierOptions {
                floats: BaseFloats::new(dtype),
                ..options(name)
            };
            Classifier::load(&path, &options, &device).unwrap().0
        };
        let (wide, model) = (load(BaseDType::F32), load(AUTO));
        let words = model.trunk.word_embeddings();
        assert!(words.packed().is_some(), "{name}");
        // The head is trained.
        assert!(model.classifier.out_proj.packed().is_none(), "{name}");
        let batch = encoders::Batch::of_model(name, &device);
        assert_eq!(
            host(batch.logits(&model)),
            host(batch.logits(&wide)),
            "{name}"
        );
        let config = LoraConfig::new(2).with_targets(model.default_targets());
        model.attach(&config).unwrap();
    }
}

#[test]
fn auto_leaves_f32_as_it_is_and_a_type_rounds() {
    let device = Device::flex();
    let path = fixture("gpt2_tied");
    let model = gpt2(&path, AUTO, &device);
    assert!(model.transformer.wte.packed().is_none());
    let expected = outputs(&model, &device);
    assert_eq!(expected, outputs(&load("gpt2_tied", &device).0, &device));
    // Rounded to nearest even as by PyTorch, which wrote the other fixtures.
    for (dtype, rounded) in [
        (BaseDType::F16, "gpt2_tied_f16"),
        (BaseDType::Bf16, "gpt2_tied_bf16"),
    ] {
        let model = gpt2(&path, dtype, &device);
        let packed = model.transformer.wte.packed().unwrap();
        assert!(packed.is_rounded());
        let other = gpt2(&fixture(rounded), BaseDType::F32, &device);
        let values = |model: &Gpt2LmHead| {
            let block = &model.transformer.h[0];
            [
                host(model.transformer.wte.weight.val()),
                host(block.mlp.c_fc.weight.val()),
            ]
        };
        assert_eq!(values(&model), values(&other), "{dtype}");
        assert_ne!(outputs(&model, &device), expected);
        // The same after loading.
        let (narrowed, modules) = load("gpt2_tied", &device)
            .0
            .narrow(&BaseFloats::new(dtype))
            .unwrap();
        assert_eq!(modules.len(), 2 * 4 + 1);
        assert_eq!(outputs(&narrowed, &device), outputs(&model, &device));
    }
}

#[test]
fn a_value_beyond_f16_is_an_error_that_names_the_tensor() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let (mut model, _) = load("gpt2_tied", &device);
    let layer = &mut model.transformer.h[1].mlp.c_fc;
    layer.weight = layer.weight.clone().map(|weight| weight * 1e6);
    let path = dir.path().join("large");
    let options = ExportOptions::default();
    model.export(&path, &options, Overwrite::Refuse).unwrap();
    let load = |dtype| {
        let options = LoadOptions::default().with_floats(BaseFloats::new(dtype));
        Gpt2LmHead::load(&path, &options, &device)
    };
    let error = load(BaseDType::F16).unwrap_err().to_string();
    assert!(
        error.contains("transformer.h.1.mlp.c_fc") && error.contains("bf16"),
        "{error}"
    );
    load(BaseDType::Bf16).unwrap();
}

#[test]
fn embeddings_and_head_are_in_16_bits_beside_nf4() {
    let device = Device::flex();
    for name in ["gpt2_tied", "gpt2_untied"] {
        let options = |dtype| {
            LoadOptions::default()
                .with_quantize(Some(QuantizeConfig::new(Quantization::Nf4)))
                .with_floats(BaseFloats::new(dtype))
        };
        let load = |dtype| Gpt2LmHead::load(fixture(name), &options(dtype), &device).unwrap();
        let (model, _) = load(BaseDType::Bf16);
        let format =
            |packed: Option<&lora_core::PackedWeight>| packed.unwrap().format().to_string();
        assert_eq!(format(model.transformer.wte.packed()), "bf16");
        assert_eq!(format(model.transformer.h[0].attn.c_attn.packed()), "nf4");
        if let Some(head) = &model.lm_head {
            assert_eq!(format(head.packed()), "bf16");
        }
        let [hidden, ..] = outputs(&model, &device);
        assert!(hidden.iter().all(|value| value.is_finite()));
        assert_ne!(hidden, outputs(&load(BaseDType::F32).0, &device)[0]);
    }
}

/// Queries of a decoder with tied and with untied ends, and of one whose embeddings are scaled and logits capped.
#[test]
fn a_decoder_has_embeddings_and_head_in_16_bits_beside_nf4() {
    let device = Device::flex();
    for (name, tied) in [("qwen3", true), ("llama", false), ("gemma2", true)] {
        let path = fixture("decoders").join(name);
        let load = |dtype| {
            let options = LoadOptions::default()
                .with_quantize(Some(QuantizeConfig::new(Quantization::Nf4)))
                .with_floats(BaseFloats::new(dtype));
            DecoderLm::load(&path, &options, &device).unwrap().0
        };
        let (model, wide) = (load(BaseDType::Bf16), load(BaseDType::F32));
        let format =
            |packed: Option<&lora_core::PackedWeight>| packed.unwrap().format().to_string();
        assert_eq!(format(model.model.embed_tokens.packed()), "bf16");
        assert_eq!(format(model.model.layers[0].mlp.down_proj.packed()), "nf4");
        assert_eq!(model.lm_head.is_none(), tied);
        if let Some(head) = &model.lm_head {
            assert_eq!(format(head.packed()), "bf16");
        }
        // What the file would give if its ends were rounded, and nothing else.
        let mut rounded = wide.clone();
        let bf16 = |weight: &Param<Tensor<2>>| {
            let values = weight.val().cast(DType::BF16).cast(DType::F32);
            weight.clone().map(|_| values)
        };
        rounded.model.embed_tokens.weight = bf16(&wide.model.embed_tokens.weight);
        if let Some(head) = &mut rounded.lm_head {
            head.weight = bf16(&head.weight);
        }
        let losses = |model: &DecoderLm| {
            let ids = Tensor::<1, Int>::arange(0..22, &device) * 2 + 5;
            let targets = ids.clone().narrow(0, 1, 21);
            let hidden = model.hidden_states(&CausalInput::new(ids.reshape([1, 22])));
            let hidden = hidden
                .narrow(1, 0, 21)
                .reshape([21, model.config().hidden_size]);
            let loss = model.loss(hidden.clone(), targets, &CrossEntropy::default());
            [host(model.logits(hidden)), host(loss.nll)].concat()
        };
        assert_near(&losses(&model), &losses(&rounded), 1e-5, name);
        assert_ne!(losses(&model), losses(&wide), "{name}");
    }
}

/// A decoder whose rows have blocks of their own, with so many tokens that its ends are unpacked in parts, and one whose rows share
/// blocks.
#[test]
fn embeddings_and_head_are_in_8_bits() {
    let device = Device::flex().autodiff();
    let object = |d: usize, vocab: usize, tied: bool| {
        serde_json::json!({
            "model_type": "gemma2", "hidden_size": d, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 24, "vocab_size": vocab, "head_dim": 8,
            "tie_word_embeddings": tied, "query_pre_attn_scalar": 8, "initializer_range": 0.5,
            "final_logit_softcapping": 3.0,
        })
    };
    for (d, vocab, tied) in [
        (64, 70_000, true),
        (64, 70_000, false),
        (20, 50, true),
        (20, 50, false),
    ] {
        let what = format!("{d} features, tied: {tied}");
        let serde_json::Value::Object(object) = object(d, vocab, tied) else {
            panic!("{what}")
        };
        let config = DecoderConfig::from_json("config.json".as_ref(), object).unwrap();
        let init = |dtype| {
            let (options, floats) = (LoadOptions::default(), BaseFloats::new(dtype));
            let quantize = QuantizeConfig::new(Quantization::Nf4);
            DecoderLm::init_random_packed(&config, &options, Some(&quantize), &floats, 3, &device)
                .unwrap()
        };
        let (model, wide) = (init(BaseDType::Int8), init(BaseDType::F32));
        let packed = model.model.embed_tokens.packed().unwrap();
        assert_eq!(packed.format().to_string(), "int8");
        assert_eq!(packed.bytes(), (vocab * d).div_ceil(64) * 68);
        // The model in f32 with the values that the packed ends have.
        let mut dense = wide.clone();
        let values = |weight: &Param<Tensor<2>>, packed: &lora_core::PackedWeight| {
            let values = packed.dequantize();
            weight.clone().map(|_| values).set_require_grad(false)
        };
        dense.model.embed_tokens.weight = values(&wide.model.embed_tokens.weight, packed);
        if let (Some(head), Some(own)) = (&mut dense.lm_head, &model.lm_head) {
            head.weight = values(&head.weight, own.packed().unwrap());
        }
        let lora = LoraConfig::new(2)
            .with_init(LoraInit::Random)
            .with_targets(TargetModules::names(["q_proj", "down_proj"]));
        let results = |model: DecoderLm, lora: &LoraConfig| {
            let model = model.attach(lora).unwrap().into_module();
            let ids = Tensor::<1, Int>::arange(0..22, &device) * 2 + 5;
            let targets = ids.clone().narrow(0, 1, 21);
            let hidden = model.hidden_states(&CausalInput::new(ids.reshape([1, 22])));
            let hidden = hidden.narrow(1, 0, 21).reshape([21, d]);
            let loss = model.loss(hidden.clone(), targets, &CrossEntropy::default());
            let grads = loss.loss.clone().backward();
            let adapter = model.model.layers[0].mlp.down_proj.adapter().unwrap();
            [
                host(hidden.clone()),
                host(model.logits(hidden.narrow(0, 3, 2))),
                host(loss.nll),
                host(adapter.b.val().grad(&grads).unwrap()),
            ]
        };
        // With the embedding and the output layer adapted too, these share their values.
        let all = lora.clone().with_targets(TargetModules::names([
            "embed_tokens",
            "lm_head",
            "down_proj",
        ]));
        for lora in [&lora, &all] {
            let (found, expected) = (results(model.clone(), lora), results(dense.clone(), lora));
            for (found, expected) in found.iter().zip(&expected) {
                let scale = expected
                    .iter()
                    .fold(1.0f32, |most, value| most.max(value.abs()));
                // Sums of the parts are taken in another order.
                assert_near(found, expected, 1e-5 * scale, &what);
            }
        }
    }
}

#[test]
fn an_untied_head_shares_the_embedding_in_16_bits() {
    let device = Device::flex();
    let path = fixture("gpt2_tied_bf16");
    let (packed, wide) = (
        gpt2(&path, AUTO, &device),
        gpt2(&path, BaseDType::F32, &device),
    );
    let config = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["wte", "lm_head", "c_attn"]));
    let attached = |model: Gpt2LmHead| model.attach(&config).unwrap().into_module();
    let (packed, wide) = (attached(packed), attached(wide));
    assert!(packed.lm_head.as_ref().unwrap().packed().is_some());
    assert_eq!(outputs(&packed, &device), outputs(&wide, &device));
    let merged = |model: Gpt2LmHead| outputs(&lora_core::merge(model).into_module(), &device);
    assert_eq!(merged(packed), merged(wide));
}

#[test]
fn a_model_in_16_bits_is_exported_as_the_values_that_it_has() {
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let path = fixture("gpt2_tied_bf16");
    let model = gpt2(&path, AUTO, &device);
    for dtype in [ExportDType::F32, ExportDType::BF16] {
        let again = dir.path().join(format!("{dtype:?}"));
        let options = ExportOptions {
            dtype,
            ..ExportOptions::default()
        };
        model.export(&again, &options, Overwrite::Refuse).unwrap();
        let (written, read) = (
            Checkpoint::open(&again).unwrap(),
            Checkpoint::open(&path).unwrap(),
        );
        for name in written.names() {
            let expected = read.read_f32(name).unwrap();
            assert_eq!(written.read_f32(name).unwrap(), expected, "{name}");
        }
    }
}
