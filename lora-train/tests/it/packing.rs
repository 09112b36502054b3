//! Packed batches learn what padded ones do, and batches of tokens hold every example.

use crate::common::steps::{assert_same, step};
use crate::common::{self, adapter, fail, fixtures, losses, metrics, model, succeed, train};
use burn::tensor::Device;
use lora_core::{LoraConfig, LoraInit, TargetModules};
use lora_models::LoraModel;
use lora_models::gpt2::{Gpt2Config, Gpt2LmHead};
use lora_train::data::{Batch, Example, Origin, SampleBatch, collate, pack};
use lora_train::options::TrainOptions;
use lora_train::task::CausalLmTask;
use lora_train::trainer::MicroBatch;
use std::path::{Path, PathBuf};
use std::process::Command;

const VOCAB: usize = 61;

/// Texts of different lengths, one of them a single token, with a prompt each.
fn texts() -> Vec<Example> {
    [11, 1, 24, 9, 2]
        .into_iter()
        .enumerate()
        .map(|(index, length)| {
            let tokens = (0..length).map(|i| ((index * 31 + i * 17 + 5) % VOCAB) as u32);
            let origin = Origin::new(Path::new("a"), index + 1);
            Example::new(index, tokens.collect(), 1 + index % 3, origin)
        })
        .collect()
}

fn micro(batch: Batch) -> MicroBatch<Batch> {
    MicroBatch {
        loss_scale: 1.0 / batch.weight(),
        batch,
        seed: 77,
    }
}

/// An adapted model, without dropout: that draws by the place in the batch.
fn task() -> CausalLmTask<Gpt2LmHead> {
    let config = Gpt2Config {
        vocab_size: VOCAB,
        n_positions: 24,
        n_embd: 24,
        n_layer: 3,
        n_head: 4,
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..Gpt2Config::default()
    };
    let lora = LoraConfig::new(3)
        .with_alpha(5.0)
        .with_init(LoraInit::Random)
        .with_targets(TargetModules::names(["wte", "c_attn", "c_fc"]));
    let device = Device::flex().autodiff();
    let model = Gpt2LmHead::init(&config, 3, &device).unwrap();
    CausalLmTask::new(model.attach(&lora).unwrap().into_module(), 0.1)
}

#[test]
fn a_packed_step_has_the_loss_and_the_gradients_of_a_padded_one() {
    let texts = texts();
    let texts: Vec<&Example> = texts.iter().collect();
    let padded = step(&task(), &micro(collate(&texts, 7)));
    let packed = micro(pack(&texts));
    assert_same(&padded, &step(&task(), &packed), "packed");
    let task = task().with_checkpointed_activations(true);
    assert_same(&padded, &step(&task, &packed), "packed, made again");
}

#[test]
fn packed_tokens_are_scored_as_padded_ones() {
    let texts = texts();
    let texts: Vec<&Example> = texts.iter().collect();
    let padded = task().score(&collate(&texts, 7)).unwrap();
    let packed = task().score(&pack(&texts)).unwrap();
    assert_eq!(packed.example, padded.example);
    assert_eq!(packed.correct, padded.correct);
    assert_eq!(packed.nll.len(), 10 + 21 + 8);
    for (found, expected) in packed.nll.iter().zip(&padded.nll) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}

fn data() -> PathBuf {
    fixtures().join("train20/train.jsonl")
}

/// In the order of the file, from an adapter that has learned something.
fn run(output: &Path, more: &[&str]) -> Command {
    run_on(&data(), output, more)
}

fn run_on(data: &Path, output: &Path, more: &[&str]) -> Command {
    let mut command = train(data, output);
    command
        .arg("--adapter")
        .arg(fixtures().join("train20/init"));
    command.args(["--no-shuffle", "--lr", "1e-2", "--epochs", "1"]);
    command.args(more);
    command
}

