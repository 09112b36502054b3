//! A command parses each JSON file of a model and of an adapter once.

use crate::common::encoders::{data, encoder};
use crate::common::{fixtures, model};
use lora_core::files::record_reads;
use lora_train::TrainError;
use lora_train::device::DeviceName;
use lora_train::jobs::{
    AdapterOptions, EvalOptions, GenerateOptions, MergeOptions, PredictOptions, TrainPlan, eval,
    generate, merge, predict, train,
};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;
use std::collections::BTreeMap;
use std::path::Path;

/// Runs a command and counts its readings of JSON files.
fn assert_once<T>(name: &str, least: usize, command: impl FnOnce() -> Result<T, TrainError>) {
    let (result, reads) = record_reads(command);
    if let Err(error) = result {
        panic!("{name}: {error}");
    }
    let mut counts = BTreeMap::new();
    for path in reads {
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            *counts
                .entry(path.canonicalize().unwrap_or(path))
                .or_insert(0) += 1;
        }
    }
    assert!(
        counts.values().all(|&count| count == 1),
        "{name}: {counts:?}"
    );
    assert!(counts.len() >= least, "{name}: {counts:?}");
}

fn plan(options: TrainOptions) -> TrainPlan {
    TrainPlan::new(TrainOptions {
        device: Some(DeviceName::Flex),
        max_steps: Some(1),
        ..options
    })
    .unwrap()
}

fn trained(options: TrainOptions) -> Result<(), TrainError> {
    let interrupter = burn_train::Interrupter::new();
    train(plan(options), interrupter, &mut Screen::quiet()).map(drop)
}

fn merged(model: &Path, adapter: &Path, output: &Path) -> Result<(), TrainError> {
    let options = MergeOptions {
        model: model.into(),
        adapter: Some(adapter.into()),
        output: output.into(),
        device: DeviceName::Flex,
        ..MergeOptions::default()
    };
    merge(&options).map(drop)
}

#[test]
fn commands_on_a_language_model_parse_each_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    let run = |name: &str, adapter: Option<&Path>| TrainOptions {
        model: Some(model()),
        data: vec![data.clone()],
        eval_data: Some(data.clone()),
        output: Some(dir.path().join(name)),
        adapter: adapter.map(Into::into),
        max_length: Some(48),
        keep_best: true,
        ..TrainOptions::default()
    };
    let first = run("first", None);
    assert_once("train", 1, || trained(first));
    let adapter = dir.path().join("first/adapter");
    let second = run("second", Some(&adapter));
    assert_once("train further", 2, || trained(second));
    let options = EvalOptions {
        model: model(),
        data: data.clone(),
        adapters: AdapterOptions::one(&adapter),
        batch_size: 4,
        max_length: Some(48),
        device: DeviceName::Flex,
        ..EvalOptions::default()
    };
    assert_once("eval", 2, || eval(&options, &Screen::quiet()));
    let options = GenerateOptions {
        model: model(),
        prompt: vec!["The".into()],
        adapters: AdapterOptions::one(&adapter),
        max_new_tokens: Some(2),
        device: DeviceName::Flex,
        ..GenerateOptions::default()
    };
    assert_once("generate", 2, || {
        generate(&options, &Screen::quiet(), &mut |_| Ok(()))
    });
    let output = dir.path().join("merged");
    assert_once("merge", 2, || merged(&model(), &adapter, &output));
}

#[test]
fn commands_on_an_encoder_parse_each_file_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = encoder("roberta", dir.path());
    let pairs = data("pairs.jsonl");
    let run = |name: &str, adapter: Option<&Path>| TrainOptions {
        model: Some(model.clone()),
        data: vec![pairs.clone()],
        output: Some(dir.path().join(name)),
        adapter: adapter.map(Into::into),
        task: Some("classification".parse().unwrap()),
        ..TrainOptions::default()
    };
    let first = run("first", None);
    assert_once("train", 1, || trained(first));
    let adapter = dir.path().join("first/adapter");
    let second = run("second", Some(&adapter));
    assert_once("train further", 2, || trained(second));
    let options = EvalOptions {
        model: model.clone(),
        data: pairs.clone(),
        adapters: AdapterOptions::one(&adapter),
        batch_size: 4,
        device: DeviceName::Flex,
        ..EvalOptions::default()
    };
    assert_once("eval", 3, || eval(&options, &Screen::quiet()));
    let options = PredictOptions {
        model: model.clone(),
        text: vec!["a\tb".into()],
        adapters: AdapterOptions::one(&adapter),
        batch_size: 4,
        device: DeviceName::Flex,
        ..PredictOptions::default()
    };
    assert_once("predict", 3, || {
        predict(&options, &Screen::quiet(), &mut |_| Ok(()))
    });
    let output = dir.path().join("merged");
    assert_once("merge", 3, || merged(&model, &adapter, &output));
}
