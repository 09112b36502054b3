//! Evaluating an encoder with a head.

use super::data::{Reader, label_set};
use super::evaluator::{Evaluator, Rows, best};
use super::heads::check_use;
use super::{head_kind, model_labels};
use crate::TrainError;
use crate::data::{ClassWeights, LabelSet, LabelledExample, Target, Unlabelled};
use crate::device;
use crate::progress::Screen;
use crate::run::evaluation::{EvalOptions, EvalSummary};
use crate::run::open::{check_base, load_trained, quantize_config};
use crate::task::{Classify, TaskName};
use lora_core::files::{Overwrite, write_file};
use lora_models::classifier::{Classifier, ClassifierOptions};
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
    let labels = model_labels(&options.model, options.adapter.as_deref())?;
    options.reading.check(task)?;
    check_use(&options.model, options.adapter.as_deref(), task, &labels)?;
    let set = label_set(&labels)?;
    let device = device::open(options.device)?;
    let how = ClassifierOptions {
        head: head_kind(task),
        labels: Some(labels),
        quantize: quantize_config(options.quantize, options.adapter.as_deref(), &[])?,
        ..ClassifierOptions::default()
    };
    let adapter = options.adapter.as_deref();
    let loaded = load_trained::<Classifier>(&options.model, adapter, &how, &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    check_base(
        adapter,
        loaded.adapter.as_ref(),
        options.strict_base,
        screen,
    )?;
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
    let model = Classify::new(loaded.model, 0.0, weights);
    let mut bar = screen.bar("eval", evaluator.len());
    let outputs = evaluator.outputs(&model, &mut |done| bar.set(done))?;
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