#[test]
fn a_packed_run_is_the_padded_one_and_its_recipe_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let size = ["--batch-size", "3", "--grad-accumulation", "2"];
    succeed(&mut run(&place("padded"), &size));
    succeed(run(&place("packed"), &size).arg("--packing"));
    let recipe = place("packed").join("recipe.toml");
    let options = TrainOptions::from_recipe(&recipe).unwrap();
    assert!(options.packing);
    let mut again = common::lora(["train"]);
    again.arg(&recipe).arg("--output").arg(place("again"));
    succeed(&mut again);
    assert_eq!(losses(&place("again")), losses(&place("packed")));

    let (padded, packed) = (metrics(&place("padded")), metrics(&place("packed")));
    assert_eq!(padded.len(), 5); // 28 examples, 6 a step
    assert_eq!(packed.len(), padded.len());
    for (packed, padded) in packed.iter().zip(&padded) {
        assert_eq!(packed["tokens"], padded["tokens"]);
        for key in ["loss", "grad_norm"] {
            let (found, expected) = (packed[key].as_f64(), padded[key].as_f64());
            let (found, expected) = (found.unwrap(), expected.unwrap());
            assert!((found - expected).abs() < 1e-4, "{key} {found} {expected}");
        }
    }
    let weights = |name: &str| adapter(&place(name).join("adapter"));
    for ((name, _, found), (_, _, expected)) in weights("packed").iter().zip(&weights("padded")) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-4, "{name}: {f} is not {e}");
        }
    }
}

#[test]
fn batches_of_tokens_learn_every_label_once() {
    let dir = tempfile::tempdir().unwrap();
    let texts = dir.path().join("texts.jsonl");
    // Short and long texts in turn.
    let line = |i: usize| format!("{{\"text\": \"{}\"}}\n", "ab ".repeat(1 + i % 2 * 9));
    std::fs::write(&texts, (0..12).map(line).collect::<String>()).unwrap();
    let label_tokens = |name: &str, more: &[&str]| -> Vec<u64> {
        let output = dir.path().join(name);
        succeed(&mut run_on(&texts, &output, more));
        let steps = metrics(&output);
        steps
            .iter()
            .map(|step| step["tokens"].as_u64().unwrap())
            .collect()
    };
    let examples = label_tokens("examples", &["--batch-size", "4"]);
    let padded = label_tokens("tokens", &["--batch-tokens", "90"]);
    let packed = label_tokens("packed", &["--batch-tokens", "90", "--packing"]);
    assert_eq!(examples.len(), 3);
    let total: u64 = examples.iter().sum();
    for steps in [&padded, &packed] {
        assert_eq!(steps.iter().sum::<u64>(), total);
        assert!(steps.iter().all(|&tokens| tokens < 90));
    }
    // Where nothing is padded, more goes into a batch.
    assert!(packed.len() < padded.len(), "{packed:?} {padded:?}");
}

#[test]
fn what_cannot_be_packed_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let refused = |more: &[&str], words: &[&str]| {
        fail(&mut run(&output, more), 2, words);
        assert!(!output.exists(), "{more:?}");
    };
    for packing in [&[][..], &["--packing"]] {
        let budget = [&["--batch-tokens", "10"], packing].concat();
        refused(&budget, &["option `batch_tokens`", "longest example has"]);
    }
    refused(
        &["--batch-tokens", "64", "--batch-size", "2"],
        &["--batch-tokens", "--batch-size"],
    );
    let mut with_prefix = train(&data(), &output);
    with_prefix.args(["--packing", "--prefix-only", "--prefix", "3"]);
    let words = ["option `packing`", "the prefix before it"];
    fail(&mut with_prefix, 2, &words);
    assert!(!output.exists());

    // A prefix that the run would go on with shows only when its directory is read.
    let prefix = dir.path().join("prefix");
    let mut first = train(&data(), &prefix);
    first.args(["--prefix-only", "--prefix", "3", "--max-steps", "1"]);
    succeed(&mut first);
    let mut second = common::lora(["train", "--packing"]);
    second.arg("--model").arg(model()).arg("--data").arg(data());
    second.arg("--adapter").arg(prefix.join("adapter"));
    second.arg("--output").arg(&output);
    fail(&mut second, 2, &words);
    assert!(!output.exists());
}
