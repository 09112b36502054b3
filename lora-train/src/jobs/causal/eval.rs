//! Evaluation of a language model.

use super::LEAST;
use super::answers::{Answers, METRIC, unmeasured};
use super::choice::{SamplingOptions, Unsupported, generation_config};
use super::data::{Examples, read_examples};
use super::loss::evaluate;
use super::template::render_prompts;
use crate::TrainError;
use crate::data::{Example, Record, ReferenceGroup, group_references};
use crate::device;
use crate::jobs::batches::{EvalBatches, pad_multiple};
use crate::jobs::evaluation::{EvalOptions, EvalSummary, agree_on};
use crate::jobs::session::{Base, Session};
use crate::jobs::sources::Sources;
use crate::progress::Screen;
use crate::task::{CausalLmTask, TextScores, encode_prompts, generate_texts};
use crate::trainer::ranks::Ranks;
use lora_core::files::{Overwrite, write_file};
use lora_core::ops::with_mixed_precision;
use lora_models::generate::GenerationConfig;
use lora_models::{CausalLm, LoadOptions};
use serde_json::json;
use std::collections::HashMap;

/// Evaluates a language model.
pub(crate) fn eval<M: CausalLm>(
    options: &EvalOptions,
    sources: &Sources,
    config: &M::Config,
    ranks: &dyn Ranks,
    screen: &Screen,
) -> Result<EvalSummary, TrainError> {
    let device = device::open_numbered(options.device, ranks.local().rank)?;
    let seed = options.seed.unwrap_or(42);
    device.seed(seed);
    let quantize = sources.quantize(options.quantize, &[])?;
    let mixed = options.precision.unwrap_or_default().half_on(&device)?;
    let floats = sources.floats(options.base_dtype, mixed, &[])?;
    let load = LoadOptions::default()
        .with_quantize(quantize)
        .with_floats(floats);
    // The data is read before the weights.
    let adapter = sources.one();
    let (outline, mut base) =
        Session::<M>::outline(&sources.model, config, adapter, &load, &device)?;
    base.pad_to_multiple_of = pad_multiple(options.pad_to_multiple_of, &device)?;
    let length = base.max_length(options.max_length, LEAST)?;
    let column = options.adapters.column();
    let data = read_examples(&options.data, &options.reading, column, &base, length)?;
    // A chat template writes the special tokens itself.
    if let Some(line) = base.tokens_around().filter(|_| !data.format.is_chat()) {
        screen.line(&line);
    }
    screen.line(&format!("data      {}", data.report));
    if sources.is_named() {
        check_named(options)?;
    }
    options.adapters.check_named(&options.data, &data.records)?;
    if let Some(line) = unmeasured(data.format, sources.is_named()) {
        screen.line(line);
    }
    // Nothing that the options or the data decide fails after hours of generation.
    let generation = if options.generate {
        Some(Generation::new(&outline, &base, &data, options, screen)?)
    } else {
        None
    };
    let session = Session::<M>::open(&sources.model, config, adapter, &load, &device)?;
    screen.line(&format!("model     {}", session.summary));
    let strict = options.adapters.strict_base;
    sources.check_base(session.adapter.as_ref(), strict, screen)?;
    base.info = session.base.info;
    let examples = &data.examples;
    agree_on(ranks, &session.base.weight_files, examples, &[])?;
    let adapters = &options.adapters;
    let (model, adapters) = adapters.assign(session.model, sources, examples, None, screen)?;
    let task = CausalLmTask::new(model, 0.0);

    let size = ("batch_size", options.batch_size);
    let asked = (data.format, data.records.as_slice());
    let answers = Answers::new(asked, &options.reading, &base, size, length)?;
    let batches = EvalBatches::new(data.examples, size, &base, length)?;
    let bar = screen.bar("loss", batches.examples.len());
    let mut bar = bar.for_device(&device);
    let adapters = adapters.as_ref();
    let (mut metrics, scores) = with_mixed_precision(mixed, || {
        evaluate(&batches, &task, ranks, adapters, &mut |done| bar.set(done))
    })?;
    bar.finish();
    if let Some(answers) = answers.filter(|_| !sources.is_named()) {
        let mut bar = screen.bar("answers", answers.len()).for_device(&device);
        let accuracy = with_mixed_precision(mixed, || {
            answers.accuracy(&task, ranks, &mut |done| bar.set(done))
        })?;
        metrics.insert(METRIC.into(), accuracy);
        bar.finish();
    }

    let mut texts = Vec::new();
    if let Some(Generation { groups, config, .. }) = &generation {
        let mut bar = screen.bar("texts", groups.len());
        let (tokenizer, prompts) = (&base.tokenizer, (groups.as_slice(), options.batch_size));
        let progress = |done| bar.set(done);
        texts = with_mixed_precision(mixed, || {
            generate_texts(
                &task.model,
                tokenizer,
                prompts,
                config.clone(),
                ranks,
                progress,
            )
        })?;
        bar.finish();
    }
    let mut summary = EvalSummary {
        metrics,
        scores,
        texts,
        ..EvalSummary::default()
    };
    if let Some(path) = options.predictions.as_ref().filter(|_| ranks.is_first()) {
        let lines = lines(&summary, &batches.examples, &data.records);
        write_file(path, Overwrite::Replace, |file| {
            lines.iter().try_for_each(|line| writeln!(file, "{line}"))
        })?;
    }
    // After the texts are in their file.
    if let Some(generation) = generation {
        let scores = generation.scores.score(&summary.texts)?;
        summary.metrics.extend(scores);
    }
    Ok(summary)
}

