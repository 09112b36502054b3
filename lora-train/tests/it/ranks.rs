//! Several ranks have the numbers of one: threads of this process stand for the processes of a launcher.

use crate::common::encoders::{data, encoder};
use crate::common::{adapter, metrics, model, texts};
use burn_train::Interrupter;
use lora_train::TrainError;
use lora_train::device::DeviceName;
use lora_train::jobs::{
    AdapterOptions, EvalOptions, EvalSummary, GenerateOptions, OutputOptions, PredictOptions,
    SamplingOptions, TrainPlan, TrainSummary, eval_with, generate_with, predict_with, train_with,
};
use lora_train::options::TrainOptions;
use lora_train::progress::Screen;
use lora_train::trainer::ranks::{Ranks, Threads};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// Runs work at each of some ranks, and returns the results in their order.
fn at_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Ranks>) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let ranks: Vec<_> = Threads::new(size)
            .into_iter()
            .map(|rank| scope.spawn(|| work(Arc::new(rank))))
            .collect();
        let results = ranks.into_iter();
        results.map(|rank| rank.join().unwrap()).collect()
    })
}

/// Trains at each rank, with the options that `options` gives it.
fn train_at(
    size: usize,
    options: impl Fn(usize) -> TrainOptions + Sync,
) -> Vec<Result<TrainSummary, TrainError>> {
    at_ranks(size, |ranks| {
        let plan = TrainPlan::new(options(ranks.rank()))?;
        train_with(ranks, plan, Interrupter::new(), &mut Screen::quiet())
    })
}

/// Dropout, accumulation with a short group at the end of each epoch, evaluations and checkpoints.
fn language_model(output: &Path) -> TrainOptions {
    TrainOptions {
        model: Some(model()),
        data: vec![texts()],
        eval_data: Some(texts()),
        output: Some(output.into()),
        device: Some(DeviceName::Flex),
        max_length: Some(48),
        rank: Some(3),
        alpha: Some(5.0),
        dropout: Some(0.2),
        lr: Some(1e-2),
        batch_size: Some(3),
        grad_accumulation: Some(4),
        max_steps: Some(7),
        eval_steps: Some(2),
        save_steps: Some(3),
        keep_checkpoints: Some(5),
        keep_best: true,
        generate_prompts: Some(3),
        max_new_tokens: Some(4),
        seed: Some(11),
        ..TrainOptions::default()
    }
}

/// Lines of steps and evaluations, without times.
fn lines(output: &Path) -> Vec<String> {
    let without_times = |mut line: Value| {
        let fields = line.as_object_mut().unwrap();
        fields.retain(|name, _| !name.contains("seconds"));
        line.to_string()
    };
    metrics(output).into_iter().map(without_times).collect()
}

/// Names, shapes and values of the trained tensors, bit for bit. The order of the file's metadata is another in each run.
fn trained(output: &Path) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let tensors = adapter(&output.join("adapter")).into_iter();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    tensors
        .map(|(name, shape, values)| (name, shape, bits(values)))
        .collect()
}

/// Trains on one rank and on several, and compares every number of the run and the bits of the adapter.
fn assert_like_one(sizes: &[usize], options: impl Fn(&Path) -> TrainOptions + Sync) {
    let dir = tempfile::tempdir().unwrap();
    let run = |size: usize| {
        let output = dir.path().join(format!("ranks{size}"));
        let summaries = train_at(size, |_| options(&output));
        let summaries: Vec<TrainSummary> = summaries.into_iter().map(Result::unwrap).collect();
        for summary in &summaries {
            assert_eq!(summary.before, summaries[0].before, "{size} ranks");
            assert_eq!(summary.after, summaries[0].after, "{size} ranks");
            assert_eq!(summary.steps, summaries[0].steps);
        }
        let texts = summaries[0].texts.iter();
        let texts: Vec<String> = texts.map(|text| text.text.clone()).collect();
        let numbers = (summaries[0].before.clone(), summaries[0].after.clone());
        (lines(&output), numbers, texts, trained(&output))
    };
    let one = run(1);
    assert!(one.0.len() >= 3, "{:?}", one.0);
    for &size in sizes {
        let several = run(size);
        assert_eq!(several.0, one.0, "{size} ranks");
        assert_eq!(several.1, one.1, "{size} ranks");
        assert_eq!(several.2, one.2, "{size} ranks");
        assert!(several.3 == one.3, "the adapter of {size} ranks");
    }
}

