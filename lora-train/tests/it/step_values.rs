//! Losses that are read one step late, and steps whose loss is not finite.

use crate::common;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use lora_core::{LoraConfig, LoraInit, TargetModules};
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::encoder::Labels;
use lora_models::{LoraModel, ModelConfig};
use lora_train::TrainError;
use lora_train::data::{BatchOrder, BatchPlan, ClassWeights, Example, Origin, Target};
use lora_train::task::Classify;
use lora_train::trainer::ranks::{Alone, Ranks, Threads};
use lora_train::trainer::{
    AdamW, BatchLoader, CheckpointDir, Event, Every, Hooks, NonFinite, Observer, Outcome,
    ReadValues, Run, Schedule, ScheduleKind, TrainerConfig, fit,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Events of a run as lines, without the seconds.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Log {
    fn observe(&mut self, event: &Event) -> Result<(), TrainError> {
        let line = match event {
            Event::Step(step) => {
                let mut line = serde_json::to_value(step).unwrap();
                line.as_object_mut().unwrap().remove("seconds");
                line.to_string()
            }
            Event::Eval(eval) => format!("evaluation at {}", eval.step),
            Event::Saved(path) => format!("saved {}", path.file_name().unwrap().display()),
            other => format!("{other:?}"),
        };
        self.push(line);
        Ok(())
    }
}

/// Hooks that write into the log too.
struct Noted(Log);

impl Hooks<Classify> for Noted {
    fn evaluate(&mut self, _: &Classify) -> Result<BTreeMap<String, f64>, TrainError> {
        self.0.push("evaluates".into());
        Ok(BTreeMap::from([("loss".to_string(), 1.0)]))
    }

    fn save_weights(&mut self, _: &Classify, dir: &Path) -> Result<(), TrainError> {
        self.0.push("saves".into());
        std::fs::write(dir.join("weights"), "").map_err(TrainError::io(dir))
    }
}

fn regression() -> Classify {
    let dir = common::fixtures().join("classify/models/bert");
    let ModelConfig::Encoder(config) = ModelConfig::from_dir(dir)
        .unwrap()
        .without_dropout()
        .with_labels(Labels::Score)
    else {
        panic!("BERT is an encoder");
    };
    let device = Device::flex().autodiff();
    let lora = LoraConfig::new(2)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["query"]));
    let model = Classifier::init(&config, HeadKind::Sequence, 3, &device).unwrap();
    Classify::new(
        model.attach(&lora).unwrap().into_module(),
        0.0,
        ClassWeights::default(),
    )
}

/// One example a batch, in this order. A score that is infinite makes loss and gradients infinite.
fn examples(scores: &[f64]) -> Vec<Example> {
    let example = |(row, &score): (usize, &f64)| {
        let tokens = (0..6).map(|i| (5 + row * 7 + i) as u32).collect();
        let origin = Origin::new(Path::new("scores"), row + 1);
        Example::with_target(row, tokens, Target::Score(score), origin)
    };
    scores.iter().enumerate().map(example).collect()
}

fn config(steps: usize) -> TrainerConfig {
    TrainerConfig {
        total_steps: steps,
        accumulation: 1,
        max_grad_norm: None,
        non_finite: NonFinite::Fail,
        read_values: ReadValues::AtOnce,
        evaluate: Every::Never,
        save: Every::Never,
        keep_checkpoints: 1,
        patience: None,
        best_metric: "loss".into(),
        higher_is_better: false,
        seed: 1,
    }
}

struct Session {
    result: Result<Outcome<Classify>, TrainError>,
    log: Vec<String>,
}

/// Trains the head and the adapter with a constant learning rate.
fn train(config: TrainerConfig, examples: Vec<Example>, output: &Path, resume: bool) -> Session {
    train_at(Arc::new(Alone), config, examples, output, resume)
}

