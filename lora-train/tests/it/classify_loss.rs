//! The loss of classifiers against PyTorch's formulas in float64, from the model's own outputs.

use crate::common::encoders::classify;
use burn::module::Module;
use burn::tensor::Device;
use burn_train::{InferenceStep, TrainStep};
use lora_models::classifier::{Classifier, ClassifierOptions, HeadKind};
use lora_models::encoder::Labels;
use lora_models::{LoraModel, Pretrained};
use lora_train::data::{
    Batch, ClassTargets, ClassWeights, Example, Origin, Target, Targets, collate,
};
use lora_train::task::Classify;
use lora_train::trainer::MicroBatch;

/// Tag of a token that begins no word.
const NONE: usize = usize::MAX;

/// Three inputs of unequal length, of tokens that every vocabulary has.
fn batch(targets: [Target; 3], weights: [f64; 3]) -> Batch {
    let lengths = [7usize, 4, 5];
    let examples: Vec<Example> = (0..3)
        .map(|row| {
            let tokens = (0..lengths[row]).map(|at| (6 + 37 * row + 11 * at) as u32);
            let origin = Origin::new(std::path::Path::new("train.jsonl"), row + 1);
            // Each token with a tag is a word of its own.
            let (target, words) = match &targets[row] {
                Target::Tags(tags) => {
                    let word = |(at, &tag): (usize, &usize)| (tag != NONE).then_some(at as u32);
                    let words = tags.iter().enumerate().map(word).collect();
                    (Target::Tags(tags.clone()), words)
                }
                target => (target.clone(), vec![None; lengths[row]]),
            };
            Example::with_target(row, tokens.collect(), target, origin)
                .with_type_ids((0..lengths[row]).map(|at| u32::from(at > 2)).collect())
                .with_words(words)
                .with_weight(weights[row])
        })
        .collect();
    let references: Vec<&Example> = examples.iter().collect();
    collate(&references, 0)
}

/// Models whose heads are far from even: a checkpoint that has one, or an adapter that brings it.
fn model(head: HeadKind, labels: Labels) -> Classifier {
    let (base, adapter) = match (head, &labels) {
        (HeadKind::Token, _) => ("models/xlmr", Some("xlmr_tags/init")),
        (_, Labels::Score) => ("models/v2", Some("v2_scores/init")),
        (_, _) => ("v2_full/init", None),
    };
    let options = ClassifierOptions {
        head,
        labels: Some(labels),
        ..ClassifierOptions::default()
    };
    let device = Device::flex().autodiff();
    let (model, _) = Classifier::load(classify(base), &options, &device).unwrap();
    match adapter {
        None => model,
        Some(adapter) => model.load_adapter(classify(adapter)).unwrap().into_module(),
    }
}

/// The loss of a task summed over the labels, where it trains and where it judges.
fn found(task: &Classify, batch: &Batch) -> [f64; 2] {
    let micro = || MicroBatch {
        batch: batch.clone(),
        loss_scale: 0.25,
        seed: 1,
    };
    let trained = TrainStep::step(task, micro()).item.loss;
    let judged = InferenceStep::step(&task.valid(), micro()).loss;
    [trained, judged].map(|loss| 4.0 * f64::from(loss.into_scalar::<f32>()))
}

/// `torch.nn.CrossEntropyLoss(weight, label_smoothing, reduction="sum")`, as its documentation has it.
fn cross_entropy(
    rows: &[Vec<f32>],
    targets: &ClassTargets,
    weights: &[f64],
    smoothing: f64,
) -> f64 {
    let mut sum = 0.0;
    for (&row, &class) in targets.rows.iter().zip(&targets.classes) {
        let row = &rows[row as usize];
        let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        let log_sum = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        let class = class as usize;
        sum += (1.0 - smoothing) * weights[class] * (log_sum - row[class]);
        let share = smoothing / row.len() as f64;
        let all = row.iter().zip(weights);
        sum += share * all.map(|(x, w)| w * (log_sum - x)).sum::<f64>();
    }
    sum
}

fn close(found: [f64; 2], expected: f64, what: &str) {
    for found in found {
        // Sums of a few float32 logarithms of the size of 1.
        assert!(
            (found - expected).abs() < 1e-5,
            "{what}: {found} {expected}"
        );
    }
}