#[test]
fn any_number_of_ranks_has_the_numbers_the_texts_and_the_adapter_of_one() {
    assert_like_one(&[2, 3, 4], language_model);
}

#[test]
fn ranks_share_packed_batches() {
    assert_like_one(&[2, 4], |output| TrainOptions {
        batch_size: None,
        batch_tokens: Some(64),
        packing: true,
        generate_prompts: None,
        max_new_tokens: None,
        eval_batch_size: Some(3),
        ..language_model(output)
    });
}

/// Four batches in an epoch: a step of three, and one of a single batch, in which two ranks have nothing.
#[test]
fn three_ranks_come_to_an_end_with_four_batches() {
    assert_like_one(&[3], |output| TrainOptions {
        batch_size: Some(7),
        grad_accumulation: Some(3),
        max_steps: Some(5),
        generate_prompts: None,
        max_new_tokens: None,
        ..language_model(output)
    });
}

#[test]
fn ranks_share_the_examples_of_a_classifier() {
    let base = tempfile::tempdir().unwrap();
    let model = encoder("bert", base.path());
    assert_like_one(&[2, 3], |output| TrainOptions {
        model: Some(model.clone()),
        data: vec![data("texts.jsonl")],
        eval_data: Some(data("texts.jsonl")),
        batch_size: Some(2),
        grad_accumulation: Some(2),
        max_length: None,
        generate_prompts: None,
        max_new_tokens: None,
        max_steps: Some(4),
        ..language_model(output)
    });
}

#[test]
fn a_run_of_four_ranks_is_resumed_on_one_and_on_two() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let unwrap = |results: Vec<Result<TrainSummary, TrainError>>| {
        results.into_iter().for_each(|result| {
            result.unwrap();
        });
    };
    unwrap(train_at(1, |_| language_model(&whole)));
    for size in [1, 2] {
        let output = dir.path().join(format!("on{size}"));
        unwrap(train_at(4, |_| language_model(&output)));
        // As if the run had been killed after its first checkpoint, in the middle of an epoch.
        for step in [6, 7] {
            let step = output.join(format!("checkpoints/step-{step:08}"));
            std::fs::remove_dir_all(step).unwrap();
        }
        unwrap(train_at(size, |_| TrainOptions {
            resume: true,
            ..language_model(&output)
        }));
        assert_eq!(lines(&output), lines(&whole), "resumed on {size}");
        assert!(trained(&output) == trained(&whole), "resumed on {size}");
    }
}

/// Asserts that training fails at all ranks, with a message that has these parts at each that is not the cause.
fn assert_refused(parts: &[&str], options: impl Fn(usize) -> TrainOptions + Sync) {
    for result in train_at(3, options) {
        let error = result.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn a_rank_with_other_options_data_or_base_is_named_at_all_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let other = ["rank 2 of 3", "than rank 0"];
    assert_refused(
        &[&other[..], &["set of options", "seed = 12"]].concat(),
        |rank| TrainOptions {
            seed: Some(if rank == 2 { 12 } else { 11 }),
            ..language_model(&path("options"))
        },
    );
    let text = std::fs::read_to_string(texts()).unwrap();
    let mut swapped: Vec<&str> = text.lines().collect();
    swapped.swap(3, 4);
    std::fs::write(path("swapped.jsonl"), swapped.join("\n")).unwrap();
    assert_refused(
        &[&other[..], &["training data", "order"]].concat(),
        |rank| TrainOptions {
            data: vec![if rank == 2 {
                path("swapped.jsonl")
            } else {
                texts()
            }],
            ..language_model(&path("data"))
        },
    );
    let base = path("base");
    std::fs::create_dir(&base).unwrap();
    for file in std::fs::read_dir(model()).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, base.join(file.file_name().unwrap())).unwrap();
    }
    let weights = base.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    assert_refused(
        &[&other[..], &["base model", "model.safetensors"]].concat(),
        |rank| TrainOptions {
            model: Some(if rank == 2 { base.clone() } else { model() }),
            ..language_model(&path("base_run"))
        },
    );
}

