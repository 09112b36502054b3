//! Forecasts of a run's memory and time against measured ones.

use crate::common;
use burn::tensor::Device;
use lora_models::{Preset, Pretrained};
use lora_train::device::DeviceName;
use lora_train::memory::peak_allocated;
use lora_train::tools::bench::{
    InferenceOptions, LoadOptions, Shape, StepOptions, Training, bench_inference, bench_load,
    bench_step,
};
use lora_train::tools::{PlanOptions, estimate};
use test_support::process::passed_alone;

fn shape(preset: Option<Preset>, batch_size: usize, max_length: usize) -> Shape {
    Shape {
        preset,
        batch_size: Some(batch_size),
        max_length: Some(max_length),
        device: Some(DeviceName::Flex),
        ..Shape::default()
    }
}

/// The three families in small, each with more layers than a calibration has.
fn shapes() -> Vec<(tempfile::TempDir, Shape)> {
    let gpt2 = r#"{"model_type": "gpt2", "vocab_size": 2000, "n_positions": 64, "n_embd": 96, "n_layer": 9, "n_head": 4}"#;
    let roberta = r#"{"model_type": "roberta", "vocab_size": 2000, "hidden_size": 96, "num_hidden_layers": 9,
        "num_attention_heads": 4, "intermediate_size": 384, "max_position_embeddings": 66, "pad_token_id": 1}"#;
    let deberta = r#"{"model_type": "deberta-v2", "vocab_size": 2000, "hidden_size": 96, "num_hidden_layers": 9,
        "num_attention_heads": 4, "intermediate_size": 384, "relative_attention": true, "position_buckets": 32,
        "max_position_embeddings": 64, "max_relative_positions": -1, "pos_att_type": "c2p|p2c", "share_att_key": true,
        "norm_rel_ebd": "layer_norm", "position_biased_input": false, "type_vocab_size": 0}"#;
    [gpt2, roberta, deberta]
        .into_iter()
        .map(|config| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            let shape = Shape {
                model: Some(dir.path().into()),
                ..shape(None, 6, 64)
            };
            (dir, shape)
        })
        .collect()
}

#[test]
fn memory_is_within_a_tenth_of_what_is_measured() {
    if passed_alone("plan::memory_is_within_a_tenth_of_what_is_measured") {
        return;
    }
    for (_dir, shape) in shapes() {
        for training in [
            Training::default(),
            Training {
                full: true,
                ..Training::default()
            },
            Training {
                checkpoint_activations: true,
                ..Training::default()
            },
        ] {
            let forecast = estimate(&PlanOptions {
                shape: shape.clone(),
                training,
                memory: Some(10_000),
                examples: Some(60),
                ..PlanOptions::default()
            })
            .unwrap();
            let report = bench_step(&StepOptions {
                shape: shape.clone(),
                training,
                steps: Some(1),
                ..StepOptions::default()
            })
            .unwrap();
            assert_eq!(report.trainable, forecast.trainable);
            let measured = peak_allocated().unwrap() as f64 / (1 << 20) as f64;
            let peak = forecast.peak_mib.unwrap();
            let program = forecast.program_mib.unwrap();
            let counted = forecast.weights_mib
                + forecast.gradients_mib
                + forecast.optimizer_mib
                + forecast.activations_mib.unwrap();
            assert!((counted + program - peak).abs() < 0.1);
            let allocated = peak - program;
            assert!(
                (allocated / measured - 1.0).abs() < 0.1,
                "{}: {allocated} MiB, but {measured} measured",
                forecast.method
            );
            let epoch = forecast.epoch_s.unwrap();
            assert!((epoch / forecast.step_s.unwrap() - 10.0).abs() < 1e-9);
            assert!(forecast.largest_batch.unwrap() > 100);
        }
    }
}

#[test]
fn a_model_that_is_too_large_is_counted_only() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "gpt2", "n_embd": 12288, "n_layer": 96, "n_head": 96, "n_positions": 2048}"#;
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let forecast = estimate(&PlanOptions {
        shape: Shape {
            model: Some(dir.path().into()),
            rank: Some(4),
            ..shape(None, 1, 2048)
        },
        no_calibration: true,
        ..PlanOptions::default()
    })
    .unwrap();
    assert_eq!(forecast.peak_mib, None);
    assert!(forecast.not_calibrated.is_some());
    // c_attn whole: [12288, 4] and [4, 36864] in 96 layers.
    assert_eq!(forecast.trainable, 96 * 4 * (12_288 + 36_864));
    assert!(forecast.to_string().contains("not measured"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |options: PlanOptions| estimate(&options).unwrap_err().to_string();
    let with = |shape| PlanOptions {
        shape,
        no_calibration: true,
        ..PlanOptions::default()
    };
    assert!(refused(with(shape(None, 0, 8))).contains("batch_size"));
    assert!(refused(with(shape(None, 1, 5000))).contains("max_length"));
    let nowhere = Shape {
        model: Some("nowhere".into()),
        ..Shape::default()
    };
    assert!(refused(with(nowhere)).contains("nowhere"));
    let none = PlanOptions {
        examples: Some(0),
        ..with(shape(None, 1, 8))
    };
    assert!(refused(none).contains("examples"));
}

#[test]
fn a_merged_model_and_one_with_an_adapter_are_measured_beside_the_base() {
    for (_dir, shape) in shapes() {
        let shape = Shape {
            max_length: Some(32),
            batch_size: Some(1),
            ..shape
        };
        let report = bench_inference(&InferenceOptions {
            shape,
            steps: Some(2),
            sizes: Vec::new(),
        })
        .unwrap();
        for name in [
            "base_s",
            "merged_s",
            "adapter_s",
            "merged_to_base",
            "adapter_to_merged",
        ] {
            assert!(report.more[name] > 0.0, "{name}");
        }
        assert_eq!(report.median_s, report.more["adapter_s"]);
    }
}

#[test]
fn loading_reads_what_is_there() {
    let report = bench_load(&LoadOptions {
        model: Some(common::model()),
        device: Some(DeviceName::Flex),
        steps: Some(1),
        ..LoadOptions::default()
    })
    .unwrap();
    let model =
        lora_models::gpt2::Gpt2LmHead::load(common::model(), &Default::default(), &Device::flex())
            .unwrap()
            .0;
    let parameters = burn::module::Module::num_params(&model);
    assert_eq!(report.more["parameters"], parameters as f64);
    assert!(report.median_s > 0.0);
}