/// Trains at a rank.
fn train_at(
    ranks: Arc<dyn Ranks>,
    config: TrainerConfig,
    examples: Vec<Example>,
    output: &Path,
    resume: bool,
) -> Session {
    let log = Log::default();
    let lengths = vec![6; examples.len()];
    let plan = BatchPlan::new(lengths, 1, BatchOrder::FileOrder, 0).unwrap();
    let run = Run {
        adamw: AdamW::default(),
        lora_plus: None,
        schedule: Schedule::new(ScheduleKind::Constant, 1e-2, 0, config.total_steps),
        fingerprint: "run".into(),
        data: None,
        eval_data: None,
        loader: BatchLoader::new(examples, plan, 0),
        hooks: Box::new(Noted(log.clone())),
        ranks,
        observers: vec![Box::new(log.clone())],
        interrupter: burn_train::Interrupter::new(),
        config,
    };
    let checkpoint = CheckpointDir::new(output.join("checkpoints"))
        .last()
        .unwrap();
    let checkpoint = checkpoint.filter(|_| resume).map(|last| last.checkpoint);
    let result = fit(regression(), run, output, checkpoint);
    Session {
        result,
        log: log.lines(),
    }
}

/// Values of the trained parameters.
fn weights(task: &Classify) -> Vec<f32> {
    struct Values(Vec<f32>);
    impl ModuleVisitor for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(test_support::tensors::host(param.val()));
        }
    }
    let mut values = Values(Vec::new());
    task.visit(&mut values);
    values.0
}

const INFINITE: f64 = f64::INFINITY;

#[test]
fn values_that_are_read_late_make_the_same_events_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let run = |read_values, max_grad_norm| {
        let config = TrainerConfig {
            read_values,
            max_grad_norm,
            evaluate: Every::Steps(3),
            save: Every::Steps(4),
            ..config(9)
        };
        let session = train(config, examples(&[1.0, -2.0, 0.5, 3.0]), dir.path(), false);
        (weights(&session.result.unwrap().model), session.log)
    };
    let (expected, log) = run(ReadValues::AtOnce, None);
    let (found, late) = run(ReadValues::OneStepLate, None);
    assert_eq!(late, log);
    assert_eq!(found, expected);
    assert_eq!(
        log.iter().filter(|line| line.contains("grad_norm")).count(),
        9
    );
    // What was read before the evaluation after step 3, and what after it.
    let at = |text: &str| log.iter().position(|line| line.contains(text)).unwrap();
    assert!(at("\"step\":3,") < at("evaluates") && at("evaluates") < at("\"step\":4,"));
    let saved = at("saved step-00000004");
    assert!(at("\"step\":4,") < saved && saved < at("\"step\":5,"));

    // Clipped on the host and on the device: factors in f64 and in f32.
    let (expected, log) = run(ReadValues::AtOnce, Some(0.5));
    let (found, late) = run(ReadValues::OneStepLate, Some(0.5));
    assert_eq!(late[..2], log[..2], "the norm is that before clipping");
    for (f, e) in found.iter().zip(&expected) {
        assert!((f - e).abs() < 1e-5 * e.abs().max(1.0), "{f} is not {e}");
    }
}

#[test]
fn a_loss_that_is_read_late_is_an_error_of_its_own_step_before_anything_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for read_values in [ReadValues::AtOnce, ReadValues::OneStepLate] {
        let config = TrainerConfig {
            read_values,
            max_grad_norm: Some(1.0),
            evaluate: Every::Steps(4),
            save: Every::Steps(4),
            ..config(9)
        };
        let data = examples(&[1.0, -2.0, INFINITE, 3.0, 0.5]);
        let session = train(config, data, dir.path(), false);
        let error = session.result.unwrap_err();
        let TrainError::NonFiniteLoss { step, batch, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(*step, 3);
        assert!(batch.contains("scores:3"), "{batch}");
        let steps = session.log.iter().filter(|line| line.contains("grad_norm"));
        assert_eq!(steps.count(), 2);
        assert!(!session.log.contains(&"evaluates".to_string()));
        assert!(!session.log.contains(&"saves".to_string()));
    }
}