#[test]
fn an_error_at_one_rank_leaves_no_other_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let results = train_at(3, |rank| TrainOptions {
        data: vec![if rank == 1 {
            "gone.jsonl".into()
        } else {
            texts()
        }],
        ..language_model(&dir.path().join("run"))
    });
    let errors = results
        .into_iter()
        .map(|result| result.unwrap_err().to_string());
    let errors: Vec<String> = errors.collect();
    assert!(errors[1].contains("gone.jsonl"), "{}", errors[1]);
    for rank in [0, 2] {
        assert!(
            errors[rank].contains("rank 1 of 3 has ended"),
            "{}",
            errors[rank]
        );
    }
}

#[test]
fn a_stop_at_any_rank_saves_once_and_the_run_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, cut) = (dir.path().join("whole"), dir.path().join("cut"));
    let options = |output: &Path| TrainOptions {
        keep_best: false,
        ..language_model(output)
    };
    train_at(1, |_| options(&whole)).remove(0).unwrap();
    let summaries = at_ranks(3, |ranks| {
        let interrupter = Interrupter::new();
        if ranks.rank() == 2 {
            interrupter.stop(Some("interrupted"));
        }
        let plan = TrainPlan::new(options(&cut)).unwrap();
        train_with(ranks, plan, interrupter, &mut Screen::quiet()).unwrap()
    });
    for summary in summaries {
        assert_eq!(
            (summary.steps, summary.stopped.as_deref()),
            (1, Some("interrupted"))
        );
    }
    let saved = std::fs::read_dir(cut.join("checkpoints")).unwrap();
    let saved: Vec<_> = saved.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(saved, ["step-00000001"]);
    for result in train_at(2, |_| TrainOptions {
        resume: true,
        ..options(&cut)
    }) {
        result.unwrap();
    }
    assert_eq!(lines(&cut), lines(&whole));
}

/// Evaluates at each rank; the first one writes the predictions.
fn eval_at(size: usize, options: &EvalOptions) -> Vec<EvalSummary> {
    at_ranks(size, |ranks| {
        eval_with(&*ranks, options, &Screen::quiet()).unwrap()
    })
}

/// A classifier, and an adapter that was trained on it in two steps.
fn trained_classifier(dir: &Path) -> (PathBuf, AdapterOptions) {
    let classifier = encoder("bert", dir);
    let trained = dir.join("trained");
    let options = TrainOptions {
        model: Some(classifier.clone()),
        data: vec![data("texts.jsonl")],
        output: Some(trained.clone()),
        device: Some(DeviceName::Flex),
        max_steps: Some(2),
        ..TrainOptions::default()
    };
    train_at(1, |_| options.clone()).remove(0).unwrap();
    let adapter = AdapterOptions {
        adapters: vec![trained.join("adapter").into()],
        ..AdapterOptions::default()
    };
    (classifier, adapter)
}