#[test]
fn classes_weigh_and_smooth_as_in_pytorch() {
    let batch = batch(
        [Target::Class(2), Target::Class(0), Target::Class(2)],
        [1.0; 3],
    );
    let Targets::Classes(classes) = &batch.targets else {
        panic!("{:?}", batch.targets);
    };
    let model = model(HeadKind::Sequence, Labels::numbered(3));
    for smoothing in [0.0, 0.1, 0.5] {
        for weights in [None, Some(vec![0.5, 4.0, 1.25])] {
            let given = weights.clone().unwrap_or(vec![1.0; 3]);
            let weights = weights.map_or_else(ClassWeights::default, ClassWeights::given);
            let task = Classify::new(model.clone(), smoothing, weights);
            let rows = task.logits(&batch).unwrap();
            let expected = cross_entropy(&rows, classes, &given, smoothing);
            close(
                found(&task, &batch),
                expected,
                &format!("{smoothing} {given:?}"),
            );
        }
    }
}

#[test]
fn tokens_without_a_tag_and_padding_count_for_nothing() {
    let tags = |tags: &[i64]| {
        let tag = |&tag: &i64| usize::try_from(tag).unwrap_or(NONE);
        Target::Tags(tags.iter().map(tag).collect())
    };
    let batch = batch(
        [
            tags(&[-1, 0, 3, -1, 1, 2, -1]),
            tags(&[-1, -1, -1, -1]),
            tags(&[-1, 2, 2, 0, -1]),
        ],
        [1.0; 3],
    );
    let Targets::Classes(classes) = &batch.targets else {
        panic!("{:?}", batch.targets);
    };
    assert_eq!(batch.batch * batch.seq, 21);
    assert_eq!(classes.rows, [1, 2, 4, 5, 15, 16, 17]);
    assert_eq!(classes.classes, [0, 3, 1, 2, 2, 2, 0]);
    let given = vec![0.2, 1.0, 3.0, 0.7, 1.5];
    let model = model(HeadKind::Token, Labels::numbered(5));
    let task = Classify::new(model, 0.3, ClassWeights::given(given.clone()));
    let rows = task.logits(&batch).unwrap();
    assert_eq!(rows.len(), 21);
    let expected = cross_entropy(&rows, classes, &given, 0.3);
    close(found(&task, &batch), expected, "tags");
}

#[test]
fn a_batch_without_a_tag_has_no_loss_and_still_a_gradient_of_nothing() {
    let none = || Target::Tags(vec![NONE; 4]);
    let batch = batch([none(), none(), none()], [0.0; 3]);
    let nothing = ClassTargets::default();
    assert_eq!(batch.targets, Targets::Classes(nothing));
    let model = model(HeadKind::Token, Labels::numbered(5));
    let task = Classify::new(model, 0.1, ClassWeights::default());
    assert_eq!(found(&task, &batch), [0.0, 0.0]);
}

#[test]
fn scores_are_judged_by_their_squared_error() {
    let scores = [0.75, -2.5, 4.0];
    let batch = batch(scores.map(Target::Score), [1.0; 3]);
    let model = model(HeadKind::Sequence, Labels::Score);
    let task = Classify::new(model, 0.0, ClassWeights::default());
    let rows = task.logits(&batch).unwrap();
    let expected: f64 = rows
        .iter()
        .zip(scores)
        .map(|(row, score)| (f64::from(row[0]) - score).powi(2))
        .sum();
    // Squares of the size of 10.
    for found in found(&task, &batch) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// `torch.nn.BCEWithLogitsLoss()`, a mean over the classes, summed over the examples.
#[test]
fn sets_of_classes_are_judged_by_binary_cross_entropy() {
    let sets = [vec![0, 2], vec![], vec![1]];
    let batch = batch(sets.clone().map(Target::Set), [1.0; 3]);
    let names = Labels::numbered(3).names().to_vec();
    let model = model(HeadKind::Sequence, Labels::MultiLabel(names));
    let task = Classify::new(model, 0.0, ClassWeights::default());
    let mut expected = 0.0;
    for (row, set) in task.logits(&batch).unwrap().iter().zip(&sets) {
        for (class, &logit) in row.iter().enumerate() {
            let p = 1.0 / (1.0 + (-f64::from(logit)).exp());
            let likelihood = if set.contains(&class) { p } else { 1.0 - p };
            expected -= likelihood.ln() / 3.0;
        }
    }
    close(found(&task, &batch), expected, "sets");
}
