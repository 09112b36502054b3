//! `lora doctor` and `--verify-device` on every backend that is compiled in.

use super::{one_at_a_time, others};
use crate::common::{fixtures, model};
use burn_train::Interrupter;
use lora_train::jobs::{TrainPlan, train};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;
use lora_train::tools::doctor::{DoctorOptions, Verdict, doctor};

#[test]
fn the_doctor_finds_every_backend_healthy() {
    let _turn = one_at_a_time();
    for name in others() {
        let options = DoctorOptions {
            device: Some(name),
            time_limit: Some(600),
            ..DoctorOptions::default()
        };
        let report = doctor(&options, &Screen::quiet()).unwrap();
        println!("{report}");
        assert_eq!(report.verdict, Verdict::Ok, "{name}:\n{report}");
        assert!(!report.device.name.is_empty() && report.device.tolerance > 0.0);
    }
}

/// The adapters have dropout, which the comparison switches off.
#[test]
fn the_first_step_of_every_backend_agrees_with_the_cpu() {
    let _turn = one_at_a_time();
    for name in others() {
        let dir = tempfile::tempdir().unwrap();
        let options = TrainOptions {
            model: Some(model()),
            data: vec![fixtures().join("train20/train.jsonl")],
            output: Some(dir.path().join("run")),
            device: Some(name),
            max_steps: Some(1),
            max_length: Some(48),
            batch_size: Some(2),
            dropout: Some(0.2),
            verify_device: Some(true),
            ..TrainOptions::default()
        };
        let plan = TrainPlan::new(options).unwrap();
        train(plan, Interrupter::new(), &mut Screen::quiet()).unwrap();
    }
}
