//! Evaluating an encoder with a head.

use super::data::{Reader, label_set};
use super::evaluator::{Evaluator, Rows, best};
use super::head_kind;
use super::heads::{labels_in_use, open};
use crate::TrainError;
use crate::data::{ClassWeights, LabelSet, LabelledExample, Target, Unlabelled};
use crate::device;
use crate::jobs::adapters::{Uses, Wanted};
use crate::jobs::evaluation::{EvalOptions, EvalSummary};
use crate::jobs::open::quantize_config;
use crate::progress::Screen;
use crate::task::{Classify, TaskName};
use lora_core::files::{Overwrite, write_file};
use lora_models::classifier::ClassifierOptions;
use serde_json::{Value, json};

/// Evaluates.
pub(crate) fn eval(
    task: TaskName,
    options: &EvalOptions,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    if options.generate {
        return Err(TrainError::config(
            "generate",
            format!("goes with causal-lm, and the task is {task}"),
        ));
    }
    let wanted = options.adapters.wanted()?;
    options.reading.check(task)?;
    let labels = labels_in_use(&options.model, &wanted, task)?;
    let set = label_set(&labels)?;
    let device = device::open(options.device)?;
    let how = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: quantize_config(options.quantize, &wanted.dirs(), &[])?,
        ..ClassifierOptions::default()
    };
    let loaded = open(&options.model, &wanted, &how, &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    options
        .adapters
        .check_base(wanted.one(), loaded.adapter.as_ref(), screen)?;
    let base = loaded.base;
    let reader = Reader::new(task, &options.reading);
    let read = reader.read(&options.data, set.as_ref(), Unlabelled::Refuse)?;
    let length = base.max_length(options.max_length, read.records.least())?;
    let weights = ClassWeights::default();
    let (examples, report) = read.records.encode(&base.tokenizer, length, &weights)?;
    screen.line(&format!(
        "data      {}: {}; {report}",
        options.data.display(),
        read.report
    ));
    let evaluator = Evaluator::new(
        task,
        set.clone(),
        examples,
        options.batch_size,
        base.pad_id(),
    )?;
    let (model, uses) = match &wanted {
        Wanted::Named(adapters) => {
            let format = options.reading.format.unwrap_or_default();
            let by_line = options.adapters.names_in(&options.data, format, true)?;
            let set = options.adapters.put(loaded.model, adapters, screen)?;
            let origins = evaluator.examples().iter().map(|example| &example.origin);
            let uses = Uses::new(set, &by_line, origins)?;
            (uses.model().clone(), Some(uses))
        }
        _ => (loaded.model, None),
    };
    let model = Classify::new(model, 0.0, weights);
    let mut bar = screen.bar("eval", evaluator.len());
    let outputs = evaluator.outputs(&model, uses.as_ref(), &mut |done| bar.set(done))?;
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

/// `{"logits": …, "label": …, "prediction": …}`; lists of them for tags.
pub(super) fn line(example: &LabelledExample, rows: &Rows, set: Option<&LabelSet>) -> Value {
    let name = |class: usize| match set.and_then(|set| set.name(class)) {
        Some(name) => json!(name),
        None => json!(class),
    };
    let prediction = |row: &[f32]| match set {
        Some(_) => name(best(row)),
        None => json!(row[0]),
    };
    match &example.target {
        Target::Tags(tags) => {
            let labels: Vec<Value> = tags.iter().flatten().map(|&tag| name(tag)).collect();
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
