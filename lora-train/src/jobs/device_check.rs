//! Comparison of a run's first step with the CPU, on a slice of the first batch.
//!
//! The device takes a step on the first batch in its own shape, so that the kernels are those of the training, with the labels
//! of one example alone. The CPU takes the step on that example alone, without padding; of a text it has the first tokens. Both
//! have the same loss and the same gradients, up to rounding.

use super::job::Job;
use crate::TrainError;
use crate::data::{Batch, ClassTargets, Example, Sample, Target, Targets};
use crate::device;
use crate::progress::Screen;
use crate::trainer::{BatchLoader, MicroBatch, StepDifference, compare_steps};
use burn::module::Module;
use burn::tensor::Device;
use lora_core::HalfFloat;
use lora_core::ops::{DeviceFacts, device_facts, mixed_tolerance};

/// Length of a text in the comparison, in tokens, unless its first label comes later.
const TOKENS: usize = 64;
/// Tolerance of a step, in tolerances of one operation: the roundings of two dozen operations add up, forward and backward.
const STEP: f64 = 20.0;
/// Largest duration of a comparison that nobody asked for, in seconds.
const AFFORDABLE: f64 = 2.0;
/// Floating point operations a second that a CPU has at least.
const FLOPS: f64 = 4e10;
/// Bytes a second that are copied from the device at least.
const COPIED: f64 = 2e9;

/// Returns the tolerance of a training step on a device, with this type of products in mixed precision.
pub(crate) fn step_tolerance(device: &Device, mixed: Option<HalfFloat>) -> f64 {
    STEP * mixed_tolerance(device, mixed)
}

/// Compares the first step with the CPU's, and warns about known wrong results of the backend.
///
/// In mixed precision, the CPU rounds the same operands. `wanted` is the option: without it, GPUs are compared where that takes less than two seconds.
///
/// # Errors
/// [`TrainError::DeviceDiffers`] if the steps differ by more than rounding; [`TrainError::Config`] if the comparison is wanted
/// and no CPU backend is compiled in.
pub(crate) fn check_device<J: Job>(
    task: &J::Task,
    loader: &BatchLoader<Example>,
    device: &Device,
    mixed: Option<HalfFloat>,
    wanted: Option<bool>,
    screen: &Screen,
) -> Result<(), TrainError> {
    let facts = device_facts(device);
    for problem in device::known_problems(&facts, device::has_fusion()) {
        screen.line(&format!("warning: {problem}"));
    }
    if wanted == Some(false) || (wanted.is_none() && facts.software) {
        return Ok(());
    }
    let rounds = |host: &Device| mixed.is_none_or(|half| host.supports_dtype(half.dtype()));
    let Some(host) = device::host().filter(rounds) else {
        return match wanted {
            None => Ok(()),
            _ => Err(TrainError::config(
                "verify_device",
                "needs the CPU to compare with; build with the feature `flex`",
            )),
        };
    };
    let Some(slice) = Slice::new(loader) else {
        return Ok(());
    };
    let seconds = slice.seconds(J::model(task).num_params());
    if wanted.is_none() && seconds > AFFORDABLE {
        screen.line(&format!(
            "device    not compared with the CPU, which would take about {seconds:.0} s; `--verify-device` does"
        ));
        return Ok(());
    }
    let copy = task.clone().fork(&host.autodiff());
    let difference = compare_steps::<Example, J::Task>([task, &copy], slice.batches())?;
    judge(&difference, step_tolerance(device, mixed), &facts)?;
    let [loss, on_host] = difference.loss;
    screen.line(&format!(
        "device    the first step agrees with the CPU: loss {loss:.5} ({on_host:.5}), gradients within {:.1e}",
        difference.of_gradients()
    ));
    Ok(())
}

/// Refuses a difference above the tolerance.
fn judge(
    difference: &StepDifference,
    tolerance: f64,
    facts: &DeviceFacts,
) -> Result<(), TrainError> {
    if difference.largest() <= tolerance {
        return Ok(());
    }
    let ([loss, host_loss], [norm, host_norm]) = (difference.loss, difference.norm);
    Err(TrainError::DeviceDiffers {
        device: facts.name.clone(),
        measured: format!(
            "loss {loss:.6} (CPU {host_loss:.6}), norm of the gradients {norm:.6} (CPU {host_norm:.6}), difference of the \
             gradients {:.1e} of their norm; {tolerance:.0e} is allowed",
            difference.of_gradients()
        ),
    })
}

/// Slice of the first batch: the batch with the labels of one example, and that example alone.
struct Slice {
    device: Batch,
    host: Batch,
}

impl Slice {
    /// Takes the slice of the example that costs least; `None` if no example has a label.
    fn new(loader: &BatchLoader<Example>) -> Option<Self> {
        let first = loader.plan().epoch(0).into_iter().next()?;
        let examples = first.iter().map(|&index| loader.examples().get(index));
        let cut: Vec<Example> = examples.map(|example| shortened(&example)).collect();
        let candidates = cut.iter().enumerate().filter(|(_, e)| has_label(e));
        let (place, example) = candidates.min_by_key(|(_, example)| example.length())?;
        // Padding is masked: any token will do.
        let host = Example::collate(&[example], 0.into());
        let mut device = loader.collate(&first);
        match &mut device.targets {
            Targets::Tokens(targets) | Targets::Classes(targets) => {
                *targets = only(targets, place, host.targets.classes().rows.len());
            }
            // Scores cannot be left out.
            _ => device = host.clone(),
        }
        Some(Self { device, host })
    }

