//! Check of the options against the task: an option without an effect is an error.

use crate::TrainError;
use crate::data::LabelKind;
use crate::options::{ReadingOptions, TrainOptions};
use crate::task::TaskName;

/// An option by name, whether it is given, and whether the task has a use for it.
type Given = (&'static str, bool, bool);

impl TrainOptions {
    /// Refuses what has no meaning for a task.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), TrainError> {
        self.reading.check(task)?;
        let causal = task == TaskName::CausalLm;
        if !causal && (self.prefix.is_some() || self.prefix_only) {
            let message = format!(
                "requires a language model, but the task {task} has a head for labels; leave it out"
            );
            return Err(TrainError::config("prefix", message));
        }
        let kind = task.label_kind();
        let classes = !causal && kind != Some(LabelKind::Score);
        let several = kind == Some(LabelKind::MultiLabel);
        let one = classes && !several;
        let smoothed = self.label_smoothing.is_some_and(|share| share > 0.0);
        let above = |number: Option<usize>, least| number.is_some_and(|number| number > least);
        refuse(
            task,
            &[
                ("labels", self.labels.is_some(), classes),
                ("class_weights", self.class_weights.is_some(), one),
                ("threshold", self.threshold.is_some(), several),
                ("fresh_head", self.fresh_head, !causal),
                ("metric", self.metric.is_some(), !causal),
                ("label_smoothing", smoothed, causal || one),
                ("generate_prompts", above(self.generate_prompts, 0), causal),
                ("max_new_tokens", self.max_new_tokens.is_some(), causal),
                ("beams", above(self.beams, 1), causal),
                ("packing", self.packing, causal),
            ],
        )
    }
}

impl ReadingOptions {
    /// Refuses what has no meaning for a task.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), TrainError> {
        let causal = task == TaskName::CausalLm;
        // The columns of GLUE's files are known.
        let own = !matches!(task, TaskName::Glue(_));
        let pairs = !causal && own && task != TaskName::TokenClassification;
        let completion = self.completion_column.is_some();
        let words = task == TaskName::TokenClassification;
        refuse(
            task,
            &[
                ("prompt_column", self.prompt_column.is_some(), causal),
                ("completion_column", completion, causal),
                ("documents", self.documents.is_some(), causal),
                ("concatenate", self.concatenate, causal),
                ("loss_on_prompt", self.loss_on_prompt, causal),
                ("no_eos", self.no_eos, causal),
                ("text_column", self.text_column.is_some(), own),
                ("pair_column", self.pair_column.is_some(), pairs),
                ("label_column", self.label_column.is_some(), !causal && own),
                ("add_prefix_space", self.add_prefix_space.is_some(), words),
            ],
        )
    }
}

fn refuse(task: TaskName, options: &[Given]) -> Result<(), TrainError> {
    let mut options = options.iter();
    let Some((option, ..)) = options.find(|(_, given, fits)| *given && !fits) else {
        return Ok(());
    };
    let message = format!("has no meaning for the task {task}; leave it out");
    Err(TrainError::config(*option, message))
}
