//! Batches padded to a multiple of tokens: no loss, score or count depends on it.

use crate::common::encoders::{encoder, learn, lines, numbers, outcome, stdout};
use crate::common::steps::{assert_same, step};
use crate::common::{self, encoders, fail, fixtures, lora, metrics, model, succeed, train};
use burn::tensor::Device;
use burn_train::{InferenceStep, TrainStep};
use lora_core::{LoraConfig, LoraInit, TargetModules};
use lora_models::classifier::{Classifier, HeadKind};
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_models::{LoraModel, ModelConfig};
use lora_train::data::{
    ClassWeights, DataDigest, Example, Origin, Padding, SampleBatch, Target, collate,
};
use lora_train::jobs::TrainPlan;
use lora_train::options::TrainOptions;
use lora_train::task::{CausalLmTask, Classify};
use lora_train::trainer::{MicroBatch, StepOutput};
use serde_json::Value;
use std::path::Path;

/// Paddings of batches whose longest example has 11 tokens: to a multiple below the positions of the models, and to the
/// positions.
const PADDINGS: [(usize, usize, usize); 2] = [(16, 512, 16), (64, 20, 20)];

fn origin() -> Origin {
    Origin::new(Path::new("a"), 1)
}

fn tokens(row: usize, length: usize, vocab: usize) -> Vec<u32> {
    let token = |i: usize| 5 + (row * 31 + i * 17) % (vocab - 5);
    (0..length).map(|i| token(i) as u32).collect()
}

/// Examples of different lengths with a target for each.
fn examples(vocab: usize, target: impl Fn(usize, usize) -> Target) -> Vec<Example> {
    let example = |(row, length): (usize, usize)| {
        let example = Example::with_target(
            row,
            tokens(row, length, vocab),
            target(row, length),
            origin(),
        );
        let words = (0..length).map(|token| (token % 2 == 0).then_some(token as u32 / 2));
        example
            .with_type_ids(vec![0; length])
            .with_words(words.collect())
    };
    [11, 4, 9].into_iter().enumerate().map(example).collect()
}

fn lora_config(targets: TargetModules) -> LoraConfig {
    LoraConfig::new(3)
        .with_alpha(5.0)
        .with_init(LoraInit::Random)
        .with_targets(targets)
}

/// Asserts that loss, gradients and counts are those of a batch that is padded to its longest example.
fn assert_unchanged<M>(task: &M, examples: &[Example], what: &str)
where
    M: burn::module::Module
        + TrainStep<Input = MicroBatch<lora_train::data::Batch>, Output = StepOutput>
        + InferenceStep<Input = MicroBatch<lora_train::data::Batch>, Output = StepOutput>,
{
    let examples: Vec<&Example> = examples.iter().collect();
    let micro = |padding: Padding| {
        let batch = collate(&examples, padding);
        MicroBatch {
            loss_scale: 1.0 / batch.weight(),
            batch,
            seed: 77,
        }
    };
    let plain = micro(Padding::from(1));
    assert_eq!(plain.batch.seq, 11);
    let expected = step(task, &plain);
    for (multiple, most, seq) in PADDINGS {
        let padded = micro(Padding::from(1).to_multiple_of(multiple, most));
        assert_eq!(padded.batch.seq, seq);
        assert_eq!(padded.batch.weight(), plain.batch.weight());
        assert_eq!(padded.batch.counted_tokens(), plain.batch.counted_tokens());
        assert_same(
            &expected,
            &step(task, &padded),
            &format!("{what}, {multiple}"),
        );
        let loss = InferenceStep::step(task, padded).loss.into_scalar::<f32>();
        assert!((loss - expected.0).abs() < 1e-6, "{what}: {loss}");
    }
}

#[test]
fn a_language_model_has_the_loss_and_the_gradients_of_shorter_batches() {
    let config = Gpt2Config {
        vocab_size: 61,
        n_positions: 24,
        n_embd: 24,
        n_layer: 3,
        n_head: 4,
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..Gpt2Config::default()
    };
    let model = Gpt2LmHead::init(&config, 3, &Device::flex().autodiff()).unwrap();
    let lora = lora_config(TargetModules::names(["wte", "c_attn", "c_fc"]));
    let task = CausalLmTask::new(model.attach(&lora).unwrap().into_module(), 0.1);
    let examples = [11, 4, 9].into_iter().enumerate();
    let examples: Vec<Example> = examples
        .map(|(row, length)| Example::new(row, tokens(row, length, 61), 2, origin()))
        .collect();
    assert_unchanged(&task, &examples, "GPT-2");
    let task = task.with_checkpointed_activations(true);
    assert_unchanged(&task, &examples, "GPT-2, activations checkpointed");
}

#[test]
fn encoders_have_the_loss_and_the_gradients_of_shorter_batches() {
    let device = Device::flex().autodiff();
    for folder in encoders::FAMILIES {
        let dir = common::fixtures().join("classify/models").join(folder);
        let ModelConfig::Encoder(config) = ModelConfig::from_dir(dir).unwrap().without_dropout()
        else {
            panic!("{folder} is an encoder");
        };
        let vocab = config.vocab_size;
        let lora = lora_config(TargetModules::AllLinear);
        let texts = examples(vocab, |row, _| Target::Class(row % 2));
        let words = examples(vocab, |row, length| {
            Target::Tags(
                (0..length.div_ceil(2))
                    .map(|word| (word + row) % 2)
                    .collect(),
            )
        });
        for (head, examples) in [(HeadKind::Sequence, texts), (HeadKind::Token, words)] {
            let model = Classifier::init(&config, head, 3, &device).unwrap();
            let model = model.attach(&lora).unwrap().into_module();
            let task = Classify::new(model, 0.1, ClassWeights::default());
            assert_unchanged(&task, &examples, &format!("{folder}, {head:?}"));
        }
    }
}

