//! Check of the options against the task: an option without an effect is an error.

use super::evaluation::EvalOptions;
use super::labelled::PredictOptions;
use crate::TrainError;
use crate::data::LabelKind;
use crate::options::{DecodingOptions, ReadingOptions, TrainOptions};
use crate::task::TaskName;

/// Name of an option, and the tasks that it has a meaning for.
type Use = (&'static str, fn(TaskName) -> bool);

/// Options that not every task has a use for, with the tasks that have one: the same for all commands.
const USES: [Use; 31] = [
    // One score has no name.
    ("labels", |task| is_labelled(task) && !is_stsb(task)),
    ("class_weights", has_one_class),
    ("label_smoothing", |task| {
        is_causal(task) || has_one_class(task)
    }),
    ("threshold", is_multi_label),
    ("fresh_head", is_labelled),
    ("metric", is_labelled),
    ("submission", is_glue),
    ("packing", is_causal),
    ("generate", is_causal),
    ("generate_prompts", is_causal),
    ("max_new_tokens", is_causal),
    ("beams", is_causal),
    ("length_penalty", is_causal),
    ("no_repeat_ngram", is_causal),
    ("stop_token", is_causal),
    ("template", is_causal),
    ("categories", is_causal),
    // Of generated texts.
    ("seed", is_causal),
    ("prompt_column", is_causal),
    ("completion_column", is_causal),
    ("documents", is_causal),
    ("concatenate", is_causal),
    ("loss_on_prompt", is_causal),
    ("no_eos", is_causal),
    ("train_on", is_causal),
    ("chat_template", is_causal),
    ("chat_template_kwargs", is_causal),
    // The columns of GLUE's files are known.
    ("text_column", |task| !is_glue(task)),
    ("pair_column", |task| {
        is_labelled(task) && !is_glue(task) && !is_words(task)
    }),
    ("label_column", |task| is_labelled(task) && !is_glue(task)),
    ("add_prefix_space", is_words),
];

fn is_causal(task: TaskName) -> bool {
    task == TaskName::CausalLm
}

fn is_labelled(task: TaskName) -> bool {
    !is_causal(task)
}

fn is_glue(task: TaskName) -> bool {
    matches!(task, TaskName::Glue(_))
}

fn is_stsb(task: TaskName) -> bool {
    is_glue(task) && task.label_kind() == Some(LabelKind::Score)
}

fn is_words(task: TaskName) -> bool {
    task == TaskName::TokenClassification
}

fn is_multi_label(task: TaskName) -> bool {
    task.label_kind() == Some(LabelKind::MultiLabel)
}

fn has_one_class(task: TaskName) -> bool {
    is_words(task) || task.label_kind() == Some(LabelKind::Classes)
}

/// An option by its name, and whether it is given.
type Given = (&'static str, bool);

impl TrainOptions {
    /// Refuses what has no meaning for a task.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), TrainError> {
        self.reading.check(task)?;
        refuse(task, &self.given())?;
        // No prompts at all, as against none by name, switch off the texts of a recipe.
        let mut of_texts = vec![
            ("max_new_tokens", self.max_new_tokens.is_some()),
            ("beams", self.beams.is_some_and(|beams| beams > 1)),
        ];
        of_texts.extend(self.decoding.given());
        refuse_without(
            "generate_prompts",
            self.generate_prompts.is_some(),
            &of_texts,
        )?;
        self.decoding.check(self.beams)
    }

    fn given(&self) -> Vec<Given> {
        let above = |number: Option<usize>, least| number.is_some_and(|number| number > least);
        let smoothed = self.label_smoothing.is_some_and(|share| share > 0.0);
        let mut given = vec![
            ("labels", self.labels.is_some()),
            ("class_weights", self.class_weights.is_some()),
            ("threshold", self.threshold.is_some()),
            ("fresh_head", self.fresh_head),
            ("metric", self.metric.is_some()),
            ("label_smoothing", smoothed),
            ("generate_prompts", above(self.generate_prompts, 0)),
            ("max_new_tokens", self.max_new_tokens.is_some()),
            ("beams", above(self.beams, 1)),
            ("packing", self.packing),
        ];
        given.extend(self.decoding.given());
        given
    }
}

impl DecodingOptions {
    /// Refuses an option of beams without beams.
    fn check(&self, beams: Option<usize>) -> Result<(), TrainError> {
        let of_beams = [("length_penalty", self.length_penalty.is_some())];
        refuse_without("beams", beams.is_some(), &of_beams)
    }

    fn given(&self) -> [Given; 3] {
        [
            ("length_penalty", self.length_penalty.is_some()),
            ("no_repeat_ngram", self.no_repeat_ngram.is_some()),
            ("stop_token", self.stop_token.is_some()),
        ]
    }
}

impl EvalOptions {
    /// Refuses what has no meaning for a task, and options of texts without texts.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), TrainError> {
        self.reading.check(task)?;
        refuse(task, &self.given())?;
        refuse_without("generate", self.generate, &self.of_texts())?;
        self.decoding.check(self.beams)
    }

    fn given(&self) -> Vec<Given> {
        let mut given = vec![
            ("labels", self.labels.is_some()),
            ("threshold", self.threshold.is_some()),
            ("generate", self.generate),
        ];
        given.extend(self.of_texts());
        given
    }

    fn of_texts(&self) -> Vec<Given> {
        let mut given = vec![
            ("max_new_tokens", self.max_new_tokens.is_some()),
            ("beams", self.beams.is_some()),
            ("seed", self.seed.is_some()),
        ];
        given.extend(self.decoding.given());
        given
    }
}

