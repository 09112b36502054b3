//! Parameters and bytes that `lora plan` counts without running a step.

use burn::tensor::Device;
use lora_core::{BaseDType, BaseFloats, LoraConfig, Quantization, QuantizeConfig};
use lora_models::decoder::DecoderLm;
use lora_models::{LoadOptions, LoraModel, LoraTargets, Preset, Pretrained};
use lora_train::options::TargetNames;
use lora_train::tools::bench::{Shape, Training};
use lora_train::tools::{Forecast, PlanOptions, estimate};
use serde_json::json;
use std::path::Path;

const MIB: f64 = (1 << 20) as f64;

fn counted(shape: Shape, training: Training) -> Forecast {
    estimate(&PlanOptions {
        shape,
        training,
        no_calibration: true,
        ..PlanOptions::default()
    })
    .unwrap()
}

fn adapter(rank: usize, targets: Option<&str>) -> Shape {
    Shape {
        rank: Some(rank),
        targets: targets.map(|text| TargetNames::Text(text.into())),
        ..Shape::default()
    }
}

/// Runs `work` with the directory of a GPT-2 of these sizes.
fn gpt2<T>(n_layer: usize, n_embd: usize, n_head: usize, work: impl FnOnce(Shape) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "gpt2", "n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "n_positions": 2048,
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    work(Shape {
        model: Some(dir.path().into()),
        ..Shape::default()
    })
}

/// Hu et al. 2021, tables 2 to 4, without a head, whose parameters are fully trained beside these.
#[test]
fn parameters_are_the_papers() {
    let slices = Some("c_attn[q,v]");
    for ((layers, width, heads), rank, expected) in [
        ((24, 1024, 16), 4, 393_216),
        ((36, 1280, 20), 4, 737_280),
        ((96, 12_288, 96), 4, 18_874_368),
        ((96, 12_288, 96), 1, 4_718_592),
    ] {
        let found = gpt2(layers, width, heads, |base| {
            let shape = Shape {
                model: base.model,
                ..adapter(rank, slices)
            };
            counted(shape, Training::default())
        });
        assert_eq!(found.trainable, expected);
    }
    let roberta = Shape {
        preset: Some(Preset::RobertaBase),
        ..adapter(8, None)
    };
    let head = 768 * 768 + 768 + 2 * 768 + 2;
    let found = counted(roberta, Training::default());
    assert_eq!(found.trainable, 294_912 + head);
}

#[test]
fn a_model_of_175_billion_parameters_is_counted_without_being_made() {
    let (found, all) = gpt2(96, 12_288, 96, |base| {
        let model = base.model.clone();
        let shape = Shape {
            model,
            ..adapter(4, Some("c_attn[q,v]"))
        };
        let full = Training {
            full: true,
            ..Training::default()
        };
        (counted(shape, Training::default()), counted(base, full))
    });
    assert_eq!(found.parameters, 174_604_259_328);
    // Table 4 and section 4.2: the optimizer's state is three quarters of what is saved.
    assert_eq!((all.optimizer_mib / found.optimizer_mib).floor(), 9250.0);
    assert_eq!(all.gradients_mib * MIB, 4.0 * all.parameters as f64);
}

/// Embeddings and output layers of decoders count in 16 bits beside quantized linear layers, as loading packs them.
#[test]
fn packed_decoders_take_what_loading_them_says() {
    let fixtures =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../lora-models/tests/fixtures/decoders");
    for (name, quantize, base_dtype) in [
        ("llama", Some(Quantization::Nf4), Some(BaseDType::Bf16)),
        ("qwen3", Some(Quantization::Nf4), Some(BaseDType::F16)),
        ("gemma2", Some(Quantization::Int8), Some(BaseDType::Bf16)),
        ("phi3", Some(Quantization::Int8), None),
        ("olmo2", None, Some(BaseDType::Bf16)),
        ("qwen3", Some(Quantization::Nf4), Some(BaseDType::Int8)),
        ("llama", None, Some(BaseDType::Int8)),
    ] {
        let dir = fixtures.join(name);
        let options = LoadOptions::default()
            .with_quantize(quantize.map(QuantizeConfig::new))
            .with_floats(BaseFloats::new(base_dtype.unwrap_or_default()));
        let (model, _) = DecoderLm::load(&dir, &options, &Device::flex()).unwrap();
        let parameters = model.config().parameters().unwrap() as usize;
        let targets = model.default_targets();
        let adapted = model
            .attach(&LoraConfig::new(2).with_targets(targets))
            .unwrap();
        let report = adapted.report();
        let packed = report.quantized.iter().map(|m| m.f32_bytes - m.bytes);
        let bytes = 4 * (parameters + report.parameters()) - packed.sum::<usize>();
        let found = counted(
            Shape {
                model: Some(dir),
                quantize,
                base_dtype,
                ..adapter(2, None)
            },
            Training::default(),
        );
        assert_eq!(found.weights_mib * MIB, bytes as f64, "{name}");
    }
}

#[test]
fn packed_weights_take_what_the_report_of_packing_says() {
    let mib = |quantize| {
        let shape = Shape {
            quantize,
            ..Shape::default()
        };
        counted(shape, Training::default()).weights_mib
    };
    let (floats, int8, nf4) = (
        mib(None),
        mib(Some(Quantization::Int8)),
        mib(Some(Quantization::Nf4)),
    );
    // 324.0 MiB of linear layers take 86.1 and 45.6, as measured in `benchmarks/`.
    assert!((floats - int8 - (324.0 - 86.1)).abs() < 0.2);
    assert!((floats - nf4 - (324.0 - 45.6)).abs() < 0.2);
}
