//! Evaluation of an encoder with a head.

use super::data::{label_set, read, shortest};
use super::evaluator::{Evaluator, Rows, best};
use super::heads::{labels_in_use, open};
use crate::TrainError;
use crate::data::{ClassWeights, Example, LabelSet, Target, Unlabelled, encode_labelled};
use crate::device;
use crate::jobs::batches::{EvalBatches, pad_multiple};
use crate::jobs::evaluation::{EvalOptions, EvalSummary};
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use crate::task::TaskName;
use lora_core::files::{Overwrite, write_file};
use serde_json::{Value, json};

/// Evaluates the model on a data file.
pub(crate) fn eval(
    task: TaskName,
    options: &EvalOptions,
    sources: &Sources,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    if options.generate {
        let message = format!("requires causal-lm, but the task is {task}");
        return Err(TrainError::config("generate", message));
    }
    let labels = labels_in_use(sources, task)?;
    let set = label_set(&labels)?;
    let device = device::open(options.device)?;
    let narrow = (options.quantize, options.base_dtype);
    let loaded = open(sources, task, labels, narrow, &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    let (path, reading, adapters) = (&options.data, &options.reading, &options.adapters);
    sources.check_base(loaded.adapter.as_ref(), adapters.strict_base, screen)?;
    let mut base = loaded.base;
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
    let (labels, column) = (set.as_ref(), adapters.column());
    let data = read(path, task, reading, column, labels, Unlabelled::Refuse)?;
    let length = base.max_length(options.max_length, shortest(&data.records))?;
    let weights = ClassWeights::default();
    let (examples, report) = encode_labelled(&data.records, &base.tokenizer, length, &weights)?;
    let shown = path.display();
    screen.line(&format!("data      {shown}: {}; {report}", data.report));
    let size = ("batch_size", options.batch_size);
    let batches = EvalBatches::new(examples, size, &base, length)?;
    adapters.check_named(path, &data.records)?;
    let evaluator = Evaluator::new(task, set.clone(), batches);
    let outputs = evaluator.run(
        loaded.model,
        sources,
        adapters,
        None,
        screen,
        &mut |_, _| Ok(()),
    )?;
    if let Some(path) = &options.predictions {
        let pairs = evaluator.examples().iter().zip(&outputs);
        let mut lines = pairs.map(|(example, rows)| line(example, rows, set.as_ref()));
        write_file(path, Overwrite::Replace, |file| {
            lines.try_for_each(|line| writeln!(file, "{line}"))
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
