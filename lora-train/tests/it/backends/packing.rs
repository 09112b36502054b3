//! Packing is for CPUs.

use super::{fixtures, model, others};
use lora_core::ops::max_buffer_bytes;
use lora_train::device;
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;

#[test]
fn packing_is_refused_on_a_gpu() {
    for name in others() {
        if max_buffer_bytes(&device::open(name).unwrap()).is_none() {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let options = TrainOptions {
            model: Some(model()),
            data: vec![fixtures().join("train20/train.jsonl")],
            output: Some(dir.path().join("out")),
            device: Some(name),
            packing: true,
            ..TrainOptions::default()
        };
        let plan = TrainPlan::new(options).unwrap();
        let interrupter = burn_train::Interrupter::new();
        let error = train(plan, interrupter, &mut Screen::quiet()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("packing"), "{message}");
        assert!(message.contains("of like length"), "{message}");
        assert!(!dir.path().join("out").exists());
    }
}
