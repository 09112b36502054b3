//! Models with quantized weights compute what transformers computes with the weights of bitsandbytes.

use crate::common::{TOLERANCE, fixture, model_tensors};
use crate::encoders::{self, encoder, logits_on, options};
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use lora_core::{LoraConfig, LoraLinear, Quantization, QuantizeConfig, TargetModules};
use lora_models::classifier::{Classifier, ClassifierOptions, Trunk};
use lora_models::gpt2::Gpt2LmHead;
use lora_models::{ExportOptions, LoadOptions, LoraModel, LoraTargets, Pretrained};
use test_support::compare::assert_near;
use test_support::tensors::{Tensors, host};

fn expected() -> Tensors {
    Tensors::open(fixture("quantized/expected.safetensors"))
}

fn gpt2(name: &str, quantization: Quantization, device: &Device) -> Gpt2LmHead {
    let options = LoadOptions::default().with_quantize(Some(QuantizeConfig::new(quantization)));
    let loaded = Gpt2LmHead::load(fixture(name), &options, device);
    loaded.unwrap().0
}

fn classifier(name: &str, config: QuantizeConfig, device: &Device) -> Classifier {
    let options = ClassifierOptions {
        quantize: Some(config),
        ..options(name)
    };
    Classifier::load(encoder(name), &options, device).unwrap().0
}

/// Logits for the token after the last, of the batch that is padded on the left.
fn next_logits(model: &Gpt2LmHead, name: &str, device: &Device) -> Vec<f32> {
    let tensors = model_tensors(name);
    let (mask, shape) = tensors.ints("left.attention_mask");
    let mask: Vec<bool> = mask.iter().map(|&real| real == 1).collect();
    let mask = Tensor::<2, Bool>::from_data(TensorData::new(mask, shape), device);
    let ids: Tensor<2, Int> = tensors.ids("left.input_ids", device);
    let [_, seq] = ids.dims();
    let positions = tensors.ids("left.position_ids", device);
    let hidden = model
        .transformer
        .forward(ids, Some(mask), Some(positions), None);
    host(model.logits(hidden.narrow(1, seq - 1, 1)))
}

#[test]
fn a_gpt2_has_the_logits_of_transformers_with_and_without_an_adapter_of_peft() {
    let device = Device::flex();
    let expected = expected();
    for quantization in Quantization::ALL {
        for name in ["gpt2_tied", "gpt2_untied"] {
            let model = gpt2(name, quantization, &device);
            let block = &model.transformer.h[0];
            let linear = [
                &block.attn.c_attn,
                &block.attn.c_proj,
                &block.mlp.c_fc,
                &block.mlp.c_proj,
            ];
            assert!(linear.iter().all(|layer| layer.packed().is_some()));
            assert!(
                model
                    .lm_head
                    .as_ref()
                    .is_none_or(|head| head.packed().is_none())
            );
            let found = next_logits(&model, name, &device);
            let (values, _) = expected.floats(&format!("{name}.{quantization}"));
            assert_near(
                &found,
                &values,
                TOLERANCE,
                &format!("{name} {quantization}"),
            );
            if name != "gpt2_tied" {
                continue;
            }
            let (model, report) = model
                .load_adapter(fixture("adapters/c_attn"))
                .unwrap()
                .into_parts();
            assert_eq!(report.quantized.len(), 2 * 4);
            let found = next_logits(&model, name, &device);
            let (values, _) = expected.floats(&format!("{name}.{quantization}.adapter"));
            assert_near(
                &found,
                &values,
                TOLERANCE,
                &format!("adapter {quantization}"),
            );
        }
    }
}

