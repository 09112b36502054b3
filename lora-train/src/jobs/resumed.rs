//! Comparison of a resumed run with the run that wrote its checkpoint, and the options that it compares.

use super::plan::TrainPlan;
use crate::TrainError;
use crate::data::{BatchSize, DataDigest, Sample};
use crate::options::{TokenSource, TrainOptions};
use crate::progress::Screen;
use crate::trainer::{BatchLoader, Checkpoint, Position, differences};

/// Options and data of a run, as its checkpoints record them.
pub(super) struct RunRecord {
    /// Options that affect the results, and the size of the data.
    pub fingerprint: String,
    /// Digest of the training data.
    pub data: DataDigest,
    /// Digest of the evaluation data, if the best evaluation decides.
    pub eval_data: Option<DataDigest>,
}

impl RunRecord {
    /// Refuses a checkpoint of a run with other options, and one with other data unless the plan allows it. Afterwards the
    /// checkpoint has this record, and a position in this data.
    ///
    /// # Errors
    /// [`TrainError::Checkpoint`], with the differences.
    pub fn adopt<S: Sample>(
        &self,
        checkpoint: &mut Checkpoint,
        plan: &TrainPlan,
        loader: &BatchLoader<S>,
        screen: &Screen,
    ) -> Result<(), TrainError> {
        let refuse = |message: String| {
            Err(TrainError::Checkpoint {
                path: checkpoint.path.clone(),
                message,
            })
        };
        let state = &checkpoint.state;
        let (options, size) = divided(&state.fingerprint);
        let (own_options, own_size) = divided(&self.fingerprint);
        if options != own_options {
            let differences = differences(&options, &own_options);
            return refuse(format!(
                "was written by a run with other options ({differences}); resume with the same ones, or start anew from \
                 its adapter"
            ));
        }
        let mut changes = match &state.data {
            Some(data) => self.data.changes_since(data),
            None if size != own_size => {
                vec![format!("the texts ({})", differences(&size, &own_size))]
            }
            None => {
                screen.line(
                    "data      not compared with that of the checkpoint, which an earlier release wrote without a digest",
                );
                Vec::new()
            }
        };
        let mut other_evaluation = false;
        if let (Some(now), Some(before)) = (&self.eval_data, &state.eval_data) {
            let evaluation = now.changes_since(before);
            other_evaluation = !evaluation.is_empty();
            let evaluation = evaluation.into_iter();
            changes.extend(evaluation.map(|change| format!("in the evaluation data, {change}")));
        }
        let changes = changes.join("; ");
        if !changes.is_empty() && !plan.options.allow_changed_data {
            return refuse(format!(
                "was written by a run with other data. Changed: {changes}. Resume with the data that it had, accept the \
                 change with --allow-changed-data, or start anew from its adapter"
            ));
        }
        let state = &mut checkpoint.state;
        if !changes.is_empty() {
            screen.line(&format!(
                "data      changed since the checkpoint: {changes}; the run goes on with what is there now"
            ));
            // An epoch may have fewer batches now.
            let Position { epoch, batch } = state.position;
            if batch >= loader.plan().batches_in(epoch as u64) {
                state.position = Position {
                    epoch: epoch + 1,
                    batch: 0,
                };
            }
        }
        if other_evaluation {
            // Values on other data decide nothing.
            state.best = None;
            state.evaluations_since_best = 0;
        }
        state.fingerprint = self.fingerprint.clone();
        state.data = Some(self.data.clone());
        state.eval_data = self.eval_data.clone();
        Ok(())
    }
}

impl TrainPlan {
    /// Returns the options that affect the numbers of a run, as text: a run resumes only with equal ones.
    /// `data` is the training data's; `pad_to_multiple_of` is the device's, if the options do not have it.
    ///
    /// # Errors
    /// If the options cannot be written as TOML, or the file of new tokens cannot be read.
    pub fn fingerprint(
        &self,
        data: &DataDigest,
        pad_to_multiple_of: usize,
    ) -> Result<String, TrainError> {
        let DataDigest {
            examples, tokens, ..
        } = data;
        let numbers = TrainOptions {
            overwrite: false,
            tensorboard: false,
            strict_base: false,
            merge: false,
            device: None,
            verify_device: None,
            generate_prompts: None,
            eval_batch_size: None,
            save_steps: None,
            data_cache: None,
            keep_checkpoints: None,
            // Only a budget of tokens divides the examples otherwise.
            pad_to_multiple_of: match self.batch {
                BatchSize::PaddedTokens(_) => Some(pad_to_multiple_of).filter(|&n| n > 1),
                _ => self.options.pad_to_multiple_of,
            },
            ..self.options.without_files()
        };
        // The tokens count, not the place of their file.
        let new_tokens = self.options.new_tokens.as_ref();
        let new_tokens = new_tokens.map(TokenSource::summary).transpose()?;
        let new_tokens = new_tokens.map(|tokens| format!("new_tokens = {tokens}\n"));
        let new_tokens = new_tokens.unwrap_or_default();
        // Shares count, not the places of the files.
        let shares = self.data.shares();
        let shares = shares.map(|shares| format!("data_shares = {shares:?}\n"));
        let shares = shares.unwrap_or_default();
        Ok(format!(
            "{}{new_tokens}{shares}examples = {examples}\ntokens = {tokens}\n",
            numbers.to_toml()?
        ))
    }
}

/// Divides a fingerprint into options and the size of the data.
fn divided(fingerprint: &str) -> (String, String) {
    let is_size = |line: &&str| line.starts_with("examples = ") || line.starts_with("tokens = ");
    // Earlier releases recorded it, though no number depends on it.
    let lines = fingerprint.lines();
    let lines = lines.filter(|line| !line.starts_with("save_steps = "));
    let (size, options): (Vec<&str>, Vec<&str>) = lines.partition(is_size);
    (options.join("\n"), size.join("\n"))
}
