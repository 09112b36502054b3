//! A long run has the losses of flex: errors that add up from step to step stay small.

use super::{one_at_a_time, options, others, trained};
use crate::common::{adapter, metrics, model, tolerance};
use lora_train::device::{self, DeviceName};
use lora_train::options::TrainOptions;
use std::fs;
use std::path::Path;
use test_support::compare::assert_near;

/// Steps of the run.
const STEPS: usize = 300;

/// Copies the fixture model and sets a probability of dropout in its embeddings, residual connections and attention.
fn copy_with_dropout(dir: &Path) {
    for entry in fs::read_dir(model()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for key in ["attn_pdrop", "embd_pdrop", "resid_pdrop"] {
        assert_eq!(config[key], 0.0);
        config[key] = 0.1.into();
    }
    fs::write(path, config.to_string()).unwrap();
}

fn run(device: DeviceName, model: &Path, output: &Path) {
    trained(TrainOptions {
        model: Some(model.into()),
        max_steps: Some(STEPS),
        grad_accumulation: Some(1),
        // Dropout is drawn by place, so that its draws depend on the padded length.
        pad_to_multiple_of: Some(16),
        no_shuffle: false,
        ..options(device, output)
    });
}

#[test]
fn three_hundred_steps_with_dropout_have_the_losses_of_flex() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    copy_with_dropout(&model);
    let reference = dir.path().join("flex");
    run(DeviceName::Flex, &model, &reference);
    let expected = metrics(&reference);
    assert_eq!(expected.len(), STEPS);
    let loss = |step: usize| expected[step]["loss"].as_f64().unwrap();
    assert!(loss(STEPS - 1) < 0.75 * loss(0), "the run learned nothing");
    for name in others() {
        // Software Vulkan stays within 3e-6 over all steps: the run does not amplify roundings.
        let allowed = tolerance(&device::open(name).unwrap(), 1e-4);
        let output = dir.path().join(name.to_string());
        run(name, &model, &output);
        let found = metrics(&output);
        assert_eq!(found.len(), STEPS);
        for (found, expected) in found.iter().zip(&expected) {
            for key in ["loss", "grad_norm"] {
                let [found_value, value] =
                    [found, expected].map(|line| line[key].as_f64().unwrap());
                assert!(
                    (found_value - value).abs() < allowed,
                    "{name} step {}: {key} {found_value} is not {value}",
                    found["step"]
                );
            }
        }
        let pairs = adapter(&output.join("adapter"))
            .into_iter()
            .zip(adapter(&reference.join("adapter")));
        for ((tensor, shape, found), (_, expected_shape, expected)) in pairs {
            assert_eq!(shape, expected_shape, "{name} {tensor}");
            assert_near(&found, &expected, allowed, &format!("{name} {tensor}"));
        }
    }
}