/// Texts to generate: prompts with their references, options of the generator, and the scores.
struct Generation {
    groups: Vec<ReferenceGroup>,
    config: GenerationConfig,
    scores: TextScores,
}

impl Generation {
    /// Checks prompts, references and options on a model without values.
    fn new<M: CausalLm>(
        outline: &M,
        base: &Base,
        data: &Examples,
        options: &EvalOptions,
        screen: &Screen,
    ) -> Result<Self, TrainError> {
        let scores = TextScores::of_data(&options.data, data.format)?;
        let mut groups = group_references(&data.records)?;
        render_prompts(&mut groups, base, &options.reading)?;
        scores.check(&groups)?;
        let seed = options.seed.unwrap_or(42);
        let sampling = SamplingOptions::of_evaluation(options.beams, &options.decoding, seed);
        let (new, warn) = (options.max_new_tokens, Unsupported::Warn);
        let config = generation_config(base, &sampling, new, warn, screen)?;
        let rows = options
            .batch_size
            .min(groups.len())
            .saturating_mul(config.rows());
        base.limit.check_logits("batch_size", rows)?;
        encode_prompts(outline, &base.tokenizer, &groups, &config)?;
        Ok(Self {
            groups,
            config,
            scores,
        })
    }
}

/// Refuses options that do not go with named adapters.
fn check_named(options: &EvalOptions) -> Result<(), TrainError> {
    let refuse = |option: &str, why: &str| {
        let message =
            format!("cannot be used with named adapters: {why}; give one adapter without a name");
        Err(TrainError::config(option, message))
    };
    if options.reading.concatenate {
        return refuse("concatenate", "an example has texts of several records");
    }
    if options.generate {
        return refuse(
            "generate",
            "the references of a prompt may come from records of several adapters",
        );
    }
    Ok(())
}

/// Creates the lines of the predictions file.
fn lines(
    summary: &EvalSummary,
    examples: &[Example],
    records: &[Record],
) -> Vec<serde_json::Value> {
    // Records of one prompt may have several ids, each with its text.
    let texts: HashMap<_, &str> = summary
        .texts
        .iter()
        .map(|text| ((&*text.prompt, text.id.as_deref()), &*text.text))
        .collect();
    // Records without a token to predict have no example: the line number relates the two.
    let prompts: HashMap<usize, _> = records
        .iter()
        .filter_map(|record| {
            let prompt = record.content.prompt()?;
            Some((record.origin.line(), (prompt, record.id.as_deref())))
        })
        .collect();
    let scored = summary.scores.iter().zip(examples);
    scored
        .map(|(score, example)| {
            let mut object = json!({"loss": score.loss, "tokens": score.tokens});
            let prompt = prompts.get(&example.origin().line());
            if let Some(text) = prompt.and_then(|prompt| texts.get(prompt)) {
                object["prediction"] = json!(text);
            }
            object
        })
        .collect()
}