#[test]
fn an_evaluation_of_several_ranks_is_that_of_one_with_results_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (classifier, adapter) = trained_classifier(dir.path());
    for (name, model, adapters, data, generate) in [
        ("texts", model(), AdapterOptions::default(), texts(), true),
        ("classes", classifier, adapter, data("texts.jsonl"), false),
    ] {
        let run = |size: usize| {
            let predictions = dir.path().join(format!("{name}{size}.jsonl"));
            let options = EvalOptions {
                model: model.clone(),
                adapters: adapters.clone(),
                data: data.clone(),
                predictions: Some(predictions.clone()),
                generate,
                max_new_tokens: generate.then_some(4),
                batch_size: 2,
                max_length: generate.then_some(48),
                device: DeviceName::Flex,
                ..EvalOptions::default()
            };
            let summaries = eval_at(size, &options);
            for summary in &summaries {
                assert_eq!(summary.metrics, summaries[0].metrics, "{name}");
            }
            let metrics = summaries[0].metrics.clone();
            (metrics, std::fs::read_to_string(predictions).unwrap())
        };
        let one = run(1);
        assert!(one.0.len() >= 2 && one.1.lines().count() > 3, "{one:?}");
        for size in [2, 3] {
            assert_eq!(run(size), one, "{name} at {size} ranks");
        }
    }
}

/// Gives a command at several ranks a file of results, then continues one that was cut off; returns the file and what ranks got instead.
fn results_at(
    size: usize,
    dir: &Path,
    run: impl Fn(&dyn Ranks, &OutputOptions) -> Vec<String> + Sync,
) -> (String, Vec<String>) {
    let path = dir.join(format!("results{size}.jsonl"));
    let mut output = OutputOptions {
        output: Some(path.clone()),
        ..OutputOptions::default()
    };
    let nothing = at_ranks(size, |ranks| run(&*ranks, &output)).concat();
    assert!(nothing.is_empty(), "{nothing:?}");
    let whole = std::fs::read_to_string(&path).unwrap();
    // The first line has the key of the run.
    let cut: String = whole.split_inclusive('\n').take(4).collect();
    assert!(cut.len() < whole.len());
    std::fs::write(&path, cut).unwrap();
    output.resume = true;
    at_ranks(size, |ranks| run(&*ranks, &output));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    let mut printed = at_ranks(size, |ranks| run(&*ranks, &OutputOptions::default()));
    let first = printed.remove(0);
    assert!(printed.iter().all(Vec::is_empty), "{printed:?}");
    (whole, first)
}

#[test]
fn continuations_of_several_ranks_are_those_of_one_in_order() {
    let prompts = [
        "The king",
        "A small",
        "In the year",
        "The",
        "Many of them",
        "On",
    ];
    let run = |ranks: &dyn Ranks, output: &OutputOptions| {
        let options = GenerateOptions {
            model: model(),
            prompt: prompts.map(String::from).into(),
            max_new_tokens: Some(5),
            batch_size: 2,
            sampling: SamplingOptions {
                temperature: Some(1.5),
                seed: 7,
                ..SamplingOptions::default()
            },
            output: output.clone(),
            device: DeviceName::Flex,
            ..GenerateOptions::default()
        };
        let mut found = Vec::new();
        generate_with(ranks, &options, &Screen::quiet(), &mut |continuation| {
            found.push(format!("{continuation:?}"));
            Ok(())
        })
        .unwrap();
        found
    };
    let dir = tempfile::tempdir().unwrap();
    let one = results_at(1, dir.path(), run);
    assert_eq!(one.1.len(), prompts.len());
    for size in [2, 4] {
        assert_eq!(results_at(size, dir.path(), run), one, "{size} ranks");
    }
}

#[test]
fn predictions_of_several_ranks_are_those_of_one_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (classifier, adapter) = trained_classifier(dir.path());
    let run = |ranks: &dyn Ranks, output: &OutputOptions| {
        let options = PredictOptions {
            model: classifier.clone(),
            adapters: adapter.clone(),
            data: Some(data("texts.jsonl")),
            batch_size: 2,
            output: output.clone(),
            device: DeviceName::Flex,
            ..PredictOptions::default()
        };
        let mut found = Vec::new();
        predict_with(ranks, &options, &Screen::quiet(), &mut |prediction| {
            found.push(format!("{prediction:?}"));
            Ok(())
        })
        .unwrap();
        found
    };
    let one = results_at(1, dir.path(), run);
    for size in [2, 3] {
        assert_eq!(results_at(size, dir.path(), run), one, "{size} ranks");
    }
}