#[test]
fn encoders_have_the_logits_of_transformers() {
    let device = Device::flex();
    let expected = expected();
    for quantization in Quantization::ALL {
        for name in ["bert_seq", "roberta_seq", "deberta_seq", "v3_seq"] {
            let model = classifier(name, QuantizeConfig::new(quantization), &device);
            assert!(model.classifier.out_proj.packed().is_none());
            let pooler = model.pooler.as_ref();
            assert!(pooler.is_none_or(|pooler| pooler.dense.packed().is_some()));
            let (values, _) = expected.floats(&format!("{name}.{quantization}"));
            let found = logits_on(&model, name);
            assert_near(
                &found,
                &values,
                TOLERANCE,
                &format!("{name} {quantization}"),
            );
        }
    }
}

#[test]
fn what_starts_afresh_and_what_is_left_out_stays_in_floats() {
    let device = Device::flex();
    // Its checkpoint has neither pooler nor classifier of this task.
    let config = QuantizeConfig::new(Quantization::Nf4).with_skip(["query_proj", "layer.1.output"]);
    let model = classifier("v3_mlm", config, &device);
    assert!(
        model.random_modules().contains(&"pooler".to_string()),
        "{:?}",
        model.random_modules()
    );
    assert!(model.pooler.as_ref().unwrap().dense.packed().is_none());
    let lora = LoraConfig::new(2).with_targets(model.default_targets());
    let (_, report) = model.attach(&lora).unwrap().into_parts();
    let names: Vec<&str> = report.quantized.iter().map(|q| q.module.as_str()).collect();
    assert!(!names.is_empty());
    assert!(
        !names
            .iter()
            .any(|name| name.contains("pooler") || name.contains("classifier"))
    );
    assert!(
        !names.contains(&"deberta.encoder.layer.1.output.dense"),
        "{names:?}"
    );
    assert!(
        names.contains(&"deberta.encoder.layer.0.output.dense"),
        "{names:?}"
    );
}

#[test]
fn a_model_is_quantized_as_it_is_read_or_afterwards_alike() {
    let device = Device::flex();
    let config = QuantizeConfig::new(Quantization::Nf4);
    let (after, _) =
        Gpt2LmHead::load(fixture("gpt2_tied"), &LoadOptions::default(), &device).unwrap();
    let (after, modules) = after.quantize(&config).unwrap();
    assert_eq!(modules.len(), 8);
    let read = gpt2("gpt2_tied", Quantization::Nf4, &device);
    let logits = |model: &Gpt2LmHead| next_logits(model, "gpt2_tied", &device);
    assert_eq!(logits(&read), logits(&after));

    let (model, _) = encoders::load("bert_seq", &device);
    let (model, _) = model.quantize(&config).unwrap();
    let read = classifier("bert_seq", config, &device);
    assert_eq!(logits_on(&model, "bert_seq"), logits_on(&read, "bert_seq"));
    let Trunk::Bert(trunk) = &model.trunk else {
        panic!("a BERT");
    };
    let dense: &LoraLinear = &trunk.encoder.layer[0].output.dense;
    assert!(dense.packed().is_some());
}

#[test]
fn a_quantized_model_is_not_exported_and_a_merged_one_is() {
    let device = Device::flex();
    let model = gpt2("gpt2_tied", Quantization::Nf4, &device);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let options = ExportOptions::default();
    let refuse = lora_core::files::Overwrite::Refuse;
    let error = model
        .export(&path, &options, refuse)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("c_attn") && error.contains("quantized"),
        "{error}"
    );
    assert!(!path.exists());
    let lora = LoraConfig::new(2).with_targets(TargetModules::names(["c_fc"]));
    let (model, _) = model.attach(&lora).unwrap().into_parts();
    let merged = lora_core::merge(model).into_module();
    merged.export(&path, &options, refuse).unwrap();
    let (again, _) = Gpt2LmHead::load(&path, &LoadOptions::default(), &device).unwrap();
    let logits = |model: &Gpt2LmHead| next_logits(model, "gpt2_tied", &device);
    assert_eq!(logits(&again), logits(&merged));
    assert_eq!(again.num_params(), merged.num_params());
}
