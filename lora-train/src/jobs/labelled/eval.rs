//! Evaluation of an encoder with a head.

use super::data::{encode, read_for, shortest};
use super::evaluator::{Evaluator, Rows, best};
use super::heads::{labels_in_use, load_options, open, outline};
use super::thresholds::Thresholds;
use crate::TrainError;
use crate::data::{ClassWeights, Example, Target, Unlabelled};
use crate::device;
use crate::jobs::batches::{EvalBatches, pad_multiple};
use crate::jobs::evaluation::{EvalOptions, EvalSummary, agree_on};
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use crate::task::TaskName;
use crate::trainer::ranks::Ranks;
use lora_core::files::{Overwrite, write_file};
use lora_core::ops::with_mixed_precision;
use lora_models::encoder::Labels;
use serde_json::{Value, json};

/// Evaluates the model on a data file.
pub(crate) fn eval(
    task: TaskName,
    options: &EvalOptions,
    sources: &Sources,
    ranks: &dyn Ranks,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    let head = labels_in_use(sources, task, options.labels.as_deref())?;
    let thresholds = Thresholds::new(options.threshold.as_deref(), &head)?;
    let device = device::open_numbered(options.device, ranks.local().rank)?;
    let narrow = (options.quantize, options.base_dtype);
    let (path, reading, adapters) = (&options.data, &options.reading, &options.adapters);
    let column = adapters.column();
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let load = load_options(sources, task, head.clone(), narrow, mixed)?;
    let data = match read_for(&head, path, task, reading, column, Unlabelled::Refuse) {
        Ok(data) => data,
        // A model that has no head has no labels either, and this is what to say.
        Err(error) => {
            open(sources, &load, &device)?;
            return Err(error);
        }
    };
    let mut base = outline(sources, &load, &device)?;
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
    let length = base.max_length(options.max_length, shortest(&data.records))?;
    let weights = ClassWeights::default();
    let (examples, report) = encode(
        &data.records,
        task,
        reading,
        &base.tokenizer,
        length,
        &weights,
    )?;
    let shown = path.display();
    screen.line(&format!("data      {shown}: {}; {report}", data.report));
    let size = ("batch_size", options.batch_size);
    let batches = EvalBatches::new(examples, size, &base, length)?;
    adapters.check_named(path, &data.records)?;
    let loaded = open(sources, &load, &device)?;
    screen.line(&format!("model     {}", loaded.summary));
    sources.check_base(loaded.adapter.as_ref(), adapters.strict_base, screen)?;
    let evaluator = Evaluator::new(task, (head.clone(), thresholds.clone()), batches);
    let each = &mut |_, _: &_| Ok(());
    let examples = evaluator.examples();
    agree_on(ranks, &loaded.base.weight_files, examples, head.names())?;
    let model = adapters.assign(loaded.model, sources, examples, None, screen)?;
    let outputs = with_mixed_precision(mixed, || evaluator.run(model, ranks, screen, each))?;
    if let Some(path) = options.predictions.as_ref().filter(|_| ranks.is_first()) {
        let pairs = evaluator.examples().iter().zip(&outputs);
        let mut lines = pairs.map(|(example, rows)| line(example, rows, &head, &thresholds));
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

/// Formats `{"logits": …, "label": …, "prediction": …}`, with lists for several labels.
fn line(example: &Example, rows: &Rows, head: &Labels, thresholds: &Thresholds) -> Value {
    let name = |class: usize| match head.name(class) {
        Some(name) => json!(name),
        None => json!(class),
    };
    let names = |classes: &[usize]| classes.iter().map(|&class| name(class)).collect::<Vec<_>>();
    let prediction = |row: &[f32]| match head {
        Labels::Classes(_) => name(best(row)),
        Labels::MultiLabel(_) => json!(names(&thresholds.predicted(row))),
        Labels::Score => json!(row[0]),
        Labels::Scores(_) => json!(row),
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
                Target::Set(classes) => json!(names(classes)),
                Target::Score(score) => json!(score),
                Target::Scores(scores) => json!(scores),
                _ => Value::Null,
            };
            json!({"logits": rows[0], "label": label, "prediction": prediction(&rows[0])})
        }
    }
}
