//! The same steps as PEFT with PyTorch's AdamW, from the command line.

use crate::common::{adapter, fixtures, metrics, succeed, train};
use lora_train::trainer::{Schedule, ScheduleKind};
use test_support::tensors::json;

/// Accumulation over unequal batches, clipping, warm-up and linear decay, weight decay, truncation
/// and several epochs, all in one.
#[test]
fn twenty_steps_give_pefts_losses_norms_and_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    let mut command = train(&data, dir.path());
    command
        .arg("--adapter")
        .arg(fixtures().join("train20/init"));
    command.args([
        "--lr",
        "1e-2",
        "--weight-decay",
        "0.01",
        "--warmup-steps",
        "4",
    ]);
    command.args([
        "--batch-size",
        "2",
        "--grad-accumulation",
        "2",
        "--max-steps",
        "20",
    ]);
    command.arg("--no-shuffle");
    succeed(&mut command);

    let expected = json(&fixtures().join("train20/expected.json"));
    let steps = metrics(dir.path());
    assert_eq!(steps.len(), 20);
    for (found, expected) in steps.iter().zip(expected["steps"].as_array().unwrap()) {
        for key in ["loss", "lr", "grad_norm"] {
            let (f, e) = (
                found[key].as_f64().unwrap(),
                expected[key].as_f64().unwrap(),
            );
            // The reference is in float64; float32 PyTorch itself differs from it by 1e-6.
            assert!(
                (f - e).abs() < 2e-5,
                "step {}: {key} {f} is not {e}",
                found["step"]
            );
        }
        assert_eq!(found["tokens"], expected["tokens"]);
    }
    let found = adapter(&dir.path().join("adapter"));
    let expected = adapter(&fixtures().join("train20/final"));
    assert_eq!(found.len(), expected.len());
    for ((name, shape, values), (e_name, e_shape, e_values)) in found.iter().zip(&expected) {
        assert_eq!((name, shape), (e_name, e_shape));
        for (value, expected) in values.iter().zip(e_values) {
            assert!(
                (value - expected).abs() < 1e-4,
                "{name}: {value} is not {expected}"
            );
        }
    }
}

#[test]
fn schedules_are_those_of_transformers() {
    for case in json(&fixtures().join("schedule.json")).as_array().unwrap() {
        let kind = match case["schedule"].as_str().unwrap() {
            "linear" => ScheduleKind::Linear,
            "cosine" => ScheduleKind::Cosine,
            _ => ScheduleKind::Constant,
        };
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let schedule = Schedule::new(kind, 1.0, number("warmup"), number("total"));
        for (step, expected) in case["multipliers"].as_array().unwrap().iter().enumerate() {
            let (found, expected) = (schedule.multiplier(step), expected.as_f64().unwrap());
            assert!((found - expected).abs() < 1e-12, "{case} {step}: {found}");
        }
    }
}