impl PredictOptions {
    /// Refuses what has no meaning for a task.
    ///
    /// # Errors
    /// [`TrainError::Config`] that names the option.
    pub(super) fn check(&self, task: TaskName) -> Result<(), TrainError> {
        self.reading.check(task)?;
        refuse(task, &self.given())
    }

    fn given(&self) -> Vec<Given> {
        vec![
            ("labels", self.labels.is_some()),
            ("threshold", self.threshold.is_some()),
            ("submission", self.submission.is_some()),
        ]
    }
}

impl ReadingOptions {
    /// Refuses what has no meaning for a task.
    fn check(&self, task: TaskName) -> Result<(), TrainError> {
        refuse(task, &self.given())
    }

    fn given(&self) -> Vec<Given> {
        vec![
            ("template", self.template.is_some()),
            ("categories", self.categories.is_some()),
            ("prompt_column", self.prompt_column.is_some()),
            ("completion_column", self.completion_column.is_some()),
            ("documents", self.documents.is_some()),
            ("concatenate", self.concatenate),
            ("loss_on_prompt", self.loss_on_prompt),
            ("no_eos", self.no_eos),
            ("train_on", self.train_on.is_some()),
            ("chat_template", self.chat_template.is_some()),
            ("chat_template_kwargs", self.chat_template_kwargs.is_some()),
            ("text_column", self.text_column.is_some()),
            ("pair_column", self.pair_column.is_some()),
            ("label_column", self.label_column.is_some()),
            ("add_prefix_space", self.add_prefix_space.is_some()),
        ]
    }
}

/// Returns true if a task has a use for an option.
fn fits(option: &str, task: TaskName) -> bool {
    let mut uses = USES.iter();
    let found = uses.find(|(name, _)| *name == option);
    found.is_some_and(|(_, is_used)| is_used(task))
}

fn refuse(task: TaskName, options: &[Given]) -> Result<(), TrainError> {
    let mut options = options.iter();
    let Some((option, _)) = options.find(|(option, given)| *given && !fits(option, task)) else {
        return Ok(());
    };
    let message = match *option {
        "generate" => format!("requires causal-lm, but the task is {task}"),
        "submission" => format!("is for the tasks of GLUE, and the task is {task}"),
        _ => format!("has no meaning for the task {task}; leave it out"),
    };
    Err(TrainError::config(*option, message))
}