    /// Estimates the duration of the comparison in seconds.
    fn seconds(&self, parameters: usize) -> f64 {
        let parameters = parameters as f64;
        // Two operations for each weight and token, in the forward pass and twice in the backward pass.
        6.0 * parameters * self.host.tokens as f64 / FLOPS + 4.0 * parameters / COPIED
    }

    /// Returns the two batches, with one scale of the loss.
    fn batches(self) -> [MicroBatch<Batch>; 2] {
        let labels = match &self.host.targets {
            Targets::Scores(_) | Targets::Sets(_) => self.host.batch,
            targets => targets.classes().rows.len(),
        };
        let loss_scale = 1.0 / labels.max(1) as f64;
        [self.device, self.host].map(|batch| MicroBatch {
            batch,
            loss_scale,
            seed: 0,
        })
    }
}

fn has_label(example: &Example) -> bool {
    match example.target() {
        Target::Tokens { .. } | Target::Parts(_) => example.label_tokens() > 0,
        Target::Tags(_) => example.tags().next().is_some(),
        Target::Class(_) | Target::Set(_) | Target::Score(_) | Target::Scores(_) => true,
        Target::Unknown => false,
    }
}

/// Cuts a text: later tokens have no effect on the labels of earlier ones. Other examples stay as they are.
fn shortened(example: &Example) -> Example {
    match example.target() {
        Target::Tokens { .. } | Target::Parts(_) => {
            example.shortened(TOKENS.max(example.loss_from() + 1))
        }
        _ => example.clone(),
    }
}

/// Returns the first `count` labels of an example.
fn only(targets: &ClassTargets, example: usize, count: usize) -> ClassTargets {
    let rows = 0..targets.rows.len();
    let mut kept = ClassTargets::default();
    for row in rows
        .filter(|&row| targets.examples[row] == example)
        .take(count)
    {
        kept.rows.push(targets.rows[row]);
        kept.classes.push(targets.classes[row]);
        kept.examples.push(example);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BatchOrder, BatchPlan, BatchSize, Origin, pack};
    use std::path::Path;

    fn origin() -> Origin {
        Origin::new(Path::new("a.jsonl"), 1)
    }

    fn loader(examples: Vec<Example>) -> BatchLoader<Example> {
        let lengths = examples.iter().map(Sample::length).collect();
        let size = BatchSize::Examples(3);
        let plan = BatchPlan::new(lengths, size, BatchOrder::FileOrder, 0).unwrap();
        BatchLoader::new(examples, plan, 0)
    }

    fn texts() -> Vec<Example> {
        let text =
            |index, length: u32, from| Example::new(index, (1..=length).collect(), from, origin());
        vec![text(0, 100, 70), text(1, 90, 2), text(2, 3, 9)]
    }

    #[test]
    fn a_slice_has_the_first_tokens_of_the_cheapest_text_with_labels() {
        let slice = Slice::new(&loader(texts())).unwrap();
        // The third text has no label, and the first would need 71 tokens.
        assert_eq!((slice.host.batch, slice.host.seq), (1, TOKENS));
        assert_eq!((slice.device.batch, slice.device.seq), (3, 100));
        let (host, device) = (slice.host.targets.classes(), slice.device.targets.classes());
        assert_eq!(host.rows.len(), TOKENS - 2);
        assert_eq!(host.classes, device.classes);
        assert!(
            device
                .rows
                .iter()
                .zip(&host.rows)
                .all(|(d, h)| *d == h + 100)
        );
        assert!(slice.seconds(124_000_000) < AFFORDABLE);
        assert!(slice.seconds(1_500_000_000) > AFFORDABLE);
        let [device, host] = slice.batches();
        assert_eq!(
            (device.loss_scale, host.loss_scale),
            (1.0 / 62.0, 1.0 / 62.0)
        );
    }

    #[test]
    fn a_packed_batch_keeps_its_row() {
        let loader = loader(texts()).with_collate(|examples, _| pack(examples));
        let slice = Slice::new(&loader).unwrap();
        assert_eq!(slice.device.segments.unwrap().lengths(), [100, 90, 3]);
        let rows = &slice.device.targets.classes().rows;
        assert_eq!(rows[0], 100 + 1);
    }

    #[test]
    fn a_score_is_compared_on_its_own() {
        let score = |index, tokens: &[u32]| {
            Example::with_target(index, tokens.to_vec(), Target::Score(0.5), origin())
        };
        let slice = Slice::new(&loader(vec![score(0, &[1, 2, 3]), score(1, &[4, 5])])).unwrap();
        assert_eq!(slice.device, slice.host);
        assert_eq!(slice.host.input_ids, [4, 5]);
        let unknown = Example::with_target(0, vec![1], Target::Unknown, origin());
        assert!(Slice::new(&loader(vec![unknown])).is_none());
    }

    #[test]
    fn a_wrong_step_is_an_error_with_the_numbers_and_the_ways_out() {
        let facts = DeviceFacts {
            name: "some GPU".into(),
            ..DeviceFacts::default()
        };
        let right = StepDifference {
            loss: [3.00001, 3.0],
            norm: [1.0, 1.0],
            gradients: 1e-5,
        };
        judge(&right, 4e-4, &facts).unwrap();
        let wrong = StepDifference {
            loss: [-0.195, 10.97],
            ..right
        };
        let error = judge(&wrong, 4e-4, &facts).unwrap_err().to_string();
        for word in [
            "some GPU",
            "-0.195",
            "10.97",
            "lora doctor",
            "--no-default-features",
        ] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