#[test]
fn a_step_that_is_not_finite_changes_nothing_if_it_is_to_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let skipping = |steps, read_values| TrainerConfig {
        non_finite: NonFinite::Skip { limit: 3 },
        max_grad_norm: Some(1.0),
        read_values,
        ..config(steps)
    };
    let finite = train(
        skipping(3, ReadValues::AtOnce),
        examples(&[1.0, -2.0, 0.5]),
        dir.path(),
        false,
    );
    let expected = weights(&finite.result.unwrap().model);
    for read_values in [ReadValues::AtOnce, ReadValues::OneStepLate] {
        // The same examples with others between: two in a row are not three.
        let mut data = examples(&[1.0, INFINITE, INFINITE, -2.0, INFINITE, 0.5]);
        let source = examples(&[1.0, -2.0, 0.5]);
        (data[0], data[3], data[5]) = (source[0].clone(), source[1].clone(), source[2].clone());
        let session = train(skipping(6, read_values), data, dir.path(), false);
        let found = weights(&session.result.unwrap().model);
        assert_eq!(found, expected);
        let skipped: Vec<bool> = session
            .log
            .iter()
            .filter(|line| line.contains("grad_norm"))
            .map(|line| line.contains("\"skipped\":true"))
            .collect();
        assert_eq!(skipped, [false, true, true, false, true, false]);
    }
}

#[test]
fn steps_in_a_row_that_are_not_finite_end_a_run_that_leaves_them_out_even_across_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let config = |steps| TrainerConfig {
        non_finite: NonFinite::Skip { limit: 3 },
        save: Every::Steps(3),
        ..config(steps)
    };
    let data = examples(&[1.0, INFINITE, INFINITE, INFINITE, 0.5]);
    let whole = train(config(5), data.clone(), dir.path(), false);
    let error = whole.result.unwrap_err();
    let TrainError::NonFiniteSteps { steps, step, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*steps, *step), (3, 4));
    assert!(error.to_string().contains("scores:4"), "{error}");
    // The checkpoint after step 3 was written by a step that was left out.
    let resumed = train(config(5), data, dir.path(), true);
    let steps: Vec<&String> = resumed
        .log
        .iter()
        .filter(|line| line.contains("grad_norm"))
        .collect();
    assert!(steps.is_empty(), "{steps:?}");
    assert!(matches!(
        resumed.result.unwrap_err(),
        TrainError::NonFiniteSteps {
            steps: 3,
            step: 4,
            ..
        }
    ));
}

/// The loss of the third batch, which the second rank computes, is infinite.
#[test]
fn a_loss_that_is_not_finite_at_one_rank_ends_all_with_the_message_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (alone, several) = (dir.path().join("alone"), dir.path().join("several"));
    let config = |non_finite| TrainerConfig {
        accumulation: 4,
        max_grad_norm: Some(1.0),
        non_finite,
        ..config(3)
    };
    let data = examples(&[1.0, -2.0, INFINITE, 3.0, 0.5]);
    for non_finite in [NonFinite::Fail, NonFinite::Skip { limit: 1 }] {
        let one = train(config(non_finite), data.clone(), &alone, false);
        let expected = one.result.unwrap_err().to_string();
        assert!(expected.contains("scores:1"), "{expected}");
        std::thread::scope(|scope| {
            for rank in Threads::new(3) {
                let (config, data) = (config(non_finite), data.clone());
                let (expected, several) = (&expected, &several);
                scope.spawn(move || {
                    let session = train_at(Arc::new(rank), config, data, several, false);
                    assert_eq!(&session.result.unwrap_err().to_string(), expected);
                    assert!(!session.log.contains(&"saves".to_string()));
                });
            }
        });
    }
}