/// Refuses options that act only beside another one.
fn refuse_without(other: &str, given: bool, options: &[Given]) -> Result<(), TrainError> {
    let mut options = options.iter().filter(|_| !given);
    let Some((option, _)) = options.find(|(_, given)| *given) else {
        return Ok(());
    };
    let message = format!("has no effect without `{other}`; leave it out, or give both");
    Err(TrainError::config(*option, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::GlueTask;

    #[test]
    fn every_option_of_a_command_is_in_the_table() {
        let mut given = TrainOptions::default().given();
        given.extend(EvalOptions::default().given());
        given.extend(PredictOptions::default().given());
        given.extend(ReadingOptions::default().given());
        for (option, _) in &given {
            let uses = USES.iter().filter(|(name, _)| name == option);
            assert_eq!(uses.count(), 1, "{option}");
        }
        for (option, _) in USES {
            assert!(given.iter().any(|(name, _)| *name == option), "{option}");
        }
    }

    /// `train` refused what `eval` and `predict` accepted.
    #[test]
    fn the_commands_agree() {
        let tasks = [
            ("causal-lm", false, false),
            ("classification", true, false),
            ("multi-label-classification", true, true),
            // Several scores have names.
            ("regression", true, false),
            ("token-classification", true, false),
            ("glue/cola", true, false),
            ("glue/stsb", false, false),
        ];
        for (name, labels, threshold) in tasks {
            let task: TaskName = name.parse().unwrap();
            let (labelled, above) = (Some(vec!["a".into(), "b".into()]), Some(vec![0.5]));
            let train = |labels, threshold| TrainOptions {
                labels,
                threshold,
                ..TrainOptions::default()
            };
            let eval = |labels, threshold| EvalOptions {
                labels,
                threshold,
                ..EvalOptions::default()
            };
            let predict = |labels, threshold| PredictOptions {
                labels,
                threshold,
                ..PredictOptions::default()
            };
            let found = [
                train(labelled.clone(), None).check(task).is_ok(),
                eval(labelled.clone(), None).check(task).is_ok(),
                predict(labelled, None).check(task).is_ok(),
                train(None, above.clone()).check(task).is_ok(),
                eval(None, above.clone()).check(task).is_ok(),
                predict(None, above).check(task).is_ok(),
            ];
            let expected = [labels, labels, labels, threshold, threshold, threshold];
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn options_of_texts_need_texts() {
        let causal = TaskName::CausalLm;
        for option in ["beams", "max_new_tokens", "seed"] {
            for generate in [false, true] {
                let given = |name| (name == option).then_some(4);
                let options = EvalOptions {
                    beams: given("beams"),
                    max_new_tokens: given("max_new_tokens"),
                    seed: given("seed").map(|seed| seed as u64),
                    generate,
                    ..EvalOptions::default()
                };
                let result = options.check(causal);
                assert_eq!(result.is_ok(), generate, "{option}");
                if let Err(error) = result {
                    let message = error.to_string();
                    assert!(message.contains(option) && message.contains("`generate`"));
                }
            }
        }
        let train = |prompts, beams| TrainOptions {
            generate_prompts: prompts,
            beams,
            max_new_tokens: Some(8),
            ..TrainOptions::default()
        };
        assert!(train(None, None).check(causal).is_err());
        // The texts of a recipe, switched off by a flag.
        assert!(train(Some(0), Some(4)).check(causal).is_ok());
    }

    #[test]
    fn the_columns_of_glue_are_known() {
        let options = ReadingOptions {
            label_column: Some("y".into()),
            ..ReadingOptions::default()
        };
        assert!(options.check(TaskName::Glue(GlueTask::Cola)).is_err());
        assert!(options.check(TaskName::Regression).is_ok());
    }
}
