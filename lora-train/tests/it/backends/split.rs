//! Models with an embedding in parts have the numbers of the whole ones on flex.

use super::{encoder, one_at_a_time, options, others, trained, without_dropout};
use crate::common::{adapter, metrics, tensors};
use lora_core::ops::with_max_buffer_bytes;
use lora_models::classifier::HeadKind;
use lora_train::device::{self, DeviceName};
use lora_train::options::TrainOptions;
use std::path::Path;
use test_support::compare::assert_near;

/// Limit for parts of 128, 128 and 44 rows of GPT-2's fixture, `[300, 24]`.
const GPT2: u64 = 128 * 24 * 4;

/// Trains without dropout, two steps, and merges.
fn run(device: DeviceName, limit: u64, output: &Path) {
    let options = TrainOptions {
        max_steps: Some(2),
        // 32 tokens have activations of the limit's size.
        max_length: Some(32),
        batch_size: Some(1),
        merge: true,
        ..options(device, output)
    };
    with_max_buffer_bytes(limit, || trained(options));
}

#[test]
fn training_steps_of_a_gpt2_in_parts_are_those_of_the_whole() {
    let _turn = one_at_a_time();
    let dir = tempfile::tempdir().unwrap();
    let reference = dir.path().join("whole");
    run(DeviceName::Flex, u64::MAX, &reference);
    for name in [vec![DeviceName::Flex], others()].concat() {
        let output = dir.path().join(name.to_string());
        run(name, GPT2, &output);
        let steps = metrics(&output);
        assert_eq!(steps.len(), 2);
        for (found, expected) in steps.iter().zip(metrics(&reference)) {
            for key in ["loss", "grad_norm"] {
                let [found, expected] = [found, &expected].map(|line| line[key].as_f64().unwrap());
                assert_near(&[found], &[expected], 1e-4, &format!("{name} {key}"));
            }
        }
        let files = [
            adapter(&output.join("adapter")),
            tensors(&output.join("merged/model.safetensors")),
        ];
        let expected = [
            adapter(&reference.join("adapter")),
            tensors(&reference.join("merged/model.safetensors")),
        ];
        for (found, expected) in files.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len(), "{name}");
            for ((tensor, shape, found), (_, expected_shape, expected)) in
                found.iter().zip(expected)
            {
                assert_eq!(shape, expected_shape, "{name} {tensor}");
                assert_near(found, expected, 1e-4, &format!("{name} {tensor}"));
            }
        }
    }
}

#[test]
fn encoders_in_parts_have_the_outputs_and_gradients_of_the_whole() {
    let _turn = one_at_a_time();
    // Embeddings of 32 rows in parts of 11, 11 and 10.
    for name in ["roberta_tok", "v3_seq"] {
        let kind = if name.ends_with("tok") {
            HeadKind::Token
        } else {
            HeadKind::Sequence
        };
        let dir = tempfile::tempdir().unwrap();
        without_dropout(name, dir.path());
        let run = |device, limit| {
            with_max_buffer_bytes(limit, || {
                encoder(dir.path(), kind, ".*(query|dense)", device)
            })
        };
        let expected = run(device::open(DeviceName::Flex).unwrap(), u64::MAX);
        assert!(expected[1].len() > 50);
        for backend in others() {
            let found = run(device::open(backend).unwrap(), 14 * 36);
            for (found, expected) in found.iter().zip(&expected) {
                let scale = expected.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                let found: Vec<f32> = found.iter().map(|value| value / scale).collect();
                let expected: Vec<f32> = expected.iter().map(|value| value / scale).collect();
                // As for whole encoders.
                assert_near(&found, &expected, 5e-6, &format!("{backend} {name}"));
            }
        }
    }
}
