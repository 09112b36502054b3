//! Evaluation of an encoder with a head.

use super::data::{Reader, label_set, shortest};
use super::evaluator::{Evaluator, Rows, best};
use super::head_kind;
use super::heads::{labels_in_use, open};
use crate::TrainError;
use crate::data::{ClassWeights, Example, LabelSet, Target, Unlabelled, encode_labelled};
use crate::device;
use crate::jobs::assignment::AdapterAssignment;
use crate::jobs::evaluation::{EvalOptions, EvalSummary};
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use lora_core::files::{Overwrite, write_file};
use lora_models::classifier::ClassifierOptions;
use serde_json::{Value, json};

/// Evaluates the model on a data file.
pub(crate) fn eval(
    task: TaskName,
    options: &EvalOptions,
    sources: &Sources,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    if options.generate {
        return Err(TrainError::config(
            "generate",
            format!("goes with causal-lm, and the task is {task}"),
        ));
    }
    let labels = labels_in_use(sources, task)?;
    let set = label_set(&labels)?;
    let device = device::open(options.device)?;
    let load = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: sources.quantize(options.quantize, &[])?,
        ..ClassifierOptions::default()
    };
    let loaded = open(sources, &load, &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    let adapters = &options.adapters;
    adapters.check_base(sources, loaded.adapter.as_ref(), screen)?;
    let base = loaded.base;
    let reader = Reader::new(task, &options.reading, options.adapters.column());
    let data = reader.read(&options.data, set.as_ref(), Unlabelled::Refuse)?;
    let length = base.max_length(options.max_length, shortest(&data.records))?;
    let weights = ClassWeights::default();
    let (examples, report) = encode_labelled(&data.records, &base.tokenizer, length, &weights)?;
    screen.line(&format!(
        "data      {}: {}; {report}",
        options.data.display(),
        data.report
    ));
    let evaluator = Evaluator::new(
        task,
        set.clone(),
        examples,
        options.batch_size,
        base.pad_id(),
    )?;
    let (model, adapters) = if sources.is_named() {
        options.adapters.check_named(&options.data, &data.records)?;
        let set = options.adapters.put(loaded.model, sources, screen)?;
        let assignment = AdapterAssignment::new(set, evaluator.examples(), None)?;
        (assignment.model().clone(), Some(assignment))
    } else {
        (loaded.model, None)
    };
    let model = Classify::new(model, 0.0, weights);
    let mut bar = screen.bar("eval", evaluator.len());
    let outputs = evaluator.outputs(&model, adapters.as_ref(), &mut |done| bar.set(done))?;
    bar.finish();
    if let Some(path) = &options.predictions {
        write_file(path, Overwrite::Replace, |file| {
            let mut pairs = evaluator.examples().iter().zip(&outputs);
            pairs.try_for_each(|(example, rows)| {
                writeln!(file, "{}", line(example, rows, set.as_ref()))
            })
        })?;
    }
    Ok(EvalSummary {
        metrics: evaluator.judge(&outputs)?,
        confusion: evaluator.confusion(&outputs)?,
        ..EvalSummary::default()
    })
}

/// Formats `{"logits": …, "label": …, "prediction": …}`, with lists for tags.
pub(super) fn line(example: &Example, rows: &Rows, set: Option<&LabelSet>) -> Value {
    let name = |class: usize| match set.and_then(|set| set.name(class)) {
        Some(name) => json!(name),
        None => json!(class),
    };
    let prediction = |row: &[f32]| match set {
        Some(_) => name(best(row)),
        None => json!(row[0]),
    };
    match example.target() {
        Target::Tags(_) => {
            let labels: Vec<Value> = example.tags().map(|(_, tag)| name(tag)).collect();
            let predictions: Vec<Value> = rows.iter().map(|row| prediction(row)).collect();
            json!({"logits": rows, "label": labels, "prediction": predictions})
        }
        target => {
            let label = match target {
                Target::Class(class) => name(*class),
                Target::Score(score) => json!(score),
                _ => Value::Null,
            };
            json!({"logits": rows[0], "label": label, "prediction": prediction(&rows[0])})
        }
    }
}