fn steps(output: &Path) -> Vec<Value> {
    let lines = metrics(output).into_iter();
    lines.filter(|line| line.get("loss").is_some()).collect()
}

/// Asserts that two runs have the same losses, to rounding, and the same counts.
fn assert_same_run(found: &Path, expected: &Path) {
    let (found, expected) = (steps(found), steps(expected));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in ["loss", "grad_norm"] {
            let [f, e] = [found, expected].map(|line| line[key].as_f64().unwrap());
            // Weights differ in their last bits after a few steps.
            assert!(
                (f - e).abs() < 1e-5 * e.abs().max(1.0),
                "{key}: {f} is not {e}"
            );
        }
        assert_eq!(found["tokens"], expected["tokens"]);
    }
}

#[test]
fn a_run_of_a_language_model_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    let run = |name: &str, options: &[&str]| {
        let output = dir.path().join(name);
        let mut command = train(&data, &output);
        command.args(["--max-steps", "8", "--lr", "1e-2", "--save-steps", "0"]);
        command
            .arg("--adapter")
            .arg(fixtures().join("train20/init"));
        succeed(command.args(options));
        output
    };
    let plain = run("plain", &[]);
    assert_same_run(&run("padded", &["--pad-to-multiple-of", "32"]), &plain);

    let score = |options: &[&str]| {
        let file = dir.path().join("scores.jsonl");
        let mut command = lora(["eval", "--device", "flex", "--overwrite"]);
        command.arg("--model").arg(model()).arg("--data").arg(&data);
        command.arg("--adapter").arg(plain.join("adapter"));
        succeed(command.arg("--predictions").arg(&file).args(options));
        lines(&file)
    };
    let expected = score(&[]);
    let found = score(&["--pad-to-multiple-of", "32"]);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let [f, e] = [found, expected].map(|line| line["loss"].as_f64().unwrap());
        assert!((f - e).abs() < 1e-6 * e.abs().max(1.0), "{f} is not {e}");
        assert_eq!(found["tokens"], expected["tokens"]);
    }
    let write = |options: &[&str]| {
        let mut command = lora(["generate", "--device", "flex", "--max-new-tokens", "6"]);
        command
            .arg("--model")
            .arg(model())
            .arg("--adapter")
            .arg(plain.join("adapter"));
        command.args(["--prompt", "name[Aromi]", "--prompt", "The"]);
        stdout(command.args(options))
    };
    for beams in [&[][..], &["--beams", "3"]] {
        let padded = [beams, &["--pad-to-multiple-of", "16"]].concat();
        assert_eq!(write(&padded), write(beams));
    }
}

#[test]
fn a_run_of_a_classifier_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (model, data) = (encoder("v2", dir.path()), encoders::data("texts.jsonl"));
    let run = |name: &str, options: &[&str]| {
        let output = dir.path().join(name);
        let mut command = learn(&model, &data, &output);
        command.args(["--max-steps", "6", "--batch-size", "4"]);
        outcome(command.args(options));
        output
    };
    let plain = run("plain", &[]);
    assert_same_run(&run("padded", &["--pad-to-multiple-of", "16"]), &plain);
    let predict = |options: &[&str]| {
        let mut command = encoders::predict(&model);
        command.arg("--adapter").arg(plain.join("adapter"));
        command.args([
            "--text",
            "a good meal",
            "--text",
            "the food was cold and late",
            "--json",
        ]);
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
        let output = stdout(command.args(options));
        output.lines().map(line).collect::<Vec<_>>()
    };
    let found = predict(&["--pad-to-multiple-of", "16"]);
    for (found, expected) in found.iter().zip(predict(&[])) {
        assert_eq!(found["prediction"], expected["prediction"]);
        let [found, expected] = [found, &expected].map(|line| {
            let scores = line["scores"].as_object().unwrap().values();
            scores.flat_map(numbers).collect::<Vec<_>>()
        });
        for (f, e) in found.iter().zip(&expected) {
            assert!((f - e).abs() < 1e-6, "{f} is not {e}");
        }
    }
}

#[test]
fn a_multiple_without_meaning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    for (options, word) in [
        (&["--pad-to-multiple-of", "0"][..], "at least 1"),
        (&["--pad-to-multiple-of", "8", "--packing"], "not padded"),
    ] {
        let mut command = train(&data, &dir.path().join("run"));
        fail(command.args(options), 2, &["pad_to_multiple_of", word]);
    }
    let mut command = lora(["generate", "--device", "flex", "--prompt", "The"]);
    command.arg("--model").arg(model());
    fail(
        command.args(["--pad-to-multiple-of", "0"]),
        2,
        &["pad_to_multiple_of"],
    );
}

#[test]
fn the_padding_of_the_device_belongs_to_a_run_only_if_it_divides_the_examples() {
    let fingerprint = |batch_tokens, multiple| {
        let options = TrainOptions {
            model: Some("base".into()),
            data: vec!["train.jsonl".into()],
            output: Some("out".into()),
            batch_tokens,
            ..TrainOptions::default()
        };
        let plan = TrainPlan::new(options).unwrap();
        plan.fingerprint(&DataDigest::default(), multiple).unwrap()
    };
    assert_eq!(fingerprint(None, 64), fingerprint(None, 1));
    assert!(fingerprint(Some(512), 64).contains("pad_to_multiple_of = 64\n"));
    assert!(!fingerprint(Some(512), 1).contains("pad_to"));
}
