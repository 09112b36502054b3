//! Accuracy of a language model on MNLI: the answer is the one of the three words that the model finds most likely.
//!
//! The likelihood of an answer is that of all its tokens, the end-of-text token included where training appends it. Nothing is
//! generated, so that an untrained model has an accuracy, too.

use super::loss::evaluate;
use crate::TrainError;
use crate::data::{ANSWERS, Content, DataFormat, EncodingOptions, Record, encode_records};
use crate::jobs::batches::EvalBatches;
use crate::jobs::session::Base;
use crate::options::ReadingOptions;
use crate::task::CausalLmTask;
use crate::trainer::ranks::Ranks;
use lora_models::CausalLm;

/// Name of the metric.
pub(super) const METRIC: &str = "answer_accuracy";

/// Returns a note for MNLI with named adapters, with which the accuracy of answers is not measured.
pub(super) fn unmeasured(format: DataFormat, is_named: bool) -> Option<&'static str> {
    (format == DataFormat::Mnli && is_named).then_some(
        "note: no `answer_accuracy` with named adapters; give one adapter without a name to measure it",
    )
}

/// Records with each of the answers.
pub(crate) struct Answers {
    /// As many examples for each record as there are answers.
    batches: EvalBatches,
    /// Index of the right answer of each record.
    right: Vec<usize>,
}

impl Answers {
    /// Encodes every record of MNLI with each of the answers; `None` for another format.
    ///
    /// # Errors
    /// [`TrainError::DataLine`] for a record that is longer than `max_length` tokens.
    pub fn new(
        (format, records): (DataFormat, &[Record]),
        reading: &ReadingOptions,
        base: &Base,
        size: (&str, usize),
        max_length: usize,
    ) -> Result<Option<Self>, TrainError> {
        if format != DataFormat::Mnli || reading.concatenate {
            return Ok(None);
        }
        let mut asked = Vec::with_capacity(records.len() * ANSWERS.len());
        let mut right = Vec::with_capacity(records.len());
        for record in records {
            let Content::PromptCompletion { prompt, completion } = &record.content else {
                return Err(record.origin.error("expected a question and its answer"));
            };
            let answer = completion.trim();
            let position = ANSWERS.iter().position(|own| *own == answer);
            right.push(position.ok_or_else(|| {
                let message =
                    format!("expected one of {ANSWERS:?} as the answer, found `{answer}`");
                record.origin.error(message)
            })?);
            let space = &completion[..completion.len() - completion.trim_start().len()];
            for answer in ANSWERS {
                let completion = format!("{space}{answer}");
                let origin = record.origin.clone();
                asked.push(Record::prompt_completion(prompt, completion, origin));
            }
        }
        let options = EncodingOptions {
            append_eos: !reading.no_eos,
            loss_on_prompt: false,
            max_length: crate::data::UNCUT,
        };
        let (examples, _) = encode_records(&asked, &base.tokenizer, base.eos_id(), &options)?;
        if let Some(example) = examples.iter().find(|example| example.len() > max_length) {
            let message = format!(
                "has {} tokens with an answer, and {max_length} are the maximum: raise `max_length`, so that no answer is cut off",
                example.len()
            );
            return Err(example.origin().error(message));
        }
        let batches = EvalBatches::new(examples, size, base, max_length)?;
        Ok(Some(Self { batches, right }))
    }

    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.batches.examples.len()
    }

    /// Computes the share of records whose right answer is the most likely one; of equals, the first.
    pub fn accuracy<M: CausalLm>(
        &self,
        task: &CausalLmTask<M>,
        ranks: &dyn Ranks,
        progress: &mut dyn FnMut(usize),
    ) -> Result<f64, TrainError> {
        let (_, scores) = evaluate(&self.batches, task, ranks, None, progress)?;
        let losses: Vec<f64> = scores
            .iter()
            .map(|score| score.loss * score.tokens as f64)
            .collect();
        let found = losses.chunks_exact(ANSWERS.len()).map(|losses| {
            let mut best = 0;
            for (at, loss) in losses.iter().enumerate() {
                if *loss < losses[best] {
                    best = at;
                }
            }
            best
        });
        let correct = found
            .zip(&self.right)
            .filter(|(found, right)| found == *right);
        Ok(correct.count() as f64 / self.right.len().max(1) as f64)
    }
}
